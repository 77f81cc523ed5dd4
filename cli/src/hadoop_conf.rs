//! `core-site.xml` and `yarn-site.xml`: how an unmodified Hadoop client finds this cluster.
//!
//! Everything in them comes from the running resource manager, so that they need no editing.

use std::net::SocketAddr;
use std::path::Path;

use bobbin_proto::v1;

use crate::cluster::sentence;
use crate::failure::{Failure, Kind};

/// Says that a file is ours and may be replaced.
const MARK: &str = "Written by `bobbin client-config`";
/// Bytes at the front of a file that the mark is looked for in.
const MARK_BYTES: usize = 1024;
/// They hold no secret.
const MODE: u32 = 0o644;

/// What the two files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HadoopConf {
    client: String,
    scheduler: String,
    admin: String,
    http: String,
    max_attempts: u32,
    am_expiry_ms: u64,
    /// As the resource manager offers it, weakest first.
    protection: String,
    /// For `hadoop.token.files`.
    token_file: Option<String>,
}

/// A property with its reason.
struct Property {
    name: &'static str,
    value: String,
    description: &'static str,
}

impl HadoopConf {
    /// `host` takes the place of the address that the resource manager is bound to; needed only where
    /// that is none that a client can use.
    ///
    /// # Errors
    /// The resource manager says nothing that can be used.
    pub(crate) fn new(
        doors: Option<&v1::HadoopDoors>,
        host: &Host,
        token_file: Option<String>,
    ) -> Result<HadoopConf, Failure> {
        let doors = doors.ok_or_else(|| {
            Failure::new(
                Kind::Refused,
                "the resource manager has no doors for Hadoop's clients",
            )
            .try_this("one of the same version as this program: `bobbin version`")
        })?;
        Ok(HadoopConf {
            client: host.address(&doors.client)?,
            scheduler: host.address(&doors.scheduler)?,
            admin: host.address(&doors.admin)?,
            http: host.address(&doors.http)?,
            max_attempts: doors.max_attempts,
            am_expiry_ms: doors.am_expiry_ms,
            protection: doors.rpc_protection.clone(),
            token_file,
        })
    }

    fn core_site(&self) -> String {
        let mut properties = vec![
            Property {
                name: "fs.defaultFS",
                value: format!("webhdfs://{}", self.http),
                description: "Paths without a scheme are in the resource manager's own file tree.",
            },
            Property {
                name: "hadoop.security.authentication",
                value: "simple".to_owned(),
                description: "There is no Kerberos: who somebody is, a token proves, or, on the \
                              resource manager's host, the account of the process.",
            },
        ];
        if let Some(file) = &self.token_file {
            properties.push(Property {
                name: "hadoop.token.files",
                value: file.clone(),
                description: "Tokens that every client reads at its start; made by `bobbin token \
                              create --hadoop FILE`. A missing file is skipped.",
            });
        }
        // Clients that are told nothing want `authentication`.
        if !self.protection.is_empty() && !self.protection.split(',').any(|p| p == "authentication")
        {
            properties.push(Property {
                name: "hadoop.rpc.protection",
                value: self.protection.clone(),
                description: "The resource manager takes no calls without this protection.",
            });
        }
        document(&properties)
    }

    fn yarn_site(&self) -> String {
        document(&[
            Property {
                name: "yarn.resourcemanager.address",
                value: self.client.clone(),
                description: "Where applications are submitted and followed.",
            },
            Property {
                name: "yarn.resourcemanager.scheduler.address",
                value: self.scheduler.clone(),
                description: "Where application masters ask for containers.",
            },
            Property {
                name: "yarn.resourcemanager.admin.address",
                value: self.admin.clone(),
                description: "Where administrators ask.",
            },
            Property {
                name: "yarn.resourcemanager.webapp.address",
                value: self.http.clone(),
                description: "Web pages, REST, and the proxy to the pages of application masters.",
            },
            Property {
                name: "yarn.resourcemanager.connect.retry-interval.ms",
                value: "1000".to_owned(),
                description: "A resource manager that restarts is back within seconds; by default \
                              clients would look for it every half minute.",
            },
            Property {
                name: "yarn.resourcemanager.am.max-attempts",
                value: self.max_attempts.to_string(),
                description: "How often an application is started at most if it does not say; the \
                              resource manager's own number.",
            },
            Property {
                name: "yarn.am.liveness-monitor.expiry-interval-ms",
                value: self.am_expiry_ms.to_string(),
                description: "An application master that is silent for longer has failed, by the \
                              resource manager's clock.",
            },
            Property {
                name: "yarn.timeline-service.enabled",
                value: "false".to_owned(),
                description: "There is no timeline service; the resource manager remembers.",
            },
        ])
    }

    /// Writes both files into a folder, each at once.
    ///
    /// # Errors
    /// A file of that name is not ours, or cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let files = [
            ("core-site.xml", self.core_site()),
            ("yarn-site.xml", self.yarn_site()),
        ];
        for (name, _) in &files {
            check_ours(&folder.join(name))?;
        }
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::file("cannot make the folder", folder, &e))?;
        for (name, text) in &files {
            bobbin_service::atomic_write(&folder.join(name), text.as_bytes(), MODE)
                .map_err(|e| Failure::new(Kind::Failed, sentence(&e)))?;
        }
        Ok(())
    }
}

/// Which host clients shall name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// This one, whatever the resource manager is bound to.
    Told(String),
    /// The one it is bound to; this one if that is every address of its host.
    Bound { otherwise: String },
}

