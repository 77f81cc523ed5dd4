//! Limits on what a client can send, shared by every door so that a refusal is the same at each.
//!
//! They are here and not in one core because the command line refuses early with the same numbers.

/// Bytes of an application's name.
pub const APPLICATION_NAME_BYTES_MAX: usize = 1024;
/// Words of a program's argument list.
pub const ARGUMENTS_MAX: usize = 10_000;
/// Bytes of a program's argument list, all words together. Linux's own limit is about 2 MiB.
pub const ARGUMENTS_BYTES_MAX: usize = 1 << 20;
/// Bytes of one argument. Source: `MAX_ARG_STRLEN`, linux/binfmts.h.
pub const ARGUMENT_BYTES_MAX: usize = 128 << 10;
/// Variables in a container's environment.
pub const ENVIRONMENT_MAX: usize = 1_000;
/// Bytes of a container's environment, names and values together.
pub const ENVIRONMENT_BYTES_MAX: usize = 512 << 10;
/// Local resources (files and archives) of a container.
pub const LOCAL_RESOURCES_MAX: usize = 1_000;
/// Tags of an application. Source: `yarn.resourcemanager.application.max-tags`.
pub const TAGS_MAX: usize = 10;
/// Bytes of a tag. Source: `yarn.resourcemanager.application.max-tag.length`.
pub const TAG_BYTES_MAX: usize = 100;
/// Application settings (`--conf`).
pub const SETTINGS_MAX: usize = 1_000;
/// Most attempts a submission may ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// Different outstanding asks of one application (keys, not containers).
pub const ASKS_PER_APPLICATION_MAX: usize = 1_000;
/// Containers in one ask.
pub const CONTAINERS_PER_ASK_MAX: u32 = 1_000_000;
/// Bytes of one gRPC message.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of diagnostics kept for an application, an attempt or a container.
pub const DIAGNOSTICS_BYTES_MAX: usize = 64 << 10;
/// Bytes in a chunk of an upload or of a log.
pub const CHUNK_BYTES: usize = 256 << 10;
