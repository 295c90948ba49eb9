//! What the operator writes, checked: `keyside.toml`, `KEYSIDE_TABLE__KEY` variables and flags in, [`Settings`] out,
//! or every mistake at once with its place.
//!
//! # Layout, in the order of the flow
//!
//! * [`Environment`] and [`LoadRequest`]: what a load may look at, passed in.
//! * `file`: finds and reads a file within bounds, refuses one that others may write.
//! * `tree`: TOML text as a tree in which everything knows its place.
//! * `schema`: the one list of all tables and keys, with type and default.
//! * `check`: a tree against the schema; unknown, duplicate and wrong things become mistakes, the rest a layer.
//! * `variables`: the environment as such a tree.
//! * `written`: the layers merged by figment, as written.
//! * `meaning`: what the merged layers mean together.
//! * `sqlite_url`, `socket`, `accounts`: single kinds of values.
//! * `key_material`: secrets that a setting only points at.
//! * `zenml`: the store found from ZenML's own environment when no back-end is configured.
//! * [`settings`]: what comes out.
//! * `reference_page`, in tests alone: what each key means, and the tables of docs/configuration.md made of it.
#![forbid(unsafe_code)]

mod accounts;
mod backend;
mod check;
mod environment;
mod file;
mod key_material;
mod load;
mod meaning;
mod mistake;
#[cfg(test)]
mod reference_page;
mod schema;
pub mod settings;
mod socket;
mod sqlite_url;
mod suggest;
mod tree;
mod variables;
mod written;
mod zenml;

pub use environment::Environment;
pub use load::{LoadRequest, client_level, configured_socket, load};
pub use mistake::{ConfigError, Mistake};
pub use settings::Settings;
pub use zenml::active_stack;
