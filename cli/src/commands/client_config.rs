//! `bobbin client-config`.

use std::path::Path;

use bobbin_proto::v1;
use bobbin_service::Target;

use crate::args::ClientConfigArgs;
use crate::cluster::Cluster;
use crate::exit_codes::DONE;
use crate::failure::{Failure, Outcome};
use crate::hadoop_conf::{HadoopConf, Host};
use crate::{host, output};

pub(crate) async fn run(args: &ClientConfigArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let token_file = args.token_file.as_deref().map(token_file).transpose()?;
    let cluster = Cluster::connect(rm).await?;
    let names = match &args.host {
        Some(host) => Host::Told(host.clone()),
        None => Host::Bound {
            otherwise: reached_at(&cluster.target),
        },
    };
    conf(&cluster, &names, token_file).await?.write(&args.out)?;
    if !quiet {
        let folder = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
        output::note(&format!(
            "`export HADOOP_CONF_DIR={}` makes Hadoop's clients use this cluster",
            host::quote(&folder.display().to_string())
        ));
    }
    Ok(DONE)
}

/// What the resource manager says of its doors.
pub(crate) async fn conf(
    cluster: &Cluster,
    host: &Host,
    token_file: Option<String>,
) -> Result<HadoopConf, Failure> {
    let mut client = cluster.client();
    let answer = cluster
        .answer(client.get_cluster(v1::GetClusterRequest {}))
        .await?;
    HadoopConf::new(answer.hadoop.as_ref(), host, token_file)
}

/// The host under which the resource manager was found: this one, over its socket.
fn reached_at(target: &Target) -> String {
    let own = || {
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "localhost".to_owned())
    };
    match target {
        Target::Unix(_) => own(),
        Target::Tcp(address) => address
            .rsplit_once(':')
            .map_or_else(own, |(host, _)| host.to_owned()),
    }
}

/// As Hadoop reads it: variables and lists as they are, a plain file by its whole path, because a
/// client may run anywhere.
fn token_file(file: &str) -> Result<String, Failure> {
    let refused = |why: &str| {
        Failure::usage(format!(
            "the token file '{}' cannot be meant: {why}",
            crate::parse::shown(file)
        ))
        .try_this("--token-file FILE, for example --token-file '${user.home}/.bobbin-token'")
    };
    if file.trim().is_empty() {
        return Err(refused("its name is empty"));
    }
    if file.chars().any(char::is_control) {
        return Err(refused("its name has a control character"));
    }
    if file.contains("${") || file.contains(',') {
        return Ok(file.to_owned());
    }
    let whole = std::path::absolute(Path::new(file)).map_err(|e| refused(&e.to_string()))?;
    Ok(whole.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files() {
        assert_eq!(token_file("/a/b").unwrap(), "/a/b");
        assert!(token_file("b").unwrap().ends_with("/b"));
        let kept = "${user.home}/.token";
        assert_eq!(token_file(kept).unwrap(), kept);
        assert_eq!(token_file("/a,/b").unwrap(), "/a,/b");
        for bad in ["", " ", "a\nb"] {
            assert_eq!(
                token_file(bad).unwrap_err().kind,
                crate::failure::Kind::Usage
            );
        }
    }

    #[test]
    fn where_it_was_found() {
        let tcp = Target::Tcp("rm.example:8034".to_owned());
        assert_eq!(reached_at(&tcp), "rm.example");
        assert!(!reached_at(&Target::Unix("/run/x.sock".into())).is_empty());
    }
}
