//! From a launch context to a container that can be launched: checked, its folders made, its files
//! fetched, its groups leased.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bobbin_na_core::{ContainerWork, Exit, INVALID, Origin};
use bobbin_proto::v1;
use bobbin_sandbox::{
    Bind, CgroupLease, CgroupLimits, ContainerSpec, CpuMode, Limits, OutputFiles, Profile,
};
use bobbin_service::Account;
use bobbin_types::{
    ARGUMENT_BYTES_MAX, ARGUMENTS_BYTES_MAX, ARGUMENTS_MAX, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX,
    LOCAL_RESOURCES_MAX, OBJECT_STORE_SECRET, Resource, check_environment_name,
};
use bytes::Bytes;

use tokio_util::sync::CancellationToken;

use crate::account::owner;
use crate::folders::{ContainerFolders, ContainerPaths};
use crate::localizer::{Asker, Hold};
use crate::node::Node;
use crate::yarn::contract::{self, CREDENTIALS, is_yarn};
use crate::yarn::files_token;

/// Secrets of a container.
const SECRETS_MAX: usize = 100;
/// Bytes of one secret.
const SECRET_BYTES_MAX: usize = 64 << 10;
/// Names that the work folder has already.
const TAKEN: [&str; 1] = ["tmp"];
/// Names the run folder where it is not at [`RUN_TARGET`].
const RUN_DIR_VARIABLE: &str = "BOBBIN_RUN_DIR";
/// Where a container sees its run folder, and the folder in it that YARN's links lead to.
const RUN_TARGET: &str = "/run/bobbin";
const RESOURCES: &str = "resources";
/// The folder list beside the start file, for an agent that adopts the container.
pub(crate) const HOLDS_FILE: &str = "resources.json";

/// An order to start a container: the launch context and the token that proves the grant.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) launch: v1::LaunchContext,
    /// Who starts it: what it may be told depends on that.
    pub(crate) origin: Origin,
    pub(crate) container_token: Arc<str>,
}

/// Everything a launch needs, and what must be given back when the container is gone.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) spec: ContainerSpec,
    pub(crate) holds: Vec<Hold>,
}

fn one_component(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c.is_control())
}

/// For words about a text that somebody else chose.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Says in words why a launch context cannot be used, before anything is done for it.
pub(crate) fn problem(launch: &v1::LaunchContext) -> Option<String> {
    check_arguments(launch)
        .or_else(|| check_environment(launch))
        .or_else(|| check_resources(launch))
        .or_else(|| check_secrets(launch))
        .or_else(|| is_yarn(launch).then(|| contract::problem(launch)).flatten())
}

fn check_arguments(launch: &v1::LaunchContext) -> Option<String> {
    let argv = &launch.argv;
    let bytes: usize = argv.iter().map(String::len).sum();
    let is_empty = if is_yarn(launch) {
        argv.iter().all(|word| word.trim().is_empty())
    } else {
        argv.first().is_none_or(String::is_empty)
    };
    if is_empty {
        Some("the program's name is empty".to_owned())
    } else if argv.len() > ARGUMENTS_MAX {
        Some(format!(
            "the program has {} arguments, at most {ARGUMENTS_MAX} are allowed",
            argv.len()
        ))
    } else if bytes > ARGUMENTS_BYTES_MAX {
        Some(format!(
            "the program's arguments have {bytes} bytes, at most {ARGUMENTS_BYTES_MAX} are allowed"
        ))
    } else if argv.iter().any(|a| a.len() > ARGUMENT_BYTES_MAX) {
        Some(format!(
            "an argument has more than {ARGUMENT_BYTES_MAX} bytes"
        ))
    } else if argv.iter().any(|a| a.contains('\0')) {
        Some("an argument has NUL in it".to_owned())
    } else {
        None
    }
}

fn check_environment(launch: &v1::LaunchContext) -> Option<String> {
    let environment = &launch.environment;
    let bytes: usize = environment
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    if environment.len() > ENVIRONMENT_MAX {
        return Some(format!(
            "the environment has {} variables, at most {ENVIRONMENT_MAX} are allowed",
            environment.len()
        ));
    }
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Some(format!(
            "the environment has {bytes} bytes, at most {ENVIRONMENT_BYTES_MAX} are allowed"
        ));
    }
    for (name, value) in environment {
        if let Err(e) = check_environment_name(name) {
            return Some(e.to_string());
        }
        if value.contains('\0') {
            return Some(format!(
                "environment variable '{}' has NUL in its value",
                shown(name)
            ));
        }
    }
    None
}

