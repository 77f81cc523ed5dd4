//! An attacker's driver: what it tries from inside a container, beside another user's application.

use bobbin_tests::{Cluster, RunExt, skip_without_root};

/// Prints one line for each probe: its name, and `refused` or `allowed`.
const PROBES: &str = r#"
import ctypes, os, pty, resource, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
foreign, abstract, rm, agent = sys.argv[1:5]
buffer = ctypes.create_string_buffer(4096)
def probe(name, action):
    try:
        action()
        print(name, 'allowed', flush=True)
    except OSError as e:
        print(name, 'refused', flush=True)
    except ValueError:
        print(name, 'refused', flush=True)
def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), 'refused')
def reads(path):
    return lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)
def writes(path):
    return lambda: os.close(os.open(path, os.O_WRONLY))
def answered(address):
    def dial():
        host, port = address.rsplit(':', 1)
        stream = socket.create_connection((host, int(port)), 5)
        os.environ['BOBBIN_RM_ADDRESS'] = address
        done = subprocess.run(['bobbin', 'app', 'list'], capture_output=True, timeout=20)
        if done.returncode != 0:
            raise OSError('refused')
    return dial
def abstract_socket():
    socket.socket(socket.AF_UNIX).connect('\0' + abstract)
def inject():
    import fcntl, termios
    fcntl.ioctl(pty.openpty()[1], termios.TIOCSTI, b'x')
def as_root():
    if subprocess.run(['su', '-c', 'true', 'root'], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        raise OSError('refused')
def others():
    mine = {int(p) for p in os.listdir('/proc') if p.isdigit()}
    if max(mine) > 100:
        return
    raise OSError('only the own ones')
def raise_limit(which):
    def change():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (hard + 1, hard + 1))
    return change
