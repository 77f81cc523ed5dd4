//! `bobbin node list|status`.

use bobbin_proto::v1;

use crate::args::{NodeListArgs, NodeStatusArgs};
use crate::cluster::Cluster;
use crate::exit_codes::DONE;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{self, Node};
use crate::parse;

pub(crate) async fn list(args: NodeListArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let list: Vec<_> = cluster.nodes().await?.into_iter().map(Node::from).collect();
    output::nodes(&list, args.format.output)?;
    Ok(DONE)
}

pub(crate) async fn status(args: &NodeStatusArgs, rm: Option<&str>) -> Outcome {
    let cluster = Cluster::connect(rm).await?;
    let node = find(cluster.nodes().await?, &args.node)?;
    output::node(&Node::from(node), args.format.output)?;
    Ok(DONE)
}

/// The node of this id, or the only one whose id begins or ends so.
fn find(nodes: Vec<v1::NodeReport>, text: &str) -> Result<v1::NodeReport, Failure> {
    let mut partly = Vec::new();
    for node in nodes {
        if node.id == text {
            return Ok(node);
        }
        if !text.is_empty() && (node.id.starts_with(text) || node.id.ends_with(text)) {
            partly.push(node);
        }
    }
    let shown = parse::shown(text);
    match (partly.pop(), partly.len()) {
        (Some(node), 0) => Ok(node),
        (Some(_), others) => Err(Failure::usage(format!(
            "'{shown}' may be any of {} nodes",
            others + 1
        ))
        .try_this("write more of its id: `bobbin node list`")),
        (None, _) => Err(
            Failure::new(Kind::NotFound, format!("there is no node '{shown}'"))
                .try_this("`bobbin node list` shows what there is"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<v1::NodeReport> {
        ["a:1", "a:21", "b:3"]
            .map(|id| v1::NodeReport {
                id: id.to_owned(),
                ..v1::NodeReport::default()
            })
            .into()
    }

    #[test]
    fn whole_ids_and_unique_parts() {
        for (text, id) in [("a:1", "a:1"), ("b", "b:3"), (":3", "b:3"), ("21", "a:21")] {
            assert_eq!(find(nodes(), text).unwrap().id, id, "{text}");
        }
        for (text, kind) in [
            ("a", Kind::Usage),
            ("1", Kind::Usage),
            ("c", Kind::NotFound),
            ("", Kind::NotFound),
        ] {
            assert_eq!(find(nodes(), text).unwrap_err().kind, kind, "{text}");
        }
    }
}