/// Says in words why files cannot be added to a container of YARN's.
pub(crate) fn resource_problem(resources: &[v1::LocalResource]) -> Option<String> {
    check_all(resources, &contract::TAKEN)
}

fn check_resources(launch: &v1::LaunchContext) -> Option<String> {
    let taken: &[&str] = if is_yarn(launch) {
        &contract::TAKEN
    } else {
        &TAKEN
    };
    check_all(&launch.local_resources, taken)
}

fn check_all(resources: &[v1::LocalResource], taken: &[&str]) -> Option<String> {
    if resources.len() > LOCAL_RESOURCES_MAX {
        return Some(format!(
            "{} local resources, at most {LOCAL_RESOURCES_MAX} are allowed",
            resources.len()
        ));
    }
    let mut names = std::collections::BTreeSet::new();
    for resource in resources {
        let name = &resource.name;
        if !one_component(name) || taken.contains(&name.as_str()) {
            return Some(format!(
                "'{}' cannot be the name of a local resource",
                shown(name)
            ));
        }
        if !names.insert(name) {
            return Some(format!("two local resources are called '{}'", shown(name)));
        }
        if !matches!(resource.sha256.len(), 0 | 32) {
            return Some(format!(
                "the SHA-256 of '{}' does not have 32 bytes",
                shown(name)
            ));
        }
        let kind = v1::ResourceType::try_from(resource.r#type);
        let visibility = v1::Visibility::try_from(resource.visibility);
        if kind.is_err() || visibility.is_err() {
            return Some(format!(
                "'{}' has an unknown type or visibility",
                shown(name)
            ));
        }
    }
    None
}

fn check_secrets(launch: &v1::LaunchContext) -> Option<String> {
    if launch.secrets.len() > SECRETS_MAX {
        return Some(format!(
            "{} secrets, at most {SECRETS_MAX} are allowed",
            launch.secrets.len()
        ));
    }
    for (name, value) in &launch.secrets {
        if !one_component(name) {
            return Some(format!("'{}' cannot be the name of a secret", shown(name)));
        }
        let is_credentials = is_yarn(launch) && name == CREDENTIALS;
        if value.len() > SECRET_BYTES_MAX && !is_credentials {
            return Some(format!(
                "secret '{}' has more than {SECRET_BYTES_MAX} bytes",
                shown(name)
            ));
        }
    }
    None
}

fn invalid(diagnostics: String) -> Exit {
    Exit {
        exit_status: INVALID,
        diagnostics,
    }
}

/// Makes a container ready; what it has made stays for the clean-up when it fails. Cancelling ends the
/// wait for files only: it must not be dropped, or the clean-up would race with its blocking parts.
///
/// # Errors
/// The exit that the container gets.
pub(crate) async fn prepare(
    node: &Arc<Node>,
    work: ContainerWork,
    order: Order,
    cancel: &CancellationToken,
) -> Result<Prepared, Exit> {
    let origin = order.origin;
    let services = if is_yarn(&order.launch) {
        node.localizer.trees.services().await
    } else {
        Vec::new()
    };
    let first = {
        let (node, work, order) = (node.clone(), work.clone(), order.clone());
        move || {
            let made = make_folders(&node, &work, &order.launch, origin, services)?;
            if !order.launch.local_resources.is_empty() {
                return Ok(First::Made(made));
            }
            // Nothing is to be fetched: no other thread need be woken for the rest.
            let prepared = finish(&node, &work, &order, made, Vec::new())?;
            Ok(First::Prepared(Box::new(prepared)))
        }
    };
    let (account, paths, folders) = match blocking(first).await? {
        First::Prepared(prepared) => return Ok(*prepared),
        First::Made(made) => made,
    };
    let resources = &order.launch.local_resources;
    let asker = Asker {
        account: account.clone(),
        application: work.container.application().to_string(),
        container: work.container.to_string(),
        container_token: order.container_token.clone(),
        credentials: (order.launch.secrets.get(CREDENTIALS))
            .map_or_else(Bytes::new, |stream| Bytes::copy_from_slice(stream)),
        stores: (order.launch.secrets.get(OBJECT_STORE_SECRET))
            .map_or_else(Bytes::new, |text| Bytes::copy_from_slice(text)),
    };
    let copies = resources
        .iter()
        .map(|resource| node.localizer.localize(resource, &asker));
    let localizing = futures::future::try_join_all(copies);
    let holds = tokio::select! {
        holds = localizing => {
            holds.map_err(|e| invalid(format!("localization failed: {}", chain(&e))))?
        }
        () = cancel.cancelled() => {
            return Err(invalid("it was ended while its files were fetched".to_owned()));
        }
    };
    let node = node.clone();
    blocking(move || finish(&node, &work, &order, (account, paths, folders), holds)).await
}

/// A container's folders, and whose they are.
type Made = (Arc<Account>, ContainerPaths, ContainerFolders);

/// How far a container is after its folders are made.
enum First {
    Made(Made),
    Prepared(Box<Prepared>),
}

fn finish(
    node: &Node,
    work: &ContainerWork,
    order: &Order,
    made: Made,
    holds: Vec<Hold>,
) -> Result<Prepared, Exit> {
    let (account, paths, folders) = made;
    let run = match profile(node) {
        Profile::Full | Profile::Rootless => Path::new(RUN_TARGET),
        Profile::Plain => paths.run.as_path(),
    };
    let binds = bind_resources(&folders, (&paths, run), &order.launch, &holds, &account)
        .map_err(|e| invalid(format!("cannot place the local resources: {e}")))?;
    let cgroups = lease(node, work)?;
    let spec = spec(node, work, &order.launch, &account, paths, binds, cgroups);
    Ok(Prepared { spec, holds })
}

async fn blocking<T, F>(work: F) -> Result<T, Exit>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Exit> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(invalid(format!("the agent could not work on it: {e}"))))
}

