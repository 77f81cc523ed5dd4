//! Programs, run files and ports of the daemons on this host.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::Findings;
use crate::host::{Layout, Programs};

/// How long a door that is a daemon's may take to answer.
const CONNECT: Duration = Duration::from_secs(2);
/// Space that a daemon should have for its state, MiB.
const SPACE_MIN_MIB: u64 = 1024;

/// Addresses of a daemon: section, key, and what is taken when nothing is said.
const RM_DOORS: [(&str, &str, &str); 5] = [
    ("grpc", "listen", "127.0.0.1:8034"),
    ("http", "listen", "127.0.0.1:8088"),
    ("yarn", "client_listen", "127.0.0.1:8032"),
    ("yarn", "scheduler_listen", "127.0.0.1:8030"),
    ("yarn", "admin_listen", "127.0.0.1:8033"),
];
const NODE_DOORS: [(&str, &str, &str); 3] = [
    ("grpc", "listen", "127.0.0.1:8043"),
    ("http", "listen", "127.0.0.1:8042"),
    ("yarn", "listen", "127.0.0.1:8041"),
];

/// A daemon that has settings on this host, or that would run with the defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    is_resourcemanager: bool,
    settings: Table,
    run: PathBuf,
    lib: PathBuf,
}

/// The settings of this host's daemons: those of a cluster by `up`, else the installed ones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) daemons: Vec<Daemon>,
}

impl Settings {
    pub(crate) fn find() -> Settings {
        let of_up = Layout::of(None).ok().filter(Layout::exists);
        let Some(layout) = of_up else {
            return Settings::installed(Path::new("/etc/bobbin"));
        };
        let rm = Daemon::new("resourcemanager", true, &layout.conf_of("resourcemanager"));
        let nodes = layout.nodes();
        let nodes = nodes
            .iter()
            .map(|name| Daemon::new(name, false, &layout.conf_of(name)));
        Settings {
            daemons: [rm].into_iter().chain(nodes).collect(),
        }
    }

    fn installed(conf: &Path) -> Settings {
        Settings {
            daemons: vec![
                Daemon::new("resourcemanager", true, &conf.join("resourcemanager.toml")),
                Daemon::new("nodeagent", false, &conf.join("nodeagent.toml")),
            ],
        }
    }
}

impl Daemon {
    fn new(name: &str, is_resourcemanager: bool, file: &Path) -> Daemon {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let settings: Table = text.parse().unwrap_or_default();
        let folder = |key: &str, otherwise: &str| {
            let told = settings.get("folders").and_then(|f| f.get(key));
            PathBuf::from(told.and_then(toml::Value::as_str).unwrap_or(otherwise))
        };
        let lib = if is_resourcemanager {
            "/var/lib/bobbin/resourcemanager"
        } else {
            "/var/lib/bobbin/nodeagent"
        };
        Daemon {
            name: name.to_owned(),
            is_resourcemanager,
            run: folder("run", "/run/bobbin"),
            lib: folder("lib", lib),
            settings,
        }
    }

    fn doors(&self) -> Vec<(String, String)> {
        let doors: &[_] = if self.is_resourcemanager {
            &RM_DOORS
        } else {
            &NODE_DOORS
        };
        doors
            .iter()
            .map(|(section, key, otherwise)| {
                let told = self.settings.get(*section).and_then(|t| t.get(*key));
                let address = told.and_then(toml::Value::as_str).unwrap_or(otherwise);
                (format!("{section}.{key}"), address.to_owned())
            })
            .collect()
    }

    /// The name that its run files have: a node agent's is in its settings.
    fn run_name(&self) -> &str {
        let told = self.settings.get("name").and_then(toml::Value::as_str);
        told.unwrap_or(if self.is_resourcemanager {
            &self.name
        } else {
            "node"
        })
    }
}

/// Looks at the daemons of a kind.
pub(crate) fn check(settings: &Settings, resourcemanager: bool) -> Findings {
    let mut found = Findings::of(if resourcemanager {
        "resource manager"
    } else {
        "node agent"
    });
    match Programs::beside_this_one() {
        Ok(_) => found.ok("programs", "all are in one folder"),
        Err(failure) => found.bad(
            "programs",
            failure.message,
            failure.cure.unwrap_or_default(),
        ),
    }
    if resourcemanager {
        host_name(&mut found);
    }
    for daemon in settings
        .daemons
        .iter()
        .filter(|d| d.is_resourcemanager == resourcemanager)
    {
        check_daemon(&mut found, daemon);
    }
    found
}

fn check_daemon(found: &mut Findings, daemon: &Daemon) {
    let is_alive = match bobbin_service::read_daemon_info(&daemon.run, daemon.run_name()) {
        Ok(None) => {
            found.ok(&daemon.name, "does not run here");
            false
        }
        Ok(Some(info)) if info.is_alive() => {
            found.ok(&daemon.name, format!("runs, pid {}", info.pid));
            true
        }
        Ok(Some(info)) => {
            found.note(
                &daemon.name,
                format!(
                    "was killed: pid {} is gone, its run file is there",
                    info.pid
                ),
                "`bobbin up`, or systemctl start: it recovers",
            );
            false
        }
        Err(e) => {
            let words = crate::cluster::sentence(&e);
            found.bad(&daemon.name, words, "remove that file and start the daemon");
            false
        }
    };
    for (key, address) in daemon.doors() {
        let subject = format!("{}: {key}", daemon.name);
        port(found, &subject, &address, is_alive);
    }
    space(found, daemon);
}

