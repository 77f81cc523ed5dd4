//! The list of applications with its filters, and counts over it.
//!
//! A list is written page by page while it is sent: the driver answers one page at a time, between
//! its other work, and nobody holds the whole of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::view::{ApplicationFilter, ApplicationReport, Page};
use bobbin_rm_core::{Operation, Principal};
use bobbin_types::{ApplicationId, FinalStatus, UserName, YarnApplicationState};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{answer, plain_headers};
use super::application::application;
use super::document::{Document, Element, ListWriter};
use super::problem::Problem;
use super::query::{Query, one_of, shown};
use super::{Call, Frame};
use crate::driver::{DriverHandle, Failure};

/// Applications read at once: a page is one question to the driver.
const PAGE: usize = 250;
/// Written pages that wait for a slow reader.
const PAGES_AHEAD: usize = 2;
/// A reader that takes nothing for so long is given up.
const STALL_TIME: Duration = Duration::from_secs(60);

impl Call {
    /// A text of this call's format.
    pub(super) fn text(&self, text: String) -> Response {
        let headers = plain_headers(self.format.content_type());
        (StatusCode::OK, headers, text).into_response()
    }

    /// The list of applications.
    ///
    /// Source: `RMWebServices.getApps`, `ApplicationsRequestBuilder`.
    pub(super) async fn list(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let filter = filter(&self.query)?;
        self.check_queues(&filter).await?;
        let limit = match self.query.number("limit")? {
            Some(0) => {
                return Err(Problem::BadRequest(
                    "limit value must be greater then 0".to_owned(),
                ));
            }
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let seat = self.web.lists.take(&self.reader());
        let seat = seat.ok_or(Problem::Busy)?;
        let rows = Rows {
            driver: self.web.driver.clone(),
            principal: self.principal.clone(),
            filter,
            after: None,
            left: limit,
        };
        let frame = self.frame().await?;
        let writer = ListWriter::new(self.format, "apps", "app");
        let (pages, body) = mpsc::channel(PAGES_AHEAD);
        // Ends when everything is sent, or when nobody reads it any more.
        tokio::spawn(async move {
            write(rows, frame, writer, pages).await;
            drop(seat);
        });
        let headers = plain_headers(self.format.content_type());
        let body = Body::from_stream(ReceiverStream::new(body));
        Ok((StatusCode::OK, headers, body).into_response())
    }

    /// Whom a list that is being read is counted for.
    fn reader(&self) -> UserName {
        match &self.principal {
            Principal::User { name, .. } => name.clone(),
            // All of them together: they have little to read here.
            Principal::Attempt(_)
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_) => "_machine".parse().expect("it is a user's name"),
        }
    }

    async fn check_queues(&self, filter: &ApplicationFilter) -> Result<(), Problem> {
        let queues = filter.queues.clone();
        let asked = self.web.driver.read(move |core| {
            let known = &core.config().queues;
            queues.into_iter().find(|queue| !known.contains(queue))
        });
        match asked.await? {
            Some(unknown) => Err(Problem::BadRequest(format!(
                "Unknown queue: {}",
                shown(&unknown)
            ))),
            None => Ok(()),
        }
    }

    /// How many applications of a type are in each state.
    ///
    /// Source: `RMWebServices.getAppStatistics`.
    pub(super) async fn statistics(self) -> Result<Response, Problem> {
        self.may(Operation::ViewCluster)?;
        let all = YarnApplicationState::ALL;
        let mut states = self
            .query
            .known("states", all, YarnApplicationState::as_str)?;
        if states.is_empty() {
            states = all.to_vec();
        }
        states.sort_unstable();
        states.dedup();
        let types = self.query.words("applicationTypes")?;
        if types.len() > 1 {
            return Err(Problem::BadRequest(format!(
                "# of applicationTypes = {}, we temporarily support at most one applicationType",
                types.len()
            )));
        }
        let kind = types
            .first()
            .map_or_else(|| "*".to_owned(), |kind| kind.to_lowercase());
        let mut counts: BTreeMap<YarnApplicationState, u64> =
            states.iter().map(|state| (*state, 0)).collect();
        let mut rows = Rows {
            driver: self.web.driver.clone(),
            principal: self.principal.clone(),
            filter: ApplicationFilter {
                states,
                types: types.into_iter().map(str::to_owned).collect(),
                ..ApplicationFilter::default()
            },
            after: None,
            left: usize::MAX,
        };
        while let Some(page) = rows.next().await? {
            for report in page {
                *counts.entry(report.state.as_yarn()).or_default() += 1;
            }
        }
        let items: Vec<Element> = counts
            .into_iter()
            .map(|(state, count)| {
                Element::new()
                    .with("state", state.as_str())
                    .with("type", kind.as_str())
                    .with("count", count)
            })
            .collect();
        let element = Element::new().with("statItem", items);
        let document = Document::new("appStatInfo", element);
        Ok(answer(StatusCode::OK, &document, self.format))
    }
}

