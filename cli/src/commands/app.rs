//! `bobbin app list|status|attempts|containers|move|priority|timeout`.

use bobbin_proto::v1;

use crate::args::{
    AppContainersArgs, AppIdsArgs, AppListArgs, AppMoveArgs, AppPriorityArgs, AppStatusArgs,
    AppTimeoutArgs, WhichArgs,
};
use crate::cluster::Cluster;
use crate::commands::several::each;
use crate::exit_codes::DONE;
use crate::failure::Outcome;
use crate::output::{self, Application, Attempt, Container};
use crate::parse;

pub(crate) async fn list(args: &AppListArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let wanted = v1::ListApplicationsRequest {
        states: args.state.clone(),
        final_status: args.final_status.clone().unwrap_or_default(),
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
    let (reports, failure) = each(&args.ids, async |id| {
        Ok(Application::whole(cluster.application(id).await?))
    })
    .await;
    match (reports.as_slice(), args.ids.len()) {
        ([one], 1) => output::application(one, args.format.output)?,
        (several, _) if several.is_empty() && failure.is_some() => {}
        (several, _) => output::whole_applications(several, args.format.output)?,
    }
    failure.map_or(Ok(DONE), Err)
}

pub(crate) async fn attempts(args: &AppIdsArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let (found, failure) = each(&args.ids, async |id| {
        let report = cluster.application(id).await?;
        let list = report.attempts.into_iter().map(Attempt::from).collect();
        Ok((report.id, list))
    })
    .await;
    output::attempts(&found, args.ids.len() == 1, args.format.output)?;
    failure.map_or(Ok(DONE), Err)
}

pub(crate) async fn containers(args: &AppContainersArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let (found, failure) = each(&args.ids, async |id| {
        let id = cluster.whole_id(id).await?;
        let list = if args.usage {
            let measured = cluster.measured_containers(&id).await?;
            for node in &measured.silent_nodes {
                output::note(&format!("what containers use is not known of {node}"));
            }
            Container::measured(measured.containers, measured.usages)
        } else {
            let list = cluster.containers(&id).await?;
            list.into_iter().map(Container::from).collect()
        };
        Ok((id, list))
    })
    .await;
    output::containers_of(&found, args.ids.len() == 1, args.format.output)?;
    failure.map_or(Ok(DONE), Err)
}

pub(crate) async fn change_queue(args: &AppMoveArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let (moved, failure) = each(&args.ids, async |id| {
        let request = v1::MoveApplicationRequest {
            application_id: cluster.whole_id(id).await?,
            queue: args.queue.clone(),
        };
        let mut client = cluster.client();
        cluster.answer(client.move_application(request)).await
    })
    .await;
    let words = moved
        .iter()
        .map(|moved| format!("{} is in queue {}", moved.application_id, moved.queue));
    tell(words, quiet);
    failure.map_or(Ok(DONE), Err)
}

pub(crate) async fn priority(args: &AppPriorityArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let (set, failure) = each(&args.ids, async |id| {
        let request = v1::SetPriorityRequest {
            application_id: cluster.whole_id(id).await?,
            priority: args.priority,
        };
        let mut client = cluster.client();
        cluster.answer(client.set_priority(request)).await
    })
    .await;
    let words = set
        .iter()
        .map(|set| format!("{} has priority {}", set.application_id, set.priority));
    tell(words, quiet);
    failure.map_or(Ok(DONE), Err)
}

pub(crate) async fn timeout(args: &AppTimeoutArgs, rm: Option<&str>, quiet: bool) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let (set, failure) = each(&args.ids, async |id| {
        let request = v1::SetTimeoutRequest {
            application_id: cluster.whole_id(id).await?,
            timeout_ms: args.after.0.map_or(0, parse::millis),
        };
        let mut client = cluster.client();
        cluster.answer(client.set_timeout(request)).await
    })
    .await;
    let words = set.iter().map(|set| match args.after.0 {
        Some(after) => format!(
            "{} ends in {after:?} if it still runs then",
            set.application_id
        ),
        None => format!("{} may run as long as it likes", set.application_id),
    });
    tell(words, quiet);
    failure.map_or(Ok(DONE), Err)
}

fn tell(words: impl Iterator<Item = String>, quiet: bool) {
    if !quiet {
        words.for_each(|words| output::note(&words));
    }
}
