//! What the wrapper says: complaints and notes on stderr, results on stdout, failures as JSON in a file.

use std::io::Write as _;
use std::path::Path;

use keyside_protocol::message::Failure;

use crate::sys;

/// One thing that is wrong, and what to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Lower case, no stop; no value.
    pub(crate) what: String,
    /// What to try.
    pub(crate) hint: Option<String>,
}

impl Complaint {
    /// A complaint with a hint.
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()) }
    }
}

/// Why the command was not started: the exit code and everything that is wrong, all at once.
#[derive(Debug)]
pub(crate) struct Stop {
    /// One of [`crate::exit_code`].
    pub(crate) code: u8,
    /// At least one.
    pub(crate) complaints: Vec<Complaint>,
}

impl From<Complaint> for Stop {
    fn from(complaint: Complaint) -> Self {
        Self { code: crate::exit_code::FAILED, complaints: vec![complaint] }
    }
}

impl From<Vec<Complaint>> for Stop {
    fn from(complaints: Vec<Complaint>) -> Self {
        Self { code: crate::exit_code::FAILED, complaints }
    }
}

/// Returns `text` with control characters escaped: a name from outside must not steer a terminal or fake a line.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    safe
}

/// Says what is wrong on stderr. A stderr that cannot be written changes nothing: the exit code still speaks.
pub(crate) fn complain(complaints: &[Complaint]) {
    let mut text = String::new();
    for Complaint { what, hint } in complaints {
        text.push_str("keyside: ");
        text.push_str(&printable(what));
        text.push('\n');
        if let Some(hint) = hint {
            text.push_str("hint: ");
            text.push_str(&printable(hint));
            text.push('\n');
        }
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Says one line on stderr that is no failure.
pub(crate) fn note(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "keyside: {}", printable(what));
}

/// Writes a result to stdout, whole.
pub(crate) fn print(text: &str) -> Result<(), Complaint> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        Complaint::new(
            format!("cannot write to stdout: {}", error.kind()),
            "whoever reads it has gone, or the disk it leads to is full; let it lead elsewhere",
        )
    })
}

/// Writes `--report FILE`: a JSON array of failures, empty when there was none.
pub(crate) fn write_failures(path: &Path, failures: &[Failure]) -> Result<(), Complaint> {
    let mut json = serde_json::to_vec_pretty(failures).unwrap_or_else(|_| b"[]".to_vec());
    json.push(b'\n');
    let _limit = sys::FileSizeFails::begin();
    std::fs::write(path, json).map_err(|error| {
        Complaint::new(
            format!("cannot write the report {}: {}", path.display(), error.kind()),
            "name a file in a directory that exists and may be written",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nkeyside: ok ü"), "a\\u{1b}[2J\\nkeyside: ok ü");
    }
}
