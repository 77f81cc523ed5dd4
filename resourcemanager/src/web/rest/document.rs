//! The documents of this door: shared with the node agent's.

pub(crate) use bobbin_service::http::document::*;
