//! What running containers use is measured by their agents when somebody asks; nothing is measured,
//! sent or kept while nobody does.

use std::time::Duration;

use bobbin_proto::v1;
use bobbin_proto::v1::usages_client::UsagesClient;
use bobbin_rm_core::view::ContainerReport;
use bobbin_service::status_words;
use bobbin_types::{ApplicationId, UserName};
use futures::StreamExt;
use tonic::Status;

use super::logs::{LogRelay, Place, is_break};

/// How long one agent may take: what it says is of now, or not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Agents asked at the same time for one client.
const AGENTS_AT_ONCE: usize = 32;

impl LogRelay {
    /// What those of `containers` that run use, and in words which nodes could not be asked.
    pub(super) async fn usages(
        &self,
        application: ApplicationId,
        owner: &UserName,
        containers: &[ContainerReport],
    ) -> (Vec<v1::ContainerUsage>, Vec<String>) {
        let mut wanted: Vec<&ContainerReport> =
            containers.iter().filter(|c| !c.state.is_ended()).collect();
        let shown: std::collections::BTreeSet<String> =
            wanted.iter().map(|c| c.container.to_string()).collect();
        wanted.sort_by(|a, b| a.node.cmp(&b.node));
        wanted.dedup_by(|a, b| a.node == b.node);
        let asked = wanted.into_iter().cloned().map(|one| async move {
            let node = one.node.clone();
            let answer = tokio::time::timeout(PATIENCE, self.usages_at(application, owner, one));
            match answer.await {
                Ok(Ok(usages)) => Ok(usages),
                Ok(Err(status)) => Err(format!("{node}: {}", status_words(&status))),
                Err(_) => Err(format!("{node} has not answered within {PATIENCE:?}")),
            }
        });
        let mut answers = futures::stream::iter(asked).buffer_unordered(AGENTS_AT_ONCE);
        let (mut usages, mut silent) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.next().await {
            match answer {
                // Of what was asked for only: an agent's answer is bounded by it.
                Ok(found) => usages.extend(
                    found
                        .into_iter()
                        .filter(|usage| shown.contains(&usage.container_id)),
                ),
                Err(words) => silent.push(words),
            }
        }
        usages.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        usages.dedup_by(|a, b| a.container_id == b.container_id);
        silent.sort();
        (usages, silent)
    }

    async fn usages_at(
        &self,
        application: ApplicationId,
        owner: &UserName,
        container: ContainerReport,
    ) -> Result<Vec<v1::ContainerUsage>, Status> {
        let place = self.placed(container).await?;
        if place.lost {
            return Err(Status::unavailable("it is lost"));
        }
        let mut answer = self.ask_usages(&place, application, owner).await;
        // The agent may have been restarted since it was last asked: its connection is broken, and a
        // new one is not.
        if let Err(status) = &answer
            && is_break(status)
        {
            self.forget_channel(&place);
            answer = self.ask_usages(&place, application, owner).await;
        }
        answer
    }

    async fn ask_usages(
        &self,
        place: &Place,
        application: ApplicationId,
        owner: &UserName,
    ) -> Result<Vec<v1::ContainerUsage>, Status> {
        let mut client = UsagesClient::new(self.channel(place, application, owner)?);
        let request = v1::ListUsagesRequest {
            application_id: application.to_string(),
        };
        Ok(client.list_usages(request).await?.into_inner().usages)
    }
}
