//! Exit codes: what a caller may rely on.

/// The answer is no: a reference definitely fails, a secret is not there. Not used by `exec`.
pub const NO: u8 = 1;
/// Wrong usage. Not used by `exec`, whose wrong flags are [`FAILED`].
pub const USAGE: u8 = 2;
/// The agent, or a back-end behind it, cannot be reached. Not used by `exec`.
pub const UNAVAILABLE: u8 = 69;
/// The agent refuses the request. Not used by `exec`.
pub const REFUSED: u8 = 77;
/// The configuration, or a variable that is part of it, is wrong. Not used by `exec`.
pub const CONFIGURATION: u8 = 78;
/// `exec`: Keyside failed before the command ran. The command was not started.
pub const FAILED: u8 = 125;
/// `exec`: the command exists and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `exec`: the command was not found.
pub const NOT_FOUND: u8 = 127;