/// What the parameters ask for.
fn filter(query: &Query) -> Result<ApplicationFilter, Problem> {
    let all = YarnApplicationState::ALL;
    let word = YarnApplicationState::as_str;
    let mut states = query.known("states", all, word)?;
    states.extend(query.known("state", all, word)?);
    let owned =
        |words: std::collections::BTreeSet<&str>| words.into_iter().map(str::to_owned).collect();
    let user = query.get("user").map(|user| {
        user.parse::<UserName>()
            .map_err(|e| Problem::BadRequest(e.to_string()))
    });
    let final_status = query
        .get("finalStatus")
        .map(|text| one_of("finalStatus", text, FinalStatus::ALL, FinalStatus::as_str));
    let queues = query.words("queue")?;
    let queues = queues.into_iter().map(crate::yarn::client::submit::queue);
    Ok(ApplicationFilter {
        states,
        users: user.transpose()?.into_iter().collect(),
        queues: queues.map(str::to_owned).collect(),
        types: owned(query.words("applicationTypes")?),
        tags: owned(query.words("applicationTags")?),
        name: query.get("name").map(str::to_owned),
        final_status: final_status.transpose()?,
        submitted: query.range("startedTimeBegin", "startedTimeEnd")?,
        finished: query.range("finishedTimeBegin", "finishedTimeEnd")?,
    })
}

/// Applications, newest first, page by page.
pub(in crate::web) struct Rows {
    pub(in crate::web) driver: DriverHandle,
    pub(in crate::web) principal: Principal,
    pub(in crate::web) filter: ApplicationFilter,
    pub(in crate::web) after: Option<ApplicationId>,
    /// How many are still wanted.
    pub(in crate::web) left: usize,
}

impl Rows {
    /// The next page; `None` at the end.
    pub(in crate::web) async fn next(&mut self) -> Result<Option<Vec<ApplicationReport>>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let (principal, filter) = (self.principal.clone(), self.filter.clone());
        let (size, after) = (self.left.min(PAGE), self.after);
        let asked = self
            .driver
            .read(move |core| core.applications(&principal, &filter, size, after));
        let Page { rows, next } = asked.await?;
        self.left = match next {
            Some(_) => self.left.saturating_sub(rows.len()),
            None => 0,
        };
        self.after = next;
        Ok(Some(rows))
    }
}

async fn write(
    mut rows: Rows,
    frame: Frame,
    mut writer: ListWriter,
    pages: mpsc::Sender<Result<Bytes, Failure>>,
) {
    loop {
        let mut text = String::new();
        let (piece, is_last) = match rows.next().await {
            Ok(Some(reports)) => {
                for report in &reports {
                    writer.push(&mut text, &application(report, true, &frame));
                }
                (Ok(Bytes::from(text)), false)
            }
            Ok(None) => {
                writer.finish(&mut text);
                (Ok(Bytes::from(text)), true)
            }
            // The reader sees an answer that is cut off, not one that looks whole.
            Err(failure) => (Err(failure), true),
        };
        let sent = timeout(STALL_TIME, pages.send(piece)).await;
        if !matches!(sent, Ok(Ok(()))) || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_types::WallMillis;

    #[test]
    fn every_parameter_of_the_documentation() {
        let query = Query::parse(
            "state=running&states=FAILED,finished&finalStatus=succeeded&user=alice&queue=root.q\
             &startedTimeBegin=1&startedTimeEnd=2&finishedTimeBegin=3&applicationTypes=SPARK,YARN\
             &applicationTags=a,b&name=word%20count",
        )
        .unwrap();
        let filter = filter(&query).unwrap();
        assert_eq!(filter.states.len(), 3);
        assert_eq!(filter.final_status, Some(FinalStatus::Succeeded));
        assert_eq!(filter.users.first().unwrap().as_str(), "alice");
        assert!(filter.queues.contains("q"));
        assert_eq!(filter.submitted, Some((WallMillis(1), WallMillis(2))));
        assert_eq!(filter.finished, Some((WallMillis(3), WallMillis(u64::MAX))));
        assert_eq!((filter.types.len(), filter.tags.len()), (2, 2));
        assert_eq!(filter.name.as_deref(), Some("word count"));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for raw in [
            "state=BUSY",
            "states=RUNNING,BUSY",
            "finalStatus=GOOD",
            "startedTimeBegin=x",
            "startedTimeBegin=3&startedTimeEnd=2",
            "user=a/b",
        ] {
            assert!(filter(&Query::parse(raw).unwrap()).is_err(), "{raw}");
        }
    }
}
