//! One file a command.

pub(crate) mod app;
pub(crate) mod client_config;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod down;
mod follow;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod map;
pub(crate) mod node;
mod several;
pub(crate) mod submit;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod wait;
