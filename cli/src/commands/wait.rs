//! `bobbin app wait`.

use std::sync::Arc;
use std::time::Duration;

use bobbin_proto::v1;
use tokio::time::{Instant, timeout_at};

use crate::args::AppWaitArgs;
use crate::cluster::{Cluster, about};
use crate::commands::follow::Watcher;
use crate::exit_codes::{self};
use crate::failure::{Failure, Kind, Outcome};
use crate::output;

pub(crate) async fn run(args: &AppWaitArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    // Every id is looked at before any is waited for: a wrong one is known at once.
    let mut ids = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        ids.push(cluster.whole_id(id).await?);
    }
    let limit = args.timeout.map(|limit| (limit, Instant::now() + limit));
    // One after the other: the last one to end is the end in any order.
    let mut code = exit_codes::DONE;
    for (id, said) in ids.iter().zip(&args.ids) {
        let report = ended(&cluster, id, limit)
            .await
            .map_err(|failure| about(failure, said))?;
        let of_this = exit_codes::of_wait(&report.final_status);
        if of_this != exit_codes::DONE {
            code = of_this;
            if !quiet {
                output::note(&crate::commands::follow::end_words(&report));
            }
        }
    }
    Ok(code)
}

/// The report of an application's end; `limit` is the whole time and its end.
async fn ended(
    cluster: &Cluster,
    id: &str,
    limit: Option<(Duration, Instant)>,
) -> Result<Arc<v1::ApplicationReport>, Failure> {
    let mut watcher = Watcher::start(cluster, id);
    let ended = watcher.ended();
    let Some((limit, deadline)) = limit else {
        return ended.await;
    };
    match timeout_at(deadline, ended).await {
        Ok(report) => report,
        Err(_) => {
            let words = format!("{id} has not ended within {} s", limit.as_secs_f64());
            Err(Failure::new(Kind::TimedOut, words)
                .try_this(format!("`bobbin app status {id}` says what it does")))
        }
    }
}
