//! Reports of applications, attempts and containers.

use std::collections::BTreeSet;

use bobbin_hadoop::convert::required;
use bobbin_hadoop::exceptions::RpcException;
use bobbin_hadoop::proto::yarn;
use bobbin_rm_core::view::{ApplicationFilter, ApplicationReport};
use bobbin_rm_core::{Object, Operation, Refusal};
use bobbin_types::{
    ApplicationState, AttemptId, AttemptState, ContainerId, Resource, UserName, WallMillis,
    YarnApplicationState,
};

use super::ClientService;
use super::submit::queue;
use crate::grpc::identify::decide;
use crate::yarn::caller::Client;
use crate::yarn::exceptions::{denied, malformed, refused};
use crate::yarn::report;

/// Rows that are read of the core at once: it must not be held up by a long list.
const PAGE_ROWS: usize = 500;
/// Bytes of diagnostics in a list, which has no pages: whoever wants all asks for one application.
const LIST_DIAGNOSTICS_BYTES_MAX: usize = 1024;

impl ClientService {
    pub(super) async fn get_application_report(
        &self,
        client: &Client,
        request: yarn::GetApplicationReportRequest,
    ) -> Result<yarn::GetApplicationReportResponse, RpcException> {
        let id = request.application_id.as_ref();
        let report = self
            .application(client, id, Operation::ViewApplication)
            .await?;
        let total = self.read(|core| core.cluster().total).await?;
        let mut wire = report::application(&report, &self.links, &total);
        // To the owner alone: whoever has it is the master.
        if client.user() == Some(&report.user) {
            wire.am_rm_token = self.unmanaged_masters_token(&report);
            wire.client_to_am_token = self.token_for_the_master(client, &report);
        }
        Ok(yarn::GetApplicationReportResponse {
            application_report: Some(wire),
        })
    }

    /// The token of an unmanaged attempt, until its master has registered.
    ///
    /// Source: `RMAppImpl.createAndGetApplicationReport`.
    fn unmanaged_masters_token(
        &self,
        report: &ApplicationReport,
    ) -> Option<bobbin_hadoop::proto::common::Token> {
        let waits =
            report.unmanaged && report.current_attempt_state == Some(AttemptState::Launched);
        let attempt = report.current_attempt.filter(|_| waits)?;
        Some(self.doors.minter.amrm_token(attempt))
    }

    /// What proves a client to a master that answers clients.
    fn token_for_the_master(
        &self,
        client: &Client,
        report: &ApplicationReport,
    ) -> Option<bobbin_hadoop::proto::common::Token> {
        let answers = report.state == ApplicationState::Running && report.rpc_port > 0;
        let attempt = report.current_attempt.filter(|_| answers)?;
        let service = format!("{}:{}", report.host, report.rpc_port);
        let user = client.user()?;
        Some(
            self.doors
                .minter
                .client_to_am_token(attempt, user.as_str(), &service),
        )
    }

    /// What the caller may view, whatever the scope; `OWN` is less.
    pub(super) async fn get_applications(
        &self,
        client: &Client,
        request: yarn::GetApplicationsRequest,
    ) -> Result<yarn::GetApplicationsResponse, RpcException> {
        decide(&client.principal, Operation::ViewCluster, &Object::Cluster).map_err(denied)?;
        let limit = request.limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or_default()
        });
        let mut answer = yarn::GetApplicationsResponse::default();
        let Some(filter) = filter(client, &request) else {
            return Ok(answer);
        };
        let mut after = None;
        while answer.applications.len() < limit {
            let (reader, filter) = (client.principal.clone(), filter.clone());
            let (total, page) = self
                .read(move |core| {
                    let page = core.applications(&reader, &filter, PAGE_ROWS, after);
                    (core.cluster().total, page)
                })
                .await?;
            let rows = page.rows.iter().map(|row| self.list_row(row, &total));
            answer.applications.extend(rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        answer.applications.truncate(limit);
        Ok(answer)
    }

    fn list_row(&self, report: &ApplicationReport, total: &Resource) -> yarn::ApplicationReport {
        let mut wire = report::application(report, &self.links, total);
        if let Some(diagnostics) = &mut wire.diagnostics {
            let cut = diagnostics.floor_char_boundary(LIST_DIAGNOSTICS_BYTES_MAX);
            diagnostics.truncate(cut);
        }
        wire
    }

    pub(super) async fn get_attempt(
        &self,
        client: &Client,
        request: yarn::GetApplicationAttemptReportRequest,
    ) -> Result<yarn::GetApplicationAttemptReportResponse, RpcException> {
        let attempt = attempt_id(request.application_attempt_id.as_ref())?;
        let application = attempt.application.into();
        let report = self
            .application(client, Some(&application), Operation::ViewApplication)
            .await?;
        let found = report.attempts.iter().find(|a| a.attempt == attempt);
        let found = found.ok_or_else(|| refused(&Refusal::UnknownAttempt(attempt)))?;
        Ok(yarn::GetApplicationAttemptReportResponse {
            application_attempt_report: Some(report::attempt(found, &self.links)),
        })
    }

    pub(super) async fn get_attempts(
        &self,
        client: &Client,
        request: yarn::GetApplicationAttemptsRequest,
    ) -> Result<yarn::GetApplicationAttemptsResponse, RpcException> {
        let id = request.application_id.as_ref();
        let report = self
            .application(client, id, Operation::ViewApplication)
            .await?;
        let attempts = report.attempts.iter();
        Ok(yarn::GetApplicationAttemptsResponse {
            application_attempts: attempts.map(|a| report::attempt(a, &self.links)).collect(),
        })
    }

    pub(super) async fn get_container(
        &self,
        client: &Client,
        request: yarn::GetContainerReportRequest,
    ) -> Result<yarn::GetContainerReportResponse, RpcException> {
        let id = required("container_id", request.container_id.as_ref()).map_err(malformed)?;
        let id: ContainerId = id.try_into().map_err(malformed)?;
        let application = id.application().into();
        let report = self
            .application(client, Some(&application), Operation::ViewApplication)
            .await?;
        let container = self.read(move |core| core.container(id)).await?;
        let container = container.ok_or_else(|| refused(&Refusal::UnknownContainer(id)))?;
        Ok(yarn::GetContainerReportResponse {
            container_report: Some(report::container(&container, report.user.as_str())),
        })
    }

    /// Of one attempt, live ones and those that are remembered.
    pub(super) async fn get_containers(
        &self,
        client: &Client,
        request: yarn::GetContainersRequest,
    ) -> Result<yarn::GetContainersResponse, RpcException> {
        let attempt = attempt_id(request.application_attempt_id.as_ref())?;
        let application = attempt.application.into();
        let report = self
            .application(client, Some(&application), Operation::ViewApplication)
            .await?;
        if !report.attempts.iter().any(|a| a.attempt == attempt) {
            return Err(refused(&Refusal::UnknownAttempt(attempt)));
        }
        let mut answer = yarn::GetContainersResponse::default();
        let mut after = None;
        loop {
            let page = self
                .read(move |core| core.containers(attempt.application, PAGE_ROWS, after))
                .await?;
            let mine = page
                .rows
                .iter()
                .filter(|row| row.container.attempt == attempt);
            let rows = mine.map(|row| report::container(row, report.user.as_str()));
            answer.containers.extend(rows);
            after = page.next;
            if after.is_none() {
                return Ok(answer);
            }
        }
    }
}