impl Host {
    /// The address that clients are given for one that a door is bound to.
    fn address(&self, bound: &str) -> Result<String, Failure> {
        let address: SocketAddr = bound.parse().map_err(|_| {
            Failure::new(
                Kind::Failed,
                format!("the resource manager names the address '{bound}', which is none"),
            )
        })?;
        let host = match self {
            Host::Told(host) => host,
            Host::Bound { otherwise } if address.ip().is_unspecified() => otherwise,
            Host::Bound { .. } => return Ok(address.to_string()),
        };
        let is_v6 = host.contains(':') && !host.starts_with('[');
        Ok(if is_v6 {
            format!("[{host}]:{}", address.port())
        } else {
            format!("{host}:{}", address.port())
        })
    }
}

/// Refuses to touch a file that somebody else wrote.
fn check_ours(path: &Path) -> Result<(), Failure> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::file("cannot read", path, &e)),
    };
    let front = String::from_utf8_lossy(&text[..text.len().min(MARK_BYTES)]).into_owned();
    if front.contains(MARK) {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Refused,
        format!(
            "{} was not written by this program and is left alone",
            path.display()
        ),
    )
    .try_this("another folder, or move that file away"))
}

fn document(properties: &[Property]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- {MARK}; changes are lost when it is run again. -->\n\
         <configuration>\n"
    );
    for property in properties {
        text.push_str(&format!(
            "  <property>\n    <name>{}</name>\n    <value>{}</value>\n    \
             <description>{}</description>\n  </property>\n",
            property.name,
            escape(&property.value),
            escape(property.description),
        ));
    }
    text.push_str("</configuration>\n");
    text
}

/// A text as XML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The value of a property in a text like ours.
pub(crate) fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<name>{name}</name>"))?;
    let (_, rest) = rest.split_once("<value>")?;
    Some(rest.split_once("</value>")?.0.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(host: &str) -> v1::HadoopDoors {
        v1::HadoopDoors {
            client: format!("{host}:18032"),
            scheduler: format!("{host}:18030"),
            admin: format!("{host}:18033"),
            http: format!("{host}:18088"),
            max_attempts: 2,
            am_expiry_ms: 60_000,
            rpc_protection: "authentication,integrity,privacy".to_owned(),
        }
    }

    fn conf(doors: &v1::HadoopDoors, host: &Host, token_file: Option<&str>) -> HadoopConf {
        HadoopConf::new(Some(doors), host, token_file.map(str::to_owned)).unwrap()
    }

    fn bound() -> Host {
        Host::Bound {
            otherwise: "rm.example".to_owned(),
        }
    }

    #[test]
    fn addresses_are_the_bound_ones() {
        let conf = conf(&doors("127.0.0.1"), &bound(), None);
        let (core, yarn) = (conf.core_site(), conf.yarn_site());
        let of = |name: &str| value(&yarn, name).unwrap();
        assert_eq!(of("yarn.resourcemanager.address"), "127.0.0.1:18032");
        assert_eq!(
            of("yarn.resourcemanager.scheduler.address"),
            "127.0.0.1:18030"
        );
        assert_eq!(of("yarn.resourcemanager.webapp.address"), "127.0.0.1:18088");
        assert_eq!(of("yarn.resourcemanager.am.max-attempts"), "2");
        assert_eq!(of("yarn.am.liveness-monitor.expiry-interval-ms"), "60000");
        assert_eq!(
            value(&core, "fs.defaultFS"),
            Some("webhdfs://127.0.0.1:18088")
        );
        assert_eq!(value(&core, "hadoop.token.files"), None);
        assert_eq!(value(&core, "hadoop.rpc.protection"), None);
    }

    #[test]
    fn every_address_needs_a_name() {
        for host in ["0.0.0.0", "[::]"] {
            let conf = conf(&doors(host), &bound(), None);
            assert_eq!(conf.client, "rm.example:18032");
            assert_eq!(conf.http, "rm.example:18088");
        }
        let told = Host::Told("2001:db8::1".to_owned());
        assert_eq!(
            conf(&doors("127.0.0.1"), &told, None).client,
            "[2001:db8::1]:18032"
        );
    }

    #[test]
    fn tokens_and_protection() {
        let mut doors = doors("127.0.0.1");
        doors.rpc_protection = "integrity,privacy".to_owned();
        let core = conf(&doors, &bound(), Some("${user.home}/a&b")).core_site();
        assert_eq!(
            value(&core, "hadoop.token.files"),
            Some("${user.home}/a&amp;b")
        );
        assert_eq!(
            value(&core, "hadoop.rpc.protection"),
            Some("integrity,privacy")
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let failure = HadoopConf::new(None, &bound(), None).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        let failure = HadoopConf::new(Some(&doors("nowhere")), &bound(), None).unwrap_err();
        assert!(failure.message.contains("nowhere:18032"), "{failure}");
    }

    #[test]
    fn written_twice_and_not_over_others() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/conf");
        let conf = conf(&doors("127.0.0.1"), &bound(), None);
        conf.write(&out).unwrap();
        conf.write(&out).unwrap();
        let yarn = std::fs::read_to_string(out.join("yarn-site.xml")).unwrap();
        assert_eq!(yarn, conf.yarn_site());
        std::fs::remove_file(out.join("core-site.xml")).unwrap();
        let theirs = "<configuration/>";
        std::fs::write(out.join("yarn-site.xml"), theirs).unwrap();
        let failure = conf.write(&out).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.message.contains("yarn-site.xml"), "{failure}");
        let yarn = std::fs::read_to_string(out.join("yarn-site.xml")).unwrap();
        assert_eq!(yarn, theirs);
        assert!(
            !out.join("core-site.xml").exists(),
            "nothing was written at all"
        );
    }
}
