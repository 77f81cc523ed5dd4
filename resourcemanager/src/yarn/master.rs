//! ApplicationMasterProtocol, the scheduler's door (8030): masters register, ask and say farewell.
//!
//! Only an AMRM token proves a master. [`mailbox`] is the protocol, [`asks`] what is wanted, both
//! without I/O; [`requests`] and [`answers`] are the wire; [`door`] puts them together; [`prepare`]
//! is what a master finds when it is started.

mod answers;
mod asks;
mod door;
mod mailbox;
pub(crate) mod prepare;
mod requests;
mod session;

pub(crate) use door::{MasterDoorman, MasterService};
