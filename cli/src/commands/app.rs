//! `bobbin app list|status|attempts|containers|move|priority`.

use bobbin_proto::v1;

use crate::args::{
    AppContainersArgs, AppIdArgs, AppListArgs, AppMoveArgs, AppPriorityArgs, AppStatusArgs,
    WhichArgs,
};
use crate::cluster::Cluster;
use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output::{self, Application, Attempt, Container};

pub(crate) async fn list(args: &AppListArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let wanted = v1::ListApplicationsRequest {
        states: args.state.clone(),
        ..wanted(&args.which)
    };
    let reports = cluster.applications(wanted, limit).await?;
    let list: Vec<_> = reports.into_iter().map(Application::in_list).collect();
    output::applications(&list, args.format.output)?;
    Ok(DONE)
}

/// The conditions as the resource manager takes them.
pub(crate) fn wanted(which: &WhichArgs) -> v1::ListApplicationsRequest {
    v1::ListApplicationsRequest {
        user: which.user.clone(),
        queues: which.queue.clone(),
        application_types: which.application_type.clone(),
        tags: which.tag.clone(),
        name: which.name.clone().unwrap_or_default(),
        ..v1::ListApplicationsRequest::default()
    }
}

pub(crate) async fn status(args: &AppStatusArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let mut reports = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        reports.push(Application::whole(cluster.application(id).await?));
    }
    match reports.as_slice() {
        [one] => output::application(one, args.format.output)?,
        several => output::whole_applications(several, args.format.output)?,
    }
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

pub(crate) async fn change_queue(args: &AppMoveArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let request = v1::MoveApplicationRequest {
        application_id: cluster.whole_id(&args.id).await?,
        queue: args.queue.clone(),
    };
    let mut client = cluster.client();
    let moved = cluster.answer(client.move_application(request)).await?;
    if !quiet {
        let v1::MoveApplicationResponse {
            application_id,
            queue,
        } = moved;
        output::note(&format!("{application_id} is in queue {queue}"));
    }
    Ok(DONE)
}

pub(crate) async fn priority(args: &AppPriorityArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let request = v1::SetPriorityRequest {
        application_id: cluster.whole_id(&args.id).await?,
        priority: args.priority,
    };
    let mut client = cluster.client();
    let set = cluster.answer(client.set_priority(request)).await?;
    if !quiet {
        let v1::SetPriorityResponse {
            application_id,
            priority,
        } = set;
        output::note(&format!("{application_id} has priority {priority}"));
    }
    Ok(DONE)
}
