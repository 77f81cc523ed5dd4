//! The settings that a new cluster is given. Kept from then on: people may edit them.

use std::net::{Ipv4Addr, TcpListener};

use toml::{Table, Value};

use super::layout::{Layout, RESOURCEMANAGER};
use super::{machine, ports};
use crate::failure::{Failure, Kind};

/// On one host an agent that is silent so long is dead, milliseconds.
const NODE_EXPIRY_MS: i64 = 10_000;
/// The address of the resource manager of such a cluster, and of its first node.
pub(crate) const HOST: &str = "127.0.0.1";
const MODE: u32 = 0o644;
/// Of the resource manager: gRPC, HTTP, and YARN's clients, masters and administrators.
const RM_PORTS: usize = 5;
/// Of a node agent: gRPC, YARN's containers, HTTP.
const NODE_PORTS: usize = 3;

/// Writes the settings of every daemon of a new cluster; the resource manager's last, because it is
/// what says that there is a cluster.
///
/// # Errors
/// No ports, or files that cannot be written.
pub(crate) fn write(layout: &Layout, nodes: &[String]) -> Result<(), Failure> {
    let hosts = node_hosts(nodes.len());
    let ports = ports::free(&hosts, RM_PORTS + nodes.len() * NODE_PORTS)?;
    let (rm_ports, node_ports) = ports.split_at(RM_PORTS);
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let size = Size {
        memory_mib: machine::node_memory_mib(count),
        vcores: machine::node_vcores(),
    };
    for ((node, host), ports) in nodes
        .iter()
        .zip(hosts)
        .zip(node_ports.chunks_exact(NODE_PORTS))
    {
        let doors = Doors {
            host,
            ports,
            rm_port: rm_ports[0],
        };
        save(
            layout,
            node,
            &nodeagent(layout, node, doors, size),
            "nodeagent",
        )?;
    }
    save(
        layout,
        RESOURCEMANAGER,
        &resourcemanager(layout, rm_ports),
        RESOURCEMANAGER,
    )
}

/// A loopback address for each node: applications take what has the same host for one machine with one
/// disk (Spark reads its neighbors' shuffle files so), and these nodes have folders of their own.
/// Where the system has only one loopback address, they share it.
fn node_hosts(count: usize) -> Vec<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    (first..)
        .take(count)
        .map(Ipv4Addr::from)
        .map(|host| {
            if TcpListener::bind((host, 0)).is_ok() {
                host
            } else {
                Ipv4Addr::LOCALHOST
            }
        })
        .collect()
}

/// The address of a node, from its settings.
pub(crate) fn host_of(layout: &Layout, node: &str) -> String {
    std::fs::read_to_string(layout.conf_of(node))
        .ok()
        .and_then(|text| text.parse::<Table>().ok())
        .and_then(|table| table.get("host")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| HOST.to_owned())
}

/// Where an agent listens: its address, its [`NODE_PORTS`], and the resource manager's gRPC port.
#[derive(Clone, Copy)]
struct Doors<'a> {
    host: Ipv4Addr,
    ports: &'a [u16],
    rm_port: u16,
}

#[derive(Clone, Copy)]
struct Size {
    memory_mib: u64,
    vcores: u32,
}

fn save(layout: &Layout, name: &str, table: &Table, documented: &str) -> Result<(), Failure> {
    let text = format!(
        "# Written by the first `bobbin up` of this cluster and kept: ports, folders and sizes may be\n\
         # changed here. Every key is explained in conf/{documented}.toml of Bobbin.\n{table}"
    );
    bobbin_service::atomic_write(&layout.conf_of(name), text.as_bytes(), MODE)
        .map_err(|e| Failure::new(Kind::Failed, crate::cluster::sentence(&e)))
}

fn path(path: std::path::PathBuf) -> Value {
    // A cluster's folder is UTF-8: `Layout` refuses others.
    Value::String(path.display().to_string())
}

fn table<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Table(
        pairs
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect(),
    )
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn address(port: u16) -> Value {
    Value::String(format!("{HOST}:{port}"))
}

