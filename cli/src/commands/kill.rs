//! `bobbin app kill`.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_types::YarnApplicationState;
use futures::StreamExt;

use crate::args::{AppKillArgs, WhichArgs};
use crate::cluster::{Cluster, about};
use crate::commands::app::wanted;
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome, is_connection};
use crate::output;

/// How long a resource manager that went away while it was waited for may be away.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Kills that are waited for at the same time.
const KILLS_AT_ONCE: usize = 256;
/// Between two tries to reach it.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: &AppKillArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let ids = if args.ids.is_empty() {
        matching(&cluster, &args.which).await?
    } else {
        args.ids.clone()
    };
    if ids.is_empty() && !quiet {
        output::note("nothing that has not ended is meant");
    }
    // Many are asked for at once: each waits for its own containers. Every id is tried, and the first
    // failure is the command's.
    let mut first = None;
    let kills = ids.iter().map(|id| {
        let kill = kill(&cluster, id, !args.no_wait, &args.reason);
        async move { (id, kill.await) }
    });
    let mut kills = futures::stream::iter(kills).buffered(KILLS_AT_ONCE);
    while let Some((id, result)) = kills.next().await {
        match result {
            Ok(answer) if quiet => drop(answer),
            Ok(answer) => output::note(&words(&answer, args.no_wait)),
            Err(failure) if first.is_none() => first = Some(about(failure, id)),
            Err(failure) => output::error(&about(failure, id)),
        }
    }
    first.map_or(Ok(DONE), Err)
}

/// What the conditions mean and has not ended.
async fn matching(cluster: &Cluster, which: &WhichArgs) -> Result<Vec<String>, Failure> {
    let live = YarnApplicationState::ALL.iter().filter(|s| !s.is_ended());
    let wanted = v1::ListApplicationsRequest {
        states: live.map(|s| s.as_str().to_owned()).collect(),
        ..wanted(which)
    };
    let found = cluster.applications(wanted, usize::MAX).await?;
    Ok(found.into_iter().map(|report| report.id).collect())
}

fn words(answer: &v1::KillApplicationResponse, no_wait: bool) -> String {
    let id = &answer.application_id;
    match (answer.already_ended, no_wait) {
        (true, _) => format!("{id} had ended before"),
        (false, true) => format!("{id} is being killed"),
        (false, false) => format!("{id} is killed"),
    }
}

/// Kills one application. The kill is idempotent, so it is repeated when the resource manager goes away.
pub(crate) async fn kill(
    cluster: &Cluster,
    id: &str,
    wait: bool,
    reason: &str,
) -> Result<v1::KillApplicationResponse, Failure> {
    let id = cluster.whole_id(id).await?;
    let request = v1::KillApplicationRequest {
        application_id: id,
        wait,
        reason: reason.to_owned(),
    };
    let deadline = tokio::time::Instant::now() + AWAY_MAX;
    loop {
        let mut client = cluster.client();
        match client.kill_application(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_connection(&status) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            Err(status) => {
                let mut failure = cluster.failure(&status);
                if failure.kind == Kind::Unreachable {
                    failure = failure.context("the kill may or may not be recorded");
                }
                return Err(failure);
            }
        }
    }
}
