//! `bobbin app wait`.

use crate::args::AppWaitArgs;
use crate::cluster::{Cluster, about};
use crate::commands::follow::Watcher;
use crate::exit_codes::{self};
use crate::failure::{Failure, Kind, Outcome};
use crate::output;

pub(crate) async fn run(args: &AppWaitArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let id = cluster.whole_id(&args.id).await?;
    let mut watcher = Watcher::start(&cluster, &id);
    let ended = watcher.ended();
    let report = match args.timeout {
        None => ended.await,
        Some(limit) => match tokio::time::timeout(limit, ended).await {
            Ok(report) => report,
            Err(_) => {
                return Err(Failure::new(
                    Kind::TimedOut,
                    format!("{id} has not ended within {} s", limit.as_secs_f64()),
                )
                .try_this(format!("`bobbin app status {id}` says what it does")));
            }
        },
    }
    .map_err(|failure| about(failure, &args.id))?;
    let code = exit_codes::of_wait(&report.final_status);
    if code != exit_codes::DONE && !quiet {
        output::note(&crate::commands::follow::end_words(&report));
    }
    Ok(code)
}
