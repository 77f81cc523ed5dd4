//! How a launch context with YARN's contract becomes a process: environment, script, credentials,
//! names in the work folder.
//!
//! It is the same for a master's container, which the resource manager starts, and for those that
//! masters start. What is different is whose credentials it gets: see [`credentials`].
//!
//! ```text
//! <local>/usercache/<user>/appcache/<application>/             LOCAL_DIRS, shared by the application
//! <local>/usercache/<user>/appcache/<application>/<container>/ work folder: launch_container.sh,
//!                                  container_tokens, tmp/, a link for each local resource
//! <log>/<application>/<container>/  prelaunch.out and .err; stdout and stderr are the command's own
//! /run/bobbin/resources/<name>      what the links lead to, read-only
//! ```
//! A container sees the work folders of its siblings empty: the credentials of its application's
//! master lie in one of them.
//!
//! Source: `ContainerLaunch`, `ApplicationConstants.Environment`.

mod expansion;
mod node_environment;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bobbin_hadoop::credentials::{Credentials, Version};
use bobbin_na_core::Origin;
use bobbin_proto::v1;
use bobbin_service::{Account, claimed_node, from_hadoop_form, to_hadoop_form};
use bobbin_types::{ARGUMENT_BYTES_MAX, ContainerId, NodeId};
use bytes::Bytes;

use crate::folders::ContainerPaths;
use crate::launch::shown;

pub(crate) use node_environment::NodeEnvironment;
use script::Script;

/// The file of the launch script in the work folder.
pub(crate) const SCRIPT_FILE: &str = "launch_container.sh";
/// The file of the credentials in the work folder, and the secret that they come as.
pub(crate) const CREDENTIALS: &str = "container_tokens";
/// Names that the work folder has already.
pub(crate) const TAKEN: [&str; 3] = ["tmp", SCRIPT_FILE, CREDENTIALS];
/// Bytes of the credentials: a few tokens, a keytab or two among the secrets.
const CREDENTIALS_BYTES_MAX: usize = 1 << 20;
/// With this token a container would be its own master.
const AMRM_KIND: &str = "YARN_AM_RM_TOKEN";
/// With this one it would be the person who submitted the application...
const CLIENT_KIND: &str = "RM_DELEGATION_TOKEN";
/// ...which it may be if its environment says so: `true`.
const KEEP_TOKEN: &str = "BOBBIN_KEEP_RM_TOKEN";
/// Arenas of malloc, when nobody says another number: each reserves address space of its own.
/// Source: `hadoop-env.sh`.
const MALLOC_ARENA_MAX: &str = "4";

pub(crate) fn is_yarn(launch: &v1::LaunchContext) -> bool {
    launch.contract() == v1::LaunchContract::Yarn
}

/// The name of an auxiliary service that the context has data for: this node runs none.
pub(crate) fn auxiliary_service(launch: &v1::LaunchContext) -> Option<&str> {
    launch.service_data.keys().map(String::as_str).min()
}

/// YARN's words. Source: `AuxServices.handle`.
pub(crate) fn no_such_service(name: &str) -> String {
    format!(
        "The auxService:{} does not exist: this node runs no auxiliary services; for Spark set \
         spark.shuffle.service.enabled=false and, with dynamic allocation, \
         spark.dynamicAllocation.shuffleTracking.enabled=true",
        shown(name)
    )
}

/// Says in words why a context cannot be used, beyond what holds for every contract.
pub(crate) fn problem(launch: &v1::LaunchContext) -> Option<String> {
    if let Some(name) = auxiliary_service(launch) {
        return Some(no_such_service(name));
    }
    if let Some(name) = launch
        .environment
        .keys()
        .find(|name| !expansion::is_shell_name(name))
    {
        return Some(format!(
            "environment variable '{}' cannot be exported by a shell: a name has letters, digits and \
             _, and no digit first",
            shown(name)
        ));
    }
    let bytes: usize = launch.argv.iter().map(|word| word.len() + 1).sum();
    if bytes > ARGUMENT_BYTES_MAX {
        return Some(format!(
            "the command has {bytes} bytes, at most {ARGUMENT_BYTES_MAX} are possible"
        ));
    }
    let stream = launch.secrets.get(CREDENTIALS)?;
    if stream.len() > CREDENTIALS_BYTES_MAX {
        return Some(format!(
            "the credentials have {} bytes, at most {CREDENTIALS_BYTES_MAX} are allowed",
            stream.len()
        ));
    }
    Credentials::read(Bytes::copy_from_slice(stream))
        .err()
        .map(|e| {
            format!(
                "the tokens of the launch context: {}",
                crate::launch::chain(&e)
            )
        })
}

