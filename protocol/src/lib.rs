//! What the agent and the wrapper must agree on. No I/O, no async, no unsafe.
//!
//! # Layout, in the order of the flow
//!
//! * [`mod@reference`]: `{{name.key}}`, ZenML's grammar for a whole string.
//! * [`template`]: text with references embedded in it, and their filters.
//! * [`name`]: what may be a secret's name on the socket.
//! * [`level`]: the three validation levels of a check.
//! * [`message`]: requests and replies on the socket.
//! * [`code`]: the stable error codes and their HTTP status.
//! * [`value`]: a secret value: wiped when dropped, printed by nothing.
//! * [`json`]: JSON text that holds secret values, written into a wiped buffer.
//! * [`units`]: durations and sizes as people write them.
//! * [`settings`]: the tables of `keyside.toml` that the wrapper reads too.
//! * [`lines`]: where in a text something stands, for the messages of both.
#![forbid(unsafe_code)]

pub mod code;
pub mod json;
pub mod level;
pub mod lines;
pub mod message;
pub mod name;
pub mod reference;
pub mod settings;
pub mod template;
pub mod units;
pub mod value;

/// The value of the `Keyside-Protocol` header: the version of the socket's language.
pub const PROTOCOL_VERSION: &str = "1";
