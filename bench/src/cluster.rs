//! A cluster of a benchmark's own, with nothing of it left afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use bobbin_service::{RpcChannel, Target};

/// A running `bobbin up`; ended, with its containers, when dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    bobbin: PathBuf,
    nodes: usize,
}

impl Cluster {
    /// Starts one with the programs beside this one. `settings` are variables as daemons read them:
    /// `BOBBIN_NA__RESOURCES__VCORES`.
    ///
    /// # Errors
    /// A program is not built, or the cluster does not start.
    pub(crate) fn up(nodes: usize, settings: &[(&str, String)]) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("bobbin-bench-").tempdir()?;
        // Containers of another user look through it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open)?;
        let bobbin = beside("bobbin")?;
        let cluster = Cluster { dir, bobbin, nodes };
        let mut up = command(&cluster.bobbin);
        up.args(["up", "--detach", "--nodes", &nodes.to_string(), "--dir"])
            .arg(cluster.folder())
            .envs(settings.iter().map(|(name, value)| (name, value)));
        quietly(&mut up)?;
        Ok(cluster)
    }

    /// The cluster's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// A folder for the benchmark's own files, readable by everybody.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Of the resource manager.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("run/resourcemanager.sock")
    }

    /// The names of its nodes, as in its folders.
    pub(crate) fn node_names(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.nodes).map(|number| format!("node{number}"))
    }

    /// The command line, told where this cluster is.
    pub(crate) fn bobbin(&self) -> Command {
        let mut bobbin = command(&self.bobbin);
        bobbin.env("BOBBIN_RM_SOCKET", self.socket());
        bobbin
    }

    /// A connection to the resource manager, proven by the own uid or by a token.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) async fn connect(&self, token: Option<&str>) -> anyhow::Result<RpcChannel> {
        bobbin_service::connect(&Target::Unix(self.socket()), token)
            .await
            .context("the benchmark's cluster")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut down = command(&self.bobbin);
        down.args(["down", "--dir"]).arg(self.folder());
        if let Err(e) = quietly(&mut down) {
            crate::progress(&format!("the cluster has not ended: {e:#}"));
        }
    }
}

/// A program that is built together with this one.
///
/// # Errors
/// It is not there.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured are whole programs"
)]
pub(crate) fn command(program: &Path) -> Command {
    Command::new(program)
}

/// Runs a program to its end; its output, which is shown only when it fails.
///
/// # Errors
/// It cannot be started or does not end with 0.
pub(crate) fn quietly(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
