//! `bobbin app list|status|attempts|containers`.

use crate::args::{AppContainersArgs, AppIdArgs, AppListArgs, AppStatusArgs};
use crate::cluster::Cluster;
use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output::{self, Application, Attempt, Container};

pub(crate) async fn list(args: &AppListArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let reports = cluster.applications(&args.state, &args.user, limit).await?;
    let list: Vec<_> = reports.into_iter().map(Application::in_list).collect();
    output::applications(&list, args.format.output)?;
    Ok(DONE)
}

pub(crate) async fn status(args: &AppStatusArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let report = cluster.application(&args.id).await?;
    output::application(&Application::whole(report), args.format.output)?;
    Ok(DONE)
}

pub(crate) async fn attempts(args: &AppIdArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let report = cluster.application(&args.id).await?;
    let list: Vec<_> = report.attempts.into_iter().map(Attempt::from).collect();
    output::attempts(&list, args.format.output)?;
    Ok(DONE)
}

pub(crate) async fn containers(args: &AppContainersArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let id = cluster.whole_id(&args.id).await?;
    let list: Vec<_> = cluster
        .containers(&id)
        .await?
        .into_iter()
        .map(Container::from)
        .collect();
    output::containers(&list, args.format.output)?;
    Ok(DONE)
}