fn attempt_id(id: Option<&yarn::ApplicationAttemptId>) -> Result<AttemptId, RpcException> {
    let id = required("application_attempt_id", id).map_err(malformed)?;
    id.try_into().map_err(malformed)
}

/// What the core looks for; `None`: nothing can match.
fn filter(client: &Client, request: &yarn::GetApplicationsRequest) -> Option<ApplicationFilter> {
    let mut users: BTreeSet<UserName> = BTreeSet::new();
    for user in &request.users {
        // What is no user's name has no applications.
        users.extend(user.parse::<UserName>().ok());
    }
    if users.is_empty() && !request.users.is_empty() {
        return None;
    }
    if request.scope() == yarn::ApplicationsRequestScope::Own {
        let own = client.user()?;
        if !users.is_empty() && !users.contains(own) {
            return None;
        }
        users = BTreeSet::from([own.clone()]);
    }
    let states: Vec<YarnApplicationState> = request.application_states().map(Into::into).collect();
    Some(ApplicationFilter {
        states,
        users,
        queues: request.queues.iter().map(|q| queue(q).to_owned()).collect(),
        types: request.application_types.iter().cloned().collect(),
        tags: request.application_tags.iter().cloned().collect(),
        name: request.name.clone().filter(|name| !name.is_empty()),
        final_status: None,
        submitted: range(request.start_begin, request.start_end),
        finished: range(request.finish_begin, request.finish_end),
    })
}

/// First and last moment; what is not given is open.
fn range(begin: Option<i64>, end: Option<i64>) -> Option<(WallMillis, WallMillis)> {
    if begin.is_none() && end.is_none() {
        return None;
    }
    let moment = |ms: i64| WallMillis(u64::try_from(ms).unwrap_or_default());
    Some((
        moment(begin.unwrap_or_default()),
        moment(end.unwrap_or(i64::MAX)),
    ))
}

#[cfg(test)]
mod tests {
    use bobbin_rm_core::{Groups, Principal};

    use super::*;

    fn client(name: &str) -> Client {
        Client {
            principal: Principal::User {
                name: name.parse().unwrap(),
                administrator: false,
                groups: Groups::default(),
            },
            token: None,
        }
    }

    #[test]
    fn filters_of_the_command_line() {
        let mut request = yarn::GetApplicationsRequest {
            queues: vec!["root.default".to_owned()],
            ..Default::default()
        };
        request.set_scope(yarn::ApplicationsRequestScope::All);
        let states = [
            yarn::YarnApplicationState::Accepted,
            yarn::YarnApplicationState::Running,
        ];
        request.application_states = states.map(i32::from).to_vec();
        let all = filter(&client("ann"), &request).unwrap();
        assert_eq!(
            all.states,
            [
                YarnApplicationState::Accepted,
                YarnApplicationState::Running
            ]
        );
        assert_eq!(all.queues, BTreeSet::from(["default".to_owned()]));
        assert_eq!((all.submitted, all.users.len()), (None, 0));
        request.users = vec!["not/a/user".to_owned()];
        assert_eq!(filter(&client("ann"), &request), None);
        request.users = vec!["bob".to_owned()];
        request.start_begin = Some(5);
        let of_bob = filter(&client("ann"), &request).unwrap();
        assert_eq!(of_bob.submitted.unwrap().0, WallMillis(5));
        request.set_scope(yarn::ApplicationsRequestScope::Own);
        assert_eq!(filter(&client("ann"), &request), None);
        let own = filter(&client("bob"), &request).unwrap();
        assert_eq!(own.users.first().unwrap().as_str(), "bob");
    }
}
