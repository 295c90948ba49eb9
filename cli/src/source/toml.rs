//! Strings in TOML, with their places.

use toml::de::{DeTable, DeValue};

use super::{Found, SourceError};

/// Collects every string value of a TOML document, in the order of the text.
pub(super) fn strings(text: &str) -> Result<Vec<Found>, SourceError> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text[..text.floor_char_boundary(at)];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SourceError { line: line_at(text, at), column, what: "not valid TOML" }
    })?;
    let mut found = Vec::new();
    walk_table(table.get_ref(), "", text, &mut found);
    // Tables come in the order of their keys; people read from top to bottom.
    found.sort_by_key(|found| found.line);
    Ok(found)
}

fn walk_table(table: &DeTable<'_>, path: &str, text: &str, found: &mut Vec<Found>) {
    for (key, value) in table {
        let key = key.get_ref();
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let key = if bare { key.to_string() } else { format!("{key:?}") };
        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
        walk(value.get_ref(), value.span().start, &path, text, found);
    }
}

fn walk(value: &DeValue<'_>, at: usize, path: &str, text: &str, found: &mut Vec<Found>) {
    match value {
        DeValue::String(string) => {
            found.push(Found {
                line: line_at(text, at),
                path: path.to_owned(),
                text: string.to_string(),
                unquoted: false,
            });
        }
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item.get_ref(), item.span().start, &format!("{path}[{index}]"), text, found);
            }
        }
        DeValue::Table(table) => walk_table(table, path, text, found),
        _ => {}
    }
}

fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}
