//! `bobbin token create`: for Bobbin itself, or as a file for Hadoop's clients.

use std::path::Path;

use bobbin_proto::v1;
use bobbin_proto::v1::create_token_request::Subject;

use crate::args::TokenCreateArgs;
use crate::cluster::{Cluster, sentence};
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome};
use crate::{output, parse};

/// Readable by its owner alone: who has a token is who it says.
const TOKEN_MODE: u32 = 0o600;

pub(crate) async fn create(args: &TokenCreateArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let subject = match (&args.node, &args.user) {
        (Some(node), _) => Some(Subject::Node(node.clone())),
        (None, Some(user)) => Some(Subject::User(user.clone())),
        (None, None) => None,
    };
    let cluster = Cluster::connect(rm).await?;
    let subject = match subject {
        Some(subject) => subject,
        None => Subject::User(own_name(&cluster).await?),
    };
    let valid_ms = parse::millis(args.valid);
    if let Some(path) = &args.hadoop {
        write_bytes(path, &hadoop(&cluster, subject, valid_ms).await?)?;
        if !quiet {
            let shown = path.display();
            output::note(&format!(
                "the token is in {shown}; use it with: export HADOOP_TOKEN_FILE_LOCATION={shown}"
            ));
        }
        return Ok(DONE);
    }
    let token = request(&cluster, subject, valid_ms).await?;
    match &args.out {
        None => output::stdout(format!("{token}\n").as_bytes())?,
        Some(path) => {
            write(path, &token)?;
            if !quiet {
                output::note(&format!("the token is in {}", path.display()));
            }
        }
    }
    Ok(DONE)
}

/// Who the resource manager takes the caller for.
async fn own_name(cluster: &Cluster) -> Result<String, Failure> {
    let mut client = cluster.client();
    Ok(cluster
        .answer(client.get_cluster(v1::GetClusterRequest {}))
        .await?
        .user)
}

/// Asks for a token.
pub(crate) async fn request(
    cluster: &Cluster,
    subject: Subject,
    valid_ms: u64,
) -> Result<String, Failure> {
    let request = v1::CreateTokenRequest {
        subject: Some(subject),
        valid_ms,
        hadoop: false,
    };
    let mut client = cluster.client();
    Ok(cluster.answer(client.create_token(request)).await?.token)
}

/// A user's tokens in the form of a file that Hadoop's clients read.
async fn hadoop(cluster: &Cluster, subject: Subject, valid_ms: u64) -> Result<Vec<u8>, Failure> {
    let request = v1::CreateTokenRequest {
        subject: Some(subject),
        valid_ms,
        hadoop: true,
    };
    let mut client = cluster.client();
    let answer = cluster.answer(client.create_token(request)).await?;
    if answer.hadoop_credentials.is_empty() {
        let words = "this resource manager makes no tokens for Hadoop's clients: it is older";
        return Err(Failure::new(Kind::Failed, words));
    }
    Ok(answer.hadoop_credentials)
}

/// The caller's own tokens in a file's form that Hadoop's clients read; `None`: the resource manager
/// gives none. Good for `valid_ms`, or as long as the resource manager's settings allow.
pub(crate) async fn request_hadoop(
    cluster: &Cluster,
    valid_ms: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    let user = own_name(cluster).await?;
    let mut client = cluster.client();
    let mut request = v1::CreateTokenRequest {
        subject: Some(Subject::User(user)),
        valid_ms,
        hadoop: true,
    };
    let answer = match cluster.answer(client.create_token(request.clone())).await {
        Err(failure) if failure.kind == Kind::Usage => {
            request.valid_ms = 0;
            cluster.answer(client.create_token(request)).await?
        }
        answer => answer?,
    };
    Ok((!answer.hadoop_credentials.is_empty()).then_some(answer.hadoop_credentials))
}

/// Writes a token to a file that nobody else can read at any moment.
pub(crate) fn write(path: &Path, token: &str) -> Result<(), Failure> {
    write_bytes(path, format!("{token}\n").as_bytes())
}

/// As [`write()`], of a token in binary form.
pub(crate) fn write_bytes(path: &Path, token: &[u8]) -> Result<(), Failure> {
    bobbin_service::atomic_write(path, token, TOKEN_MODE)
        .map_err(|e| Failure::new(Kind::Failed, sentence(&e)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_its_owner_reads_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write(&path, "bobbin1.x.y").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bobbin1.x.y\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let failure = write(Path::new("/nonexistent/token"), "x").unwrap_err();
        assert!(failure.message.contains("/nonexistent/token"), "{failure}");
    }
}
