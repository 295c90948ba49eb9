//! Values in a dotenv file, with their lines: `[export] NAME=value`, bare, in single quotes (as it stands) or in double
//! quotes (backslash escapes); a quoted value may span lines; `#` after a blank begins a comment.

use super::{Found, SourceError};

/// Collects every value.
pub(super) fn strings(text: &str) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let head = rest[..end].trim();
        let start_line = line;
        if head.is_empty() || head.starts_with('#') {
            rest = rest.get(end + 1..).unwrap_or_default();
            line += 1;
            continue;
        }
        let wrong = |what| SourceError { line: start_line, column: 1, what };
        let head = head.strip_prefix("export ").unwrap_or(head);
        let Some((name, _)) = head.split_once('=') else {
            // `NAME` alone passes a variable through and holds no value.
            if head.chars().any(char::is_whitespace) {
                return Err(wrong("not a line of the form NAME=VALUE"));
            }
            rest = rest.get(end + 1..).unwrap_or_default();
            line += 1;
            continue;
        };
        let name = name.trim();
        if name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err(wrong("not a line of the form NAME=VALUE"));
        }
        let after = rest.find('=').map_or(rest.len(), |at| at + 1);
        let value_at = after + rest[after..].len() - rest[after..].trim_start_matches([' ', '\t']).len();
        let (value, used) = match rest[value_at..].chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let (value, length) =
                    quoted(&rest[value_at + 1..], quote).ok_or_else(|| wrong("a quote that is not closed"))?;
                (value, value_at + 1 + length)
            }
            _ => {
                let end = rest[value_at..].find('\n').map_or(rest.len(), |at| value_at + at);
                let raw = &rest[value_at..end];
                let raw = raw.find(" #").or_else(|| raw.find("\t#")).map_or(raw, |at| &raw[..at]);
                (raw.trim().to_owned(), end)
            }
        };
        found.push(Found { line: start_line, path: name.to_owned(), text: value, unquoted: false });
        let next = rest[used..].find('\n').map_or(rest.len(), |at| used + at + 1);
        line += rest[..next].matches('\n').count();
        rest = &rest[next..];
    }
    Ok(found)
}

/// Reads up to the closing `quote`; returns the value and the bytes used, the quote included.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Some((value, at + 1)),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$' | '`') => value.push(escaped),
                // Before anything else a backslash stands for itself.
                other => value.extend(['\\', other]),
            },
            _ => value.push(char),
        }
    }
    None
}
