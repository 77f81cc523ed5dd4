//! The doors on loopback, from inside a container: its network is the host's, its user is a person's,
//! and it is neither the host nor the person.

use std::fmt::Write as _;

use bobbin_service::{Claims, SecretKey, TokenKind, wall_now};
use bobbin_tests::{Cluster, RunExt, skip_without_root};
use bobbin_types::WallMillis;
use serde_json::Value;

/// Reads its orders, one request a line, from a pipe; prints each one's name, status and words.
const ASKER: &str = r#"
import http.client, os, socket, struct, sys
def ipc(address):
    # A connection without SASL, and who the client says it is: as `hadoop.security.authentication=simple`.
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data
    header = bytes([0x08, 2, 0x10, 0, 0x18, 5]) + field(4, b'0123456789abcdef') + bytes([0x28, 1])
    context = field(2, field(1, b'daemon')) + field(3, b'org.apache.hadoop.yarn.api.ApplicationClientProtocolPB')
    body = bytes([len(header)]) + header + bytes([len(context)]) + context
    host, port = address.rsplit(':', 1)
    stream = socket.create_connection((host, int(port)), 20)
    stream.sendall(b'hrpc\x09\x00\x00' + struct.pack('>I', len(body)) + body)
    said = stream.recv(65536)
    return 'refused' if b'AccessControlException' in said else 'allowed', said.decode('utf8', 'replace')