/// A port is a living daemon's and answers, or is free for a dead one.
fn port(found: &mut Findings, subject: &str, address: &str, is_alive: bool) {
    let Some(resolved) = address.to_socket_addrs().ok().and_then(|mut a| a.next()) else {
        found.bad(
            subject,
            format!("'{address}' is no address"),
            "host:port in the daemon's settings",
        );
        return;
    };
    if is_alive {
        let mut reached = resolved;
        if reached.ip().is_unspecified() {
            reached.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        match TcpStream::connect_timeout(&reached, CONNECT) {
            Ok(_) => found.ok(subject, format!("{address} answers")),
            // Port 0 and a changed setting: the bound one is in the run file.
            Err(_) if resolved.port() == 0 => found.ok(subject, "on a free port"),
            Err(e) => found.bad(
                subject,
                format!(
                    "{address} does not answer: {}",
                    crate::failure::io_words(&e)
                ),
                "restart the daemon if its settings were changed; look into its log",
            ),
        }
        return;
    }
    match TcpListener::bind(resolved) {
        Ok(_) => found.ok(subject, format!("{address} is free")),
        Err(e) => found.bad(
            subject,
            format!("{address} cannot be had: {}", crate::failure::io_words(&e)),
            "end what has it (ss -ltnp), or another port in the daemon's settings",
        ),
    }
}

/// Java asks for the host's own address by its name, and so does Spark.
fn host_name(found: &mut Findings) {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let resolved = (name.as_str(), 0)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next());
    match resolved {
        Some(address) => found.ok("host name", format!("{name} is {}", address.ip())),
        None => found.bad(
            "host name",
            format!("'{name}' has no address: Java programs do not start"),
            format!("a line '127.0.1.1 {name}' in /etc/hosts"),
        ),
    }
}

fn space(found: &mut Findings, daemon: &Daemon) {
    // The nearest folder that is there: the state may not have been made yet.
    let Some(there) = daemon.lib.ancestors().find(|f| f.exists()) else {
        return;
    };
    let Ok(stat) = nix::sys::statvfs::statvfs(there) else {
        return;
    };
    let free_mib = (stat.blocks_available() * stat.fragment_size()) >> 20;
    let subject = format!("{}: disk", daemon.name);
    let words = format!("{free_mib} MiB are free below {}", there.display());
    if free_mib >= SPACE_MIN_MIB {
        found.ok(&subject, words);
    } else {
        found.note(&subject, words, "make room, or another folders.lib");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn settings_and_their_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[yarn]\nclient_listen = \"127.0.0.1:1\"\n[folders]\nrun = \"/r\"\n";
        std::fs::write(folder.path().join("resourcemanager.toml"), text).unwrap();
        let settings = Settings::installed(folder.path());
        let [rm, node] = settings.daemons.as_slice() else {
            unreachable!("two daemons")
        };
        assert_eq!(rm.run, Path::new("/r"));
        let doors = rm.doors();
        assert!(doors.contains(&("yarn.client_listen".to_owned(), "127.0.0.1:1".to_owned())));
        assert!(doors.contains(&("grpc.listen".to_owned(), "127.0.0.1:8034".to_owned())));
        assert_eq!(node.doors().len(), 3);
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
        let empty = tempfile::tempdir().unwrap();
        let (documented, default) = (
            Settings::installed(&conf),
            Settings::installed(empty.path()),
        );
        for (documented, default) in documented.daemons.iter().zip(&default.daemons) {
            assert_eq!(documented.doors(), default.doors());
            assert_eq!(documented.lib, default.lib);
            assert_eq!(documented.run, default.run);
        }
    }

    #[test]
    fn ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let verdict = |address: &str, is_alive| {
            let mut found = Findings::of("x");
            port(&mut found, "p", address, is_alive);
            found.list[0].verdict
        };
        assert_eq!(verdict(&address, true), Verdict::Ok);
        assert_eq!(verdict(&address, false), Verdict::Bad);
        assert_eq!(verdict("nonsense", false), Verdict::Bad);
        drop(listener);
        assert_eq!(verdict(&address, true), Verdict::Bad);
        assert_eq!(verdict(&address, false), Verdict::Ok);
    }

    #[test]
    fn a_dead_daemon_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().display();
        let text =
            format!("name = \"n\"\n[folders]\nrun = \"{run}\"\n[grpc]\nlisten = \"127.0.0.1:0\"\n");
        std::fs::write(folder.path().join("nodeagent.toml"), text).unwrap();
        let info = bobbin_service::DaemonInfo {
            pid: i32::MAX,
            ..bobbin_service::DaemonInfo::default()
        };
        let json = serde_json::to_vec(&info).unwrap();
        std::fs::write(folder.path().join("n.json"), json).unwrap();
        let found = check(&Settings::installed(folder.path()), false);
        let daemon = found
            .list
            .iter()
            .find(|f| f.subject == "nodeagent")
            .unwrap();
        assert_eq!(daemon.verdict, Verdict::Note);
        assert!(daemon.words.contains("was killed"), "{daemon:?}");
    }
}
