//! Strings in YAML, with their places, from the parser's events: every document of the file, aliases not expanded (a
//! string behind one is reported where it is written), so that no input can grow.

use keyside_protocol::reference::Reference;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, StructureStyle};

use super::path::Path;
use super::{Found, SourceError};

/// Collects every string value of a YAML stream.
///
/// `{{name.key}}` without quotes is no string in YAML but a mapping in a mapping; it is collected too, quotes missing,
/// since nobody writes that on purpose: see [`Found::unquoted`].
pub(super) fn strings(text: &str) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::new();
    let mut path = Path::default();
    // Nodes inside a key that is itself a collection: they have no path of their own.
    let mut key_depth = 0_usize;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| SourceError {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            what: "not valid YAML",
        })?;
        let line = span.start.line();
        match event {
            Event::Scalar(value, style, ..) if key_depth == 0 => {
                if path.wants_key() {
                    path.key(value.into_owned());
                } else {
                    if style != ScalarStyle::Plain || is_text(&value) {
                        found.push(Found { line, path: path.to_string(), text: value.into_owned(), unquoted: false });
                    }
                    path.value_done();
                }
            }
            Event::Alias(_) if key_depth == 0 => {
                if path.wants_key() {
                    path.key("*".into())
                } else {
                    path.value_done()
                }
            }
            Event::MappingStart(style, ..) => {
                if key_depth > 0 || path.wants_key() {
                    key_depth += 1;
                    continue;
                }
                if style == StructureStyle::Flow
                    && let Some(reference) = span.start.byte_offset().and_then(|at| unquoted(&text[at..]))
                {
                    found.push(Found { line, path: path.to_string(), text: reference.to_owned(), unquoted: true });
                }
                path.enter_map();
            }
            Event::SequenceStart(..) => {
                if key_depth > 0 || path.wants_key() {
                    key_depth += 1;
                    continue;
                }
                path.enter_list();
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if key_depth > 0 {
                    key_depth -= 1;
                    if key_depth == 0 {
                        path.key("?".into());
                    }
                    continue;
                }
                path.leave();
                path.value_done();
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Plain scalars that YAML reads as numbers, booleans or null cannot hold a brace: no need to tell them apart.
fn is_text(value: &str) -> bool {
    value.contains("{{")
}

/// Returns the reference that `rest` begins with, when it stands there without quotes.
fn unquoted(rest: &str) -> Option<&str> {
    let line = rest.lines().next()?;
    let end = line.strip_prefix("{{").and_then(|inside| inside.find("}}")).map(|at| at + 4)?;
    Reference::parse(&line[..end]).is_ok().then(|| &line[..end])
}