def ask(method, address, path, token):
    if method == 'IPC':
        return ipc(address)
    connection = http.client.HTTPConnection(address, timeout=20)
    headers = {} if token == '-' else {'Authorization': 'Bearer ' + token}
    connection.request(method, path, '', headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode('utf8', 'replace')
print(os.environ['BOBBIN_CONTAINER_ID'], flush=True)
for line in open(os.environ['BOBBIN_SHARED_DIR'] + '/orders'):
    name, method, address, path, token = line.split()
    status, words = ask(method, address, path, token)
    print(name, status, ' '.join(words.split()), flush=True)
"#;

/// What one request was answered with.
#[derive(Debug)]
struct Answer {
    name: String,
    status: String,
    words: String,
}

/// A container of the account `daemon` that asks what it is told to.
struct Asker {
    cluster: Cluster,
    application: String,
    container: String,
}

impl Asker {
    fn start() -> Asker {
        let cluster = Cluster::up(1);
        let folder = cluster.dir().join("shared");
        std::fs::write(folder.join("asker.py"), ASKER).unwrap();
        nix::unistd::mkfifo(&folder.join("orders"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let daemon = bobbin_service::account_of_name("daemon").unwrap();
        std::os::unix::fs::chown(folder.join("orders"), Some(daemon.uid), None).unwrap();
        let submit = "exec setpriv --reuid daemon --regid daemon --clear-groups bobbin submit \
            --detach --deploy-mode cluster --max-attempts 1 -- \
            sh -c 'exec python3 \"$BOBBIN_SHARED_DIR/asker.py\"'";
        let application = cluster.sh(submit).run().expect_code(0);
        let application = application.stdout.trim().to_owned();
        cluster.wait_log(&application, "container_");
        let log = cluster.run(&["app", "logs", &application, "--driver", "--file", "stdout"]);
        Asker {
            application,
            container: log.stdout.trim().to_owned(),
            cluster,
        }
    }

    fn daemon(&self, name: &str) -> Value {
        let path = self.cluster.dir().join("run").join(name);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn node(&self) -> String {
        let node = self.daemon("node1.json");
        node["node_id"].as_str().unwrap().to_owned()
    }

    fn cluster_key(&self) -> SecretKey {
        let path = self.cluster.dir().join("lib/resourcemanager/secret");
        SecretKey::from_bytes(&std::fs::read(path).unwrap()).unwrap()
    }

    /// A token of this container's node, as its agent signs it.
    fn token(&self, kind: TokenKind, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = Claims::new(kind, WallMillis(wall_now().0 + 600_000));
        claims.user = "daemon".to_owned();
        claims.application.clone_from(&self.application);
        claims.container.clone_from(&self.container);
        claims.node = self.node();
        change(&mut claims);
        self.cluster_key().for_node(&self.node()).mint(&claims)
    }

    /// Every order's answer, in their order; the container then ends.
    fn ask(&self, orders: &[(&str, &str, &str, &str, &str)]) -> Vec<Answer> {
        let mut lines = String::new();
        for (name, method, address, path, token) in orders {
            writeln!(lines, "{name} {method} {address} {path} {token}").unwrap();
        }
        std::fs::write(self.cluster.dir().join("shared/orders"), lines).unwrap();
        let _ = self
            .cluster
            .run(&["app", "wait", &self.application])
            .expect_code(0);
        let log = self
            .cluster
            .run(&["app", "logs", &self.application, "--driver"]);
        let answers: Vec<Answer> = (log.stdout.lines().skip(1))
            .filter_map(|line| {
                let mut parts = line.splitn(3, ' ').map(str::to_owned);
                Some(Answer {
                    name: parts.next()?,
                    status: parts.next()?,
                    words: parts.next().unwrap_or_default(),
                })
            })
            .collect();
        assert_eq!(answers.len(), orders.len(), "{log:?}");
        answers
    }
}

#[test]
fn a_containers_socket_is_not_its_users() {
    if skip_without_root("a_containers_socket_is_not_its_users") {
        return;
    }
    let asker = Asker::start();
    let (rm, node) = (
        asker.daemon("resourcemanager.json"),
        asker.daemon("node1.json"),
    );
    let (web, pages) = (rm["http"].as_str().unwrap(), node["http"].as_str().unwrap());
    let (client, admin) = (&rm["yarn"]["client"], &rm["yarn"]["admin"]);
    let id = asker.application.clone();
    let state = format!("/ws/v1/cluster/apps/{id}/state");
    let logs = format!("/node/containerlogs/{}/daemon/stdout", asker.container);
    let answers = asker.ask(&[
        ("info", "GET", web, "/ws/v1/cluster/info", "-"),
        ("applications", "GET", web, "/ws/v1/cluster/apps", "-"),
        (
            "submit",
            "POST",
            web,
            "/ws/v1/cluster/apps/new-application",
            "-",
        ),
        ("kill", "PUT", web, &state, "-"),
        ("page", "GET", web, "/cluster", "-"),
        ("metrics", "GET", web, "/metrics", "-"),
        ("read", "GET", web, "/webhdfs/v1/?op=LISTSTATUS", "-"),
        ("write", "PUT", web, "/webhdfs/v1/tmp/x?op=MKDIRS", "-"),
        (
            "token",
            "GET",
            web,
            "/webhdfs/v1/?op=GETDELEGATIONTOKEN",
            "-",
        ),
        ("own-logs", "GET", pages, &logs, "-"),
        ("node", "GET", pages, "/ws/v1/node/info", "-"),
        ("client-door", "IPC", client.as_str().unwrap(), "-", "-"),
        ("admin-door", "IPC", admin.as_str().unwrap(), "-", "-"),
    ]);
    for answer in &answers {
        let refused = ["401", "refused"].contains(&answer.status.as_str());
        assert!(refused, "{answer:?}");
        assert!(answer.words.contains("inside a container"), "{answer:?}");
    }
    // The same user, the same requests, from the host while one of his containers runs.
    let running = asker.cluster.submit_detached(&[], "sleep 1000");
    let own = format!(
        "for url in http://{web}/ws/v1/cluster/info 'http://{web}/webhdfs/v1/?op=LISTSTATUS' \
         http://{pages}/ws/v1/node/info; do setpriv --reuid nobody --regid nogroup --clear-groups \
         curl -sS -o /dev/null -w '%{{http_code}} ' \"$url\"; done"
    );
    let host = asker.cluster.sh(&own).run().expect_code(0);
    assert_eq!(host.stdout, "200 200 200 ");
    let _ = asker.cluster.run(&["app", "kill", &running]).expect_code(0);
}

#[test]
fn what_tokens_in_a_container_are_good_for() {
    if skip_without_root("what_tokens_in_a_container_are_good_for") {
        return;
    }
    let asker = Asker::start();
    let (rm, node) = (
        asker.daemon("resourcemanager.json"),
        asker.daemon("node1.json"),
    );
    let (web, pages) = (rm["http"].as_str().unwrap(), node["http"].as_str().unwrap());
    // Another user's application, its log and a file of its own.
    let victim = asker.cluster.submit_detached(&[], "echo mine; sleep 1000");
    asker.cluster.wait_log(&victim, "mine");
    let containers = asker
        .cluster
        .run(&["app", "containers", &victim, "-o", "json"])
        .expect_code(0)
        .json();
    let others = containers[0]["id"].as_str().unwrap().to_owned();
    let logs = |container: &str| format!("/ws/v1/node/containerlogs/{container}/stdout");
    let (own_logs, others_logs) = (logs(&asker.container), logs(&others));
    let files = asker.token(TokenKind::Files, |_| ());
    let own = asker.token(TokenKind::Container, |_| ());
    let expired = asker.token(TokenKind::Container, |c| c.expires_ms = 1);
    let expired_files = asker.token(TokenKind::Files, |c| c.expires_ms = 1);
    let ended = asker.token(TokenKind::Files, |c| c.container.push('9'));
    let made_up = SecretKey::from_bytes(&[1; 32]).unwrap();
    let mut claims = Claims::new(TokenKind::Files, WallMillis(u64::MAX));
    claims.node = asker.node();
    claims.container.clone_from(&others);
    let foreign = made_up.for_node(&asker.node()).mint(&claims);
    claims.kind = TokenKind::User;
    claims.node.clear();
    claims.user = "nobody".to_owned();
    let foreign_user = made_up.mint(&claims);
    let state = format!("/ws/v1/cluster/apps/{}/state", asker.application);
    let mkdirs = "/webhdfs/v1/tmp/of-daemon?op=MKDIRS&permission=700";
    let home = "/webhdfs/v1/?op=GETHOMEDIRECTORY";
    let new = "/ws/v1/cluster/apps/new-application";
    let get_token = "/webhdfs/v1/?op=GETDELEGATIONTOKEN";
    let secret = format!("http://{web}/webhdfs/v1/user/nobody/secret?op=MKDIRS&permission=700");
    let make = format!("exec curl -sS --fail -X PUT '{secret}'");
    let _ = asker.cluster.sh(&make).run().expect_code(0);
    let delete = "/webhdfs/v1/user/nobody/secret?op=DELETE&recursive=true";
    let look = "/webhdfs/v1/user/nobody/secret?op=LISTSTATUS";
    let as_nobody = "/webhdfs/v1/?op=GETHOMEDIRECTORY&doas=nobody&user.name=nobody";
    let orders: &[(&str, &str, &str, &str, &str, &str)] = &[
        // name, answer, method, address, path, token
        ("home", "200", "GET", web, home, &files),
        ("write", "200", "PUT", web, mkdirs, &files),
        ("as-nobody", "200", "GET", web, as_nobody, &files),
        ("delete-others", "403", "DELETE", web, delete, &files),
        ("look-at-others", "403", "GET", web, look, &files),
        ("token", "403", "GET", web, get_token, &files),
        ("submit", "403", "POST", web, new, &files),
        ("kill", "403", "PUT", web, &state, &files),
        ("list", "403", "GET", web, "/ws/v1/cluster/nodes", &files),
        ("files-at-node", "401", "GET", pages, &own_logs, &files),
        ("own-log", "200", "GET", pages, &own_logs, &own),
        ("others-log", "403", "GET", pages, &others_logs, &own),
        ("write-as-starter", "403", "PUT", web, mkdirs, &own),
        ("expired-log", "401", "GET", pages, &own_logs, &expired),
        ("expired-read", "401", "GET", web, home, &expired),
        ("expired-files", "401", "GET", web, home, &expired_files),
        ("ended", "403", "GET", web, home, &ended),
        ("foreign", "401", "GET", web, home, &foreign),
        ("foreign-user", "401", "GET", web, home, &foreign_user),
        (
            "foreign-log",
            "401",
            "GET",
            pages,
            &others_logs,
            &foreign_user,
        ),
        ("nonsense", "401", "GET", web, home, "bobbin1.e30.AAAA"),
    ];
    let asked: Vec<_> = orders
        .iter()
        .map(|(name, _, method, address, path, token)| (*name, *method, *address, *path, *token))
        .collect();
    let answers = asker.ask(&asked);
    let mut told = String::new();
    for (answer, order) in answers.iter().zip(orders) {
        assert_eq!(answer.name, order.0);
        if answer.status != order.1 {
            writeln!(told, "expected {}: {answer:?}", order.1).unwrap();
        }
        assert!(!answer.words.contains("mine"), "{answer:?}");
    }
    assert!(told.is_empty(), "{told}");
    let words = |name: &str| &answers.iter().find(|a| a.name == name).unwrap().words;
    assert!(words("home").contains("/user/daemon"), "{}", words("home"));
    assert!(words("as-nobody").contains("/user/daemon"), "{answers:?}");
    assert!(words("expired-log").contains("expired"), "{answers:?}");
    let _ = asker.cluster.run(&["app", "kill", &victim]).expect_code(0);
}