fn make_folders(
    node: &Node,
    work: &ContainerWork,
    launch: &v1::LaunchContext,
    origin: Origin,
    services: Vec<String>,
) -> Result<Made, Exit> {
    let account = node
        .accounts
        .resolve(&work.user, &node.config)
        .map_err(|e| invalid(format!("on node {}: {e}", node.node_id)))?;
    let paths = node.folders.paths(&work.container, &account.name);
    let make = || -> io::Result<ContainerFolders> {
        let folders = node.folders.make_container(&work.container, &account)?;
        let own = owner(&account);
        let secrets = folders.run.make("secrets", 0o700, own)?;
        for (name, value) in &launch.secrets {
            // Of YARN's, the work folder has what the container may hold.
            if !(is_yarn(launch) && name == CREDENTIALS) {
                secrets.write(name, value, 0o400, own)?;
            }
        }
        if is_yarn(launch) {
            node.folders.make_shared(&work.container, &account)?;
            let place = contract::Place {
                container: work.container,
                account: &account,
                paths: &paths,
                node_id: &node.node_id,
                http_address: &node.http_address,
                node: &node.environment,
            };
            let script = contract::launch_script(launch, &place);
            let files = contract::FilesRight {
                token: files_token(node, work.container, &account),
                services,
            };
            let credentials = contract::credentials(launch, origin, &files);
            let work = &folders.work;
            work.write(contract::SCRIPT_FILE, script.as_bytes(), 0o700, own)?;
            work.write(CREDENTIALS, &credentials, 0o600, own)?;
        }
        Ok(folders)
    };
    let folders =
        make().map_err(|e| invalid(format!("cannot make the container's folders: {e}")))?;
    Ok((Arc::new(account), paths, folders))
}

/// Makes a place in the work folder for each copy and says what is bound there. `run`: where the container
/// finds its run folder.
fn bind_resources(
    folders: &ContainerFolders,
    (paths, run): (&ContainerPaths, &Path),
    launch: &v1::LaunchContext,
    holds: &[Hold],
    account: &Account,
) -> io::Result<Vec<Bind>> {
    let own = owner(account);
    let is_yarn = is_yarn(launch);
    // YARN's have links in the work folder, which a program may take away or replace.
    let below_run = if is_yarn && !holds.is_empty() {
        Some(folders.run.make(RESOURCES, 0o755, None)?)
    } else {
        None
    };
    let mut binds = Vec::with_capacity(holds.len());
    for (resource, hold) in launch.local_resources.iter().zip(holds) {
        let points = below_run.as_ref().unwrap_or(&folders.work);
        if hold.entry.is_folder {
            points.make(&resource.name, 0o700, own)?;
        } else {
            points.write(&resource.name, b"", 0o600, own)?;
        }
        let target = if is_yarn {
            let target = Path::new(RUN_TARGET).join(RESOURCES).join(&resource.name);
            let name = OsStr::new(&resource.name);
            let seen = run.join(RESOURCES).join(&resource.name);
            folders.work.symlink(seen.as_os_str(), name)?;
            target
        } else {
            paths.work.join(&resource.name)
        };
        binds.push(Bind {
            source: hold.path(),
            target,
            writable: false,
        });
    }
    if !holds.is_empty() {
        let all: Vec<&PathBuf> = holds.iter().map(|h| &h.entry.folder).collect();
        let json = serde_json::to_vec(&all).map_err(io::Error::other)?;
        folders.private.write(HOLDS_FILE, &json, 0o600, None)?;
    }
    Ok(binds)
}