probe('foreign-work-folder', reads(foreign))
probe('foreign-log', reads(os.environ['BOBBIN_LOG_DIR'].rsplit('/', 2)[0] + '/' + os.environ['OTHER']))
probe('rm-secret', reads(os.environ['CLUSTER'] + '/lib/resourcemanager/secret'))
probe('node-key', reads(os.environ['CLUSTER'] + '/lib/node1/node_key'))
probe('private-folder', reads(os.environ['CLUSTER'] + '/lib/node1/local/nmPrivate'))
probe('shadow', reads('/etc/shadow'))
probe('processes', others)
probe('memory-of-pid1', writes('/proc/1/mem'))
probe('environment-of-pid1', reads('/proc/1/environ'))
probe('launcher', reads('/proc/1/exe'))
probe('program-folder', writes('/run/bobbin/bin/bobbin'))
probe('core-pattern', writes('/proc/sys/kernel/core_pattern'))
probe('host-memory', reads('/dev/mem'))
probe('device', lambda: os.mknod('/tmp/device', 0o20666, os.makedev(1, 1)))
probe('cgroup', writes('/sys/fs/cgroup/cgroup.procs'))
probe('setuid-program', as_root)
probe('become-root', lambda: os.setuid(0))
probe('mount', lambda: call(165, b'x', b'/tmp', b'tmpfs', 0, 0))
probe('mount-anew', lambda: call(430, b'tmpfs', 0))
probe('user-namespace', lambda: call(272, 0x10000000))
probe('user-namespace-by-clone', lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
probe('ptrace', lambda: call(101, 0, 0, 0, 0))
probe('bpf', lambda: call(321, 0, buffer, 64))
probe('io-uring', lambda: call(425, 8, buffer))
probe('keyring', lambda: call(248, b'user', b'x', b'y', 1, -3))
probe('clock', lambda: call(227, 0, buffer))
probe('real-time', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
probe('nice', lambda: os.nice(-5))
probe('open-files', raise_limit(resource.RLIMIT_NOFILE))
probe('core-file', raise_limit(resource.RLIMIT_CORE))
probe('raw-socket', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
probe('packet-socket', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
probe('hypervisor-socket', lambda: socket.socket(socket.AF_VSOCK))
probe('abstract-socket', abstract_socket)
probe('terminal', inject)
probe('rm-without-token', answered(rm))
probe('agent-without-token', answered(agent))
# What must work: a probe that refuses everything proves nothing.
probe('own-work-folder', lambda: open('own', 'w').write('x'))
probe('own-socket', lambda: socket.socket(socket.AF_UNIX).bind('\0own'))
# Left behind for the agent, which is root: its log reader, its clean-up.
logs = os.environ['BOBBIN_LOG_DIR']
os.symlink(os.environ['CLUSTER'] + '/lib/resourcemanager/secret', logs + '/link')
os.symlink('/etc', 'etc')
os.mkfifo(logs + '/fifo')
os.truncate(os.open(logs + '/endless', os.O_CREAT | os.O_WRONLY), 8 << 40)
open('setuid', 'w').close()
os.chmod('setuid', 0o6755)
for _ in range(200):
    os.mkdir('d' * 20)
    os.chdir('d' * 20)
# A daemon that wants to outlive the container.
if os.fork() == 0:
    os.setsid()
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork() == 0:
        while True:
            signal.pause()
    os._exit(0)
print('daemon started', flush=True)
"#;

#[test]
fn what_an_attacker_tries_in_a_container() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    if skip_without_root("what_an_attacker_tries_in_a_container") {
        return;
    }
    let cluster = Cluster::up(1);
    let abstract_name = format!("bobbin-test-probes-{}", std::process::id());
    let name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    let _outside = UnixListener::bind_addr(&name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("probes.py");
    std::fs::write(&program, PROBES).unwrap();
    // The victim, root's: it runs as `nobody`.
    let victim = cluster.submit_detached(&[], "pwd; echo mine > secret; sleep 1000");
    cluster.wait_log(&victim, "/usercache/nobody/");
    let logs = ["app", "logs", &victim, "--driver", "--file", "stdout"];
    let victims_folder = cluster.run(&logs).stdout.trim().to_owned();
    let address = |name: &str| {
        let text = std::fs::read_to_string(cluster.dir().join("run").join(name)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["grpc"].as_str().unwrap().to_owned()
    };
    let (rm, agent) = (address("resourcemanager.json"), address("node1.json"));
    let cluster_dir = format!("CLUSTER={}", cluster.dir().display());
    let other = format!("OTHER={victim}");
    let (files, dir) = (program.display().to_string(), victims_folder.as_str());
    let flags = "submit --deploy-mode cluster --max-attempts 1 --env";
    let mut words: Vec<&str> = flags.split(' ').collect();
    words.extend([&cluster_dir, "--env", &other, "--files", &files, "--"]);
    words.extend(["/usr/bin/python3", "probes.py", dir, &abstract_name]);
    words.extend([rm.as_str(), agent.as_str()]);
    // The attacker: `daemon`, an account of every host, through the same socket as anybody.
    let as_daemon = "exec setpriv --reuid daemon --regid daemon --clear-groups bobbin \"$@\"";
    let run = |words: &[&str]| cluster.sh(as_daemon).args(words).run();
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let attack = run(&words);
    assert!(
        attack.stdout.contains("daemon started"),
        "the attack broke off: {attack:?}"
    );
    let verdict = |allowed: &str| -> Vec<String> {
        let lines = attack.stdout.lines();
        lines
            .filter_map(|line| line.strip_suffix(allowed))
            .map(|name| name.trim().to_owned())
            .collect()
    };
    assert_eq!(verdict(" allowed"), ["own-work-folder", "own-socket"]);
    assert_eq!(verdict(" refused").len(), 37, "{}", attack.stdout);
    after_the_attack(&cluster, &victim, &run);
}

/// What the attack left behind is gone or harmless, and the victim lives.
fn after_the_attack(
    cluster: &Cluster,
    victim: &str,
    as_attacker: &dyn Fn(&[&str]) -> bobbin_tests::Run,
) {
    let list = as_attacker(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    assert_eq!(
        list.as_array().map(Vec::len),
        Some(1),
        "only its own: {list}"
    );
    let attacker = list[0]["id"].as_str().unwrap().to_owned();
    for file in ["link", "fifo"] {
        let run = as_attacker(&["app", "logs", &attacker, "--driver", "--file", file]);
        assert_ne!(run.code, 0, "{file}: {run:?}");
        assert!(run.stdout.is_empty(), "{file}: {run:?}");
    }
    for verb in ["status", "kill", "logs", "containers", "attempts"] {
        let run = as_attacker(&["app", verb, victim]);
        assert_eq!(run.code, 5, "app {verb}: {run:?}");
    }
    // The daemon, the setuid file and the deep folders have gone with the container.
    bobbin_tests::wait_for("the attacker's folders to be gone", 30, || {
        let left = cluster
            .dir()
            .join("lib/node1/local/usercache/daemon/appcache");
        let left = left.join(&attacker);
        let alive = processes_of(&attacker);
        if left.exists() || !alive.is_empty() {
            return Err(format!("{} {alive:?}", left.display()));
        }
        Ok(())
    });
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert_eq!(cluster.status(victim)["state"], "RUNNING");
    let _ = cluster.run(&["app", "kill", victim]).expect_code(0);
}

/// Processes with this application's id in their environment.
fn processes_of(application: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|entry| entry.path())
        .filter(|path| {
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(application)
        })
        .map(|path| path.display().to_string())
        .collect()
}