/// What a container finds in `container_tokens`.
///
/// A master's container has what the resource manager gave it. Those that a master starts are given all
/// of its credentials by Spark, with the tokens by which it is the master; these stay out.
///
/// At the resource manager's file tree a container is proven by a token of its own, which is good for
/// nothing else and ends with it. It takes the place of its user's, and of another container's.
pub(crate) fn credentials(launch: &v1::LaunchContext, origin: Origin, files: &FilesRight) -> Bytes {
    let stream = launch.secrets.get(CREDENTIALS);
    let stream = stream.map_or_else(Bytes::new, |stream| Bytes::copy_from_slice(stream));
    // `problem` has read it.
    let mut credentials = Credentials::read(stream).unwrap_or_default();
    match origin {
        Origin::ResourceManager => {}
        Origin::Master => {
            credentials.remove_kind(AMRM_KIND);
            if !keeps_token(launch) {
                credentials.remove_kind(CLIENT_KIND);
            }
        }
    }
    files.put(&mut credentials, keeps_token(launch));
    credentials.write(Version::Writable)
}

fn keeps_token(launch: &v1::LaunchContext) -> bool {
    launch.environment.get(KEEP_TOKEN).map(String::as_str) == Some("true")
}

/// A container's right to its user's files, in the resource manager's tree.
#[derive(Debug, Default)]
pub(crate) struct FilesRight {
    /// Of Bobbin's form; `None` without a key to sign it with.
    pub(crate) token: Option<String>,
    /// The tree's addresses, as clients compute them.
    pub(crate) services: Vec<String>,
}

impl FilesRight {
    /// `keep`: the user's own token stays, where there is one.
    fn put(&self, credentials: &mut Credentials, keep: bool) {
        let mut services: BTreeSet<String> = self.services.iter().cloned().collect();
        credentials.tokens.retain(|(_, token)| {
            let Some(own) = from_hadoop_form(token) else {
                return true;
            };
            if keep && is_users(&own) {
                services.remove(&token.service);
                return true;
            }
            // By whatever name its client knew the tree.
            services.insert(token.service.clone());
            false
        });
        let Some(token) = &self.token else {
            return;
        };
        let made = services
            .iter()
            .filter(|service| !service.is_empty())
            .filter_map(|service| to_hadoop_form(token, service));
        for token in made {
            credentials.add(token);
        }
    }
}

/// Unproven: it only chooses what is left out. A container's names its node.
fn is_users(token: &str) -> bool {
    claimed_node(token).is_none()
}

/// Where a container stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) container: ContainerId,
    pub(crate) account: &'a Account,
    pub(crate) paths: &'a ContainerPaths,
    pub(crate) node_id: &'a NodeId,
    /// host:port
    pub(crate) http_address: &'a str,
    pub(crate) node: &'a NodeEnvironment,
}

/// The launch script of a context that has no problem.
pub(crate) fn launch_script(launch: &v1::LaunchContext, place: &Place<'_>) -> String {
    let application: BTreeMap<&str, &str> = launch
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut own = own_variables(place);
    let defaults = place.node.defaults();
    let malloc = ("MALLOC_ARENA_MAX", MALLOC_ARENA_MAX.to_owned());
    let spark = loopback(place.node_id.host()).map(|ip| ("SPARK_LOCAL_IP", ip));
    own.extend(
        defaults
            .chain([malloc])
            .chain(spark)
            .filter(|(name, _)| !application.contains_key(name)),
    );
    // The node's win.
    let application = application
        .into_iter()
        .filter(|(name, _)| *name != "JVM_PID" && own.iter().all(|(taken, _)| taken != name))
        .collect();
    Script {
        container: place.container.to_string(),
        own,
        application,
        command: &launch.argv,
        log_dir: place.paths.log.display().to_string(),
    }
    .render()
}

/// The address of a node that only its own host reaches. Spark would listen on the host's outer one.
fn loopback(host: &str) -> Option<String> {
    let named = if host == "localhost" {
        "127.0.0.1"
    } else {
        host
    };
    let ip: IpAddr = named.parse().ok()?;
    ip.is_loopback().then(|| ip.to_string())
}

fn port(address: &str) -> String {
    address
        .rsplit_once(':')
        .map_or_else(String::new, |(_, port)| port.to_owned())
}

/// Source: `ContainerLaunch.sanitizeEnv`.
fn own_variables(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let work = place.paths.work.display().to_string();
    vec![
        ("CONTAINER_ID", place.container.to_string()),
        ("NM_HOST", place.node_id.host().to_owned()),
        ("NM_PORT", port(place.node_id.as_str())),
        ("NM_HTTP_PORT", port(place.http_address)),
        ("LOCAL_DIRS", place.paths.application.display().to_string()),
        ("LOG_DIRS", place.paths.log.display().to_string()),
        ("USER", place.account.name.clone()),
        ("LOGNAME", place.account.name.clone()),
        ("HOME", work.clone()),
        ("PWD", work.clone()),
        (
            "HADOOP_TOKEN_FILE_LOCATION",
            format!("{work}/{CREDENTIALS}"),
        ),
    ]
}

#[cfg(test)]
mod tests;
