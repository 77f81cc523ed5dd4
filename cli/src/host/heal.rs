//! Settings of a cluster that an older version made: what has come since is added, with free ports.
//! Everything else in them stays as it is, comments too.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use toml::Table;

use super::layout::{Layout, RESOURCEMANAGER};
use super::{ports, settings};
use crate::failure::{Failure, Kind};

/// Doors that the first version did not have, as (section, key).
const RM_DOORS: [(&str, &str); 4] = [
    ("http", "listen"),
    ("yarn", "client_listen"),
    ("yarn", "scheduler_listen"),
    ("yarn", "admin_listen"),
];
const NODE_DOORS: [(&str, &str); 2] = [("yarn", "listen"), ("http", "listen")];
const MODE: u32 = 0o644;

type Door = (&'static str, &'static str);

/// Settings of one daemon.
struct File {
    path: PathBuf,
    text: String,
    /// Where the daemon listens.
    host: String,
    missing: Vec<Door>,
}

/// Adds what is missing.
///
/// # Errors
/// No ports, or a file that cannot be read or written.
pub(crate) fn heal(layout: &Layout, nodes: &[String]) -> Result<(), Failure> {
    let mut files = Vec::new();
    let mut taken = Vec::new();
    let mut hosts = vec![Ipv4Addr::LOCALHOST];
    let daemons = nodes
        .iter()
        .map(|node| (node.as_str(), NODE_DOORS.as_slice()))
        .chain([(RESOURCEMANAGER, RM_DOORS.as_slice())]);
    for (name, doors) in daemons {
        let path = layout.conf_of(name);
        let text =
            std::fs::read_to_string(&path).map_err(|e| Failure::file("cannot read", &path, &e))?;
        taken.extend(ports_in(&text));
        // What cannot be read is told by the daemon, with its line.
        if let Ok(table) = text.parse::<Table>() {
            let host = table.get("host").and_then(toml::Value::as_str);
            let host = host.unwrap_or(settings::HOST).to_owned();
            hosts.extend(host.parse::<Ipv4Addr>());
            let missing = missing(&table, doors);
            files.push(File {
                path,
                text,
                host,
                missing,
            });
        }
    }
    let count: usize = files.iter().map(|file| file.missing.len()).sum();
    if count == 0 {
        return Ok(());
    }
    // The daemons may be dead, and their ports look free.
    let mut free = ports::free(&hosts, count + taken.len())?
        .into_iter()
        .filter(|port| !taken.contains(port));
    for file in files.into_iter().filter(|file| !file.missing.is_empty()) {
        let mut healed = file.text;
        for ((section, key), port) in file.missing.into_iter().zip(&mut free) {
            healed = with_key(&healed, section, key, &format!("{}:{port}", file.host));
        }
        // A section in another form, which only its author can add to: the defaults hold.
        if healed.parse::<Table>().is_ok() {
            bobbin_service::atomic_write(&file.path, healed.as_bytes(), MODE)
                .map_err(|e| Failure::new(Kind::Failed, crate::cluster::sentence(&e)))?;
        }
    }
    Ok(())
}

fn missing(table: &Table, doors: &[Door]) -> Vec<Door> {
    let lacks = |(section, key): &&Door| table.get(*section).and_then(|t| t.get(*key)).is_none();
    doors.iter().filter(lacks).copied().collect()
}

/// Whatever follows a colon and is a port.
fn ports_in(text: &str) -> Vec<u16> {
    text.split(':')
        .skip(1)
        .filter_map(|rest| {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        })
        .collect()
}

/// The text with one key more, in its section, which is made at the end if there is none.
fn with_key(text: &str, section: &str, key: &str, address: &str) -> String {
    let line = format!("{key} = \"{address}\"\n");
    let header = format!("[{section}]");
    let mut out = String::new();
    let mut is_added = false;
    for old in text.split_inclusive('\n') {
        out.push_str(old);
        let words = old.split('#').next().unwrap_or_default().trim();
        if !is_added && words == header {
            if !old.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&line);
            is_added = true;
        }
    }
    if !is_added {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&format!("\n{header}\n{line}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_cluster_gets_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        let nodes = ["node1".to_owned(), "node2".to_owned()];
        layout.create(&nodes).unwrap();
        let rm = "# mine\n[grpc]\nlisten = \"127.0.0.1:20001\"\n[http] # of WebHDFS\nlisten = \"127.0.0.1:20002\"\n";
        std::fs::write(layout.conf_of(RESOURCEMANAGER), rm).unwrap();
        for node in &nodes {
            let text = "host = \"127.0.0.1\"\n[http]\n";
            std::fs::write(layout.conf_of(node), text).unwrap();
        }
        heal(&layout, &nodes).unwrap();
        let text = std::fs::read_to_string(layout.conf_of(RESOURCEMANAGER)).unwrap();
        assert!(text.starts_with(rm), "{text}");
        let mut ports = vec![20001, 20002];
        for (name, doors) in [
            (RESOURCEMANAGER, RM_DOORS.as_slice()),
            ("node1", NODE_DOORS.as_slice()),
            ("node2", NODE_DOORS.as_slice()),
        ] {
            let table: Table = std::fs::read_to_string(layout.conf_of(name))
                .unwrap()
                .parse()
                .unwrap();
            for (section, key) in doors {
                let address = table[*section][*key].as_str().unwrap();
                ports.push(address.rsplit_once(':').unwrap().1.parse().unwrap());
            }
        }
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        // The resource manager's HTTP was there before.
        assert_eq!(ports.len(), count - 1);
        let before = std::fs::read_to_string(layout.conf_of("node1")).unwrap();
        heal(&layout, &nodes).unwrap();
        assert_eq!(
            before,
            std::fs::read_to_string(layout.conf_of("node1")).unwrap()
        );
    }

    #[test]
    fn other_forms_are_left_to_their_authors() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        layout.create(&[]).unwrap();
        for theirs in ["yarn = { rpc_protection = [] }\n", "not toml"] {
            std::fs::write(layout.conf_of(RESOURCEMANAGER), theirs).unwrap();
            heal(&layout, &[]).unwrap();
            let text = std::fs::read_to_string(layout.conf_of(RESOURCEMANAGER)).unwrap();
            assert_eq!(text, theirs);
        }
    }

    #[test]
    fn ports_of_a_text() {
        assert_eq!(ports_in("a = \"h:1\"\nb = \"[::1]:22\" # x: y"), [1, 1, 22]);
    }
}
