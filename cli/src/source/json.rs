//! Strings in JSON, with their places. `serde_json` says whether it is JSON; a small scanner then says where.

use serde::de::IgnoredAny;

use super::path::Path;
use super::{Found, SourceError};

/// Collects every string value of a JSON document.
pub(super) fn strings(text: &str) -> Result<Vec<Found>, SourceError> {
    // The scanner below may take well-formedness for granted.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(SourceError { line: error.line(), column: error.column(), what: "not valid JSON" });
    }
    let mut found = Vec::new();
    let mut path = Path::default();
    let mut line = 1;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => line += 1,
            b'{' => path.enter_map(),
            b'[' => path.enter_list(),
            b'}' | b']' => {
                path.leave();
                path.value_done();
            }
            b'"' => {
                let end = end_of_string(bytes, at);
                let string: String = serde_json::from_str(&text[at..end]).unwrap_or_default();
                if path.wants_key() {
                    path.key(string);
                } else {
                    found.push(Found { line, path: path.to_string(), text: string, unquoted: false });
                    path.value_done();
                }
                at = end;
                continue;
            }
            b'0'..=b'9' | b'-' | b't' | b'f' | b'n' => {
                while at < bytes.len() && !matches!(bytes[at], b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                    at += 1;
                }
                path.value_done();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// Returns the index after the closing quote of the string that opens at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}