/// Settings of the resource manager on its [`RM_PORTS`].
fn resourcemanager(layout: &Layout, ports: &[u16]) -> Table {
    [
        ("socket", path(layout.socket())),
        (
            "folders",
            table([
                ("lib", path(layout.lib_of(RESOURCEMANAGER))),
                ("run", path(layout.run())),
                ("log", path(layout.log())),
            ]),
        ),
        ("grpc", table([("listen", address(ports[0]))])),
        ("http", table([("listen", address(ports[1]))])),
        (
            "yarn",
            table([
                ("client_listen", address(ports[2])),
                ("scheduler_listen", address(ports[3])),
                ("admin_listen", address(ports[4])),
            ]),
        ),
        (
            "nodes",
            table([("expiry_ms", Value::Integer(NODE_EXPIRY_MS))]),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect()
}

/// Settings of an agent.
fn nodeagent(layout: &Layout, node: &str, doors: Doors<'_>, size: Size) -> Table {
    let listen = |port: u16| table([("listen", Value::String(format!("{}:{port}", doors.host)))]);
    let profile = if bobbin_service::own_uid() == 0 {
        "full"
    } else {
        "rootless"
    };
    let lib = layout.lib_of(node);
    [
        ("name", Value::String(node.to_owned())),
        ("host", Value::String(doors.host.to_string())),
        (
            "folders",
            table([
                ("local", path(lib.join("local"))),
                ("log", path(layout.log().join(node))),
                ("run", path(layout.run())),
                ("lib", path(lib)),
            ]),
        ),
        ("grpc", listen(doors.ports[0])),
        ("yarn", listen(doors.ports[1])),
        ("http", listen(doors.ports[2])),
        (
            "resourcemanager",
            table([
                ("address", address(doors.rm_port)),
                ("token_file", path(layout.token_of(node))),
            ]),
        ),
        (
            "resources",
            table([
                ("memory_mib", integer(size.memory_mib)),
                ("vcores", integer(u64::from(size.vcores))),
            ]),
        ),
        (
            "sandbox",
            table([
                ("profile", Value::String(profile.to_owned())),
                ("shared_dirs", Value::Array(vec![path(layout.shared())])),
            ]),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key that is written is one that the daemons document.
    #[test]
    fn keys_are_documented() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(&folder.path().join("it's \"here\""))).unwrap();
        let nodes = ["node1".to_owned(), "node2".to_owned()];
        layout.create(&nodes).unwrap();
        write(&layout, &nodes).unwrap();
        let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
        for (name, documented) in [
            ("resourcemanager", "resourcemanager"),
            ("node2", "nodeagent"),
        ] {
            let written: Table = std::fs::read_to_string(layout.conf_of(name))
                .unwrap()
                .parse()
                .unwrap();
            let known: Table = std::fs::read_to_string(conf.join(format!("{documented}.toml")))
                .unwrap()
                .parse()
                .unwrap();
            for (key, value) in &written {
                let there = known
                    .get(key)
                    .unwrap_or_else(|| unreachable!("{documented}: {key}"));
                for inner in value.as_table().into_iter().flat_map(Table::keys) {
                    assert!(there.get(inner).is_some(), "{documented}: {key}.{inner}");
                }
            }
        }
    }

    /// Linux gives the whole of 127/8 to the loopback device.
    #[test]
    fn every_node_has_an_address_of_its_own() {
        let hosts = node_hosts(3);
        assert_eq!(hosts[0], Ipv4Addr::LOCALHOST);
        assert_eq!(hosts[2], Ipv4Addr::new(127, 0, 0, 3));
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        let nodes = ["node1".to_owned(), "node2".to_owned()];
        layout.create(&nodes).unwrap();
        write(&layout, &nodes).unwrap();
        assert_eq!(host_of(&layout, "node2"), "127.0.0.2");
        assert_eq!(host_of(&layout, "node9"), HOST);
    }

    #[test]
    fn nodes_differ_in_ports_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        let size = Size {
            memory_mib: 1000,
            vcores: 8,
        };
        let doors = |last, ports| Doors {
            host: Ipv4Addr::new(127, 0, 0, last),
            ports,
            rm_port: 9,
        };
        let (a, b) = (
            nodeagent(&layout, "node1", doors(1, &[1, 2, 3]), size),
            nodeagent(&layout, "node2", doors(2, &[4, 5, 6]), size),
        );
        assert_ne!(a["grpc"], b["grpc"]);
        assert_eq!(b["host"].as_str(), Some("127.0.0.2"));
        assert_eq!(b["yarn"]["listen"].as_str(), Some("127.0.0.2:5"));
        assert_ne!(a["folders"]["lib"], b["folders"]["lib"]);
        assert_eq!(
            a["resourcemanager"]["address"].as_str(),
            Some("127.0.0.1:9")
        );
    }
}
