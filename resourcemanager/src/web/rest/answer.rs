//! How this door answers: shared with the node agent's.

pub(crate) use bobbin_service::http::answer::*;