fn lease(node: &Node, work: &ContainerWork) -> Result<Option<CgroupLease>, Exit> {
    let Some(cgroups) = &node.cgroups else {
        return Ok(None);
    };
    cgroups
        .lease(&work.container.to_string(), &limits(node, &work.resource))
        .map(Some)
        .map_err(|e| Exit {
            exit_status: bobbin_types::ExitStatus::ABORTED,
            diagnostics: format!(
                "node {} cannot limit the container: {}",
                node.node_id,
                chain(&e)
            ),
        })
}

/// What the kernel holds a container of this size to.
pub(crate) fn limits(node: &Node, resource: &Resource) -> CgroupLimits {
    CgroupLimits {
        memory_mib: resource.memory_mib,
        vcores: resource.vcores,
        cpu: cpu_mode(node),
        pids_max: node.config.sandbox.pids_max,
    }
}

fn cpu_mode(node: &Node) -> CpuMode {
    if node.config.sandbox.cpu == "hard-cap" {
        CpuMode::HardCap
    } else {
        CpuMode::Share
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn spec(
    node: &Node,
    work: &ContainerWork,
    launch: &v1::LaunchContext,
    account: &Account,
    paths: ContainerPaths,
    mut binds: Vec<Bind>,
    cgroups: Option<CgroupLease>,
) -> ContainerSpec {
    let profile = profile(node);
    let mut environment = environment(node, work, launch, account, &paths);
    binds.extend(node_binds(node));
    let (mut argv, output_files) = if is_yarn(launch) {
        binds.push(Bind {
            source: paths.shared.clone(),
            target: paths.application.clone(),
            writable: true,
        });
        let script = paths.work.join(contract::SCRIPT_FILE);
        let argv = vec!["/bin/bash".to_owned(), script.display().to_string()];
        (argv, OutputFiles::Prelaunch)
    } else {
        (launch.argv.clone(), OutputFiles::Standard)
    };
    if profile == Profile::Plain {
        in_plain_sight(&mut environment, &mut argv, &paths);
    }
    let gid = match profile {
        Profile::Full => account.gid,
        // The group of the moment: newgrp(1) may have changed it, and there is no other to have.
        Profile::Rootless | Profile::Plain => nix::unistd::getegid().as_raw(),
    };
    let sandbox = &node.config.sandbox;
    ContainerSpec {
        container_id: work.container.to_string(),
        argv,
        environment,
        uid: account.uid,
        gid,
        groups: account.groups.clone(),
        user_name: account.name.clone(),
        host_name: String::new(),
        work_dir: paths.work,
        binds,
        log_dir: paths.log,
        output_files,
        log_bytes_max: node.config.logs.max_bytes,
        private_dir: paths.private,
        run_dir: paths.run,
        memory_mib: work.resource.memory_mib,
        vcores: work.resource.vcores,
        cpu: cpu_mode(node),
        pids_max: sandbox.pids_max,
        limits: Limits {
            open_files: sandbox.open_files_max,
            tmp_mib: sandbox.tmp_mib,
            ..Limits::default()
        },
        kill_grace_ms: sandbox.kill_grace_ms,
        profile,
        cgroups,
    }
}

fn profile(node: &Node) -> Profile {
    if !node.config.is_rootless() {
        Profile::Full
    } else if node.launcher.no_namespaces().is_some() {
        Profile::Plain
    } else {
        Profile::Rootless
    }
}

/// Without namespaces nothing is at `/run/bobbin`: words that lead there lead to the run folder itself, and
/// temporary files go to the work folder, which is emptied.
fn in_plain_sight(
    environment: &mut Vec<(String, String)>,
    argv: &mut [String],
    paths: &ContainerPaths,
) {
    let (target, run) = (
        format!("{RUN_TARGET}/"),
        format!("{}/", paths.run.display()),
    );
    let shared_tmp = |(name, value): &(String, String)| name == "TMPDIR" && value == "/tmp";
    for variable in environment.iter_mut() {
        if shared_tmp(variable) {
            variable.1 = paths.work.join("tmp").display().to_string();
        }
        variable.1 = variable.1.replace(&target, &run);
    }
    for word in argv {
        if word.starts_with(&target) {
            *word = word.replacen(&target, &run, 1);
        }
    }
    let run = paths.run.display().to_string();
    environment.push((RUN_DIR_VARIABLE.to_owned(), run));
}

/// What every container of this node sees beside its own.
fn node_binds(node: &Node) -> impl Iterator<Item = Bind> + '_ {
    let bin = Bind {
        source: node.bin.clone(),
        target: "/run/bobbin/bin".into(),
        writable: false,
    };
    let shared = node.shared_dirs.iter().map(|dir| Bind {
        source: dir.clone(),
        target: dir.clone(),
        writable: true,
    });
    [bin]
        .into_iter()
        .chain(shared)
        .chain(node.readable.iter().cloned())
}

/// The agent's variables, then the launch context's own, which win; YARN's are in its script.
fn environment(
    node: &Node,
    work: &ContainerWork,
    launch: &v1::LaunchContext,
    account: &Account,
    paths: &ContainerPaths,
) -> Vec<(String, String)> {
    let id = work.container;
    let mut all: BTreeMap<String, String> = [
        (
            "PATH",
            "/run/bobbin/bin:/usr/local/bin:/usr/bin:/bin".to_owned(),
        ),
        ("HOME", paths.work.display().to_string()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("BOBBIN_APPLICATION_ID", id.application().to_string()),
        ("BOBBIN_ATTEMPT", id.attempt.attempt.to_string()),
        ("BOBBIN_CONTAINER_ID", id.to_string()),
        ("BOBBIN_NODE_ID", node.node_id.to_string()),
        ("BOBBIN_NODE_HOST", node.node_id.host().to_owned()),
        (
            "BOBBIN_RM_ADDRESS",
            node.config.resourcemanager.address.clone(),
        ),
        ("BOBBIN_LOG_DIR", paths.log.display().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(shared) = node.shared_dirs.first() {
        all.insert("BOBBIN_SHARED_DIR".to_owned(), shared.display().to_string());
    }
    if is_yarn(launch) {
        // Not in memory: what is sorted or shuffled there would count as the container's.
        let tmp = paths.work.join("tmp").display().to_string();
        all.insert("TMPDIR".to_owned(), tmp);
    } else {
        all.extend(
            launch
                .environment
                .iter()
                .map(|(n, v)| (n.clone(), v.clone())),
        );
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> v1::LaunchContext {
        v1::LaunchContext {
            argv: vec!["true".into()],
            ..v1::LaunchContext::default()
        }
    }

    fn resource(name: &str) -> v1::LocalResource {
        v1::LocalResource {
            name: name.into(),
            ..v1::LocalResource::default()
        }
    }

    #[test]
    fn bad_contexts_are_refused_in_words() {
        assert_eq!(problem(&launch()), None);
        let with = |change: &dyn Fn(&mut v1::LaunchContext)| {
            let mut bad = launch();
            change(&mut bad);
            problem(&bad).unwrap_or_default()
        };
        for (text, words) in [
            (with(&|l| l.argv.clear()), "the program's name is empty"),
            (
                with(&|l| l.argv = vec!["x".into(); 10_001]),
                "10001 arguments",
            ),
            (
                with(&|l| l.argv.push("x".repeat(200_000))),
                "more than 131072 bytes",
            ),
            (
                with(&|l| l.argv = vec!["y".repeat(100_000); 11]),
                "1100000 bytes",
            ),
            (with(&|l| l.argv.push("a\0b".into())), "NUL"),
            (
                with(&|l| drop(l.environment.insert("A=B".into(), "".into()))),
                "'='",
            ),
            (
                with(&|l| drop(l.environment.insert("A".into(), "\0".into()))),
                "NUL in its value",
            ),
            (
                with(&|l| l.local_resources.push(resource("../x"))),
                "'../x' cannot be the name",
            ),
            (
                with(&|l| l.local_resources.push(resource("tmp"))),
                "'tmp' cannot be the name",
            ),
            (
                with(&|l| l.local_resources = vec![resource("a"), resource("a")]),
                "two local",
            ),
            (
                with(&|l| drop(l.secrets.insert("a/b".into(), vec![]))),
                "name of a secret",
            ),
            (
                with(&|l| drop(l.secrets.insert("a".into(), vec![0; 70_000]))),
                "65536 bytes",
            ),
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
