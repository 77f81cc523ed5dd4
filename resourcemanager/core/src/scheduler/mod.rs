//! Decides which demand gets room on which node, behind one function: [`plan`].

pub(crate) mod explain;
mod fit_bands;
mod fit_tree;
mod node_index;
mod plan;
mod waiting;

pub(crate) use fit_bands::FitBands;
pub(crate) use fit_tree::Rooms;
pub(crate) use node_index::{NodeIndex, room, smaller};
pub(crate) use plan::{ClusterView, PlannedGrant, Trigger, node_for, plan};
pub(crate) use waiting::{DemandKey, Turn, Waiting};
