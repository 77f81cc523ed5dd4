//! One command for several applications: each is tried, whatever becomes of the others.

use std::future::Future;

use futures::StreamExt;

use crate::cluster::about;
use crate::failure::Failure;
use crate::output;

/// Asked for at the same time.
const AT_ONCE: usize = 64;

/// What `work` brought of each id, in their order, and the first failure; the others are said here.
pub(crate) async fn each<'a, T, F>(
    ids: &'a [String],
    work: impl Fn(&'a str) -> F,
) -> (Vec<T>, Option<Failure>)
where
    F: Future<Output = Result<T, Failure>>,
{
    let works = ids.iter().map(|id| {
        let done = work(id);
        async move { done.await.map_err(|failure| about(failure, id)) }
    });
    let mut works = futures::stream::iter(works).buffered(AT_ONCE);
    let (mut found, mut first) = (Vec::with_capacity(ids.len()), None);
    while let Some(result) = works.next().await {
        match result {
            Ok(value) => found.push(value),
            Err(failure) if first.is_none() => first = Some(failure),
            Err(failure) => output::error(&failure),
        }
    }
    (found, first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[tokio::test]
    async fn all_are_tried_in_order() {
        let ids = ["a", "bad", "b", "worse", "c"].map(ToOwned::to_owned);
        let (found, first) = each(&ids, async |id| match id {
            "bad" | "worse" => Err(Failure::new(Kind::NotFound, "no such application")),
            id => Ok(id.to_owned()),
        })
        .await;
        assert_eq!(found, ["a", "b", "c"]);
        let first = first.unwrap();
        assert_eq!(
            (first.kind, first.message.as_str()),
            (Kind::NotFound, "bad: no such application")
        );
    }
}
