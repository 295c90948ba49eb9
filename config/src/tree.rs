//! TOML text as a tree in which everything knows its place.

use std::ops::Range;

use keyside_protocol::lines::Lines;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistake::Place;

/// A value and where it stands.
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// A value as written.
pub(crate) enum Node {
    Text(String),
    /// Saturated where the text has more digits.
    Integer(i128),
    Float(f64),
    Switch(bool),
    Date,
    List(Vec<Placed>),
    Table(Vec<Entry>),
}

/// One key of a table.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Where the key itself stands.
    pub(crate) place: Place,
    pub(crate) value: Placed,
}

impl Node {
    /// Names what it is, with its article, for "must be X, not Y".
    pub(crate) fn described(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Switch(_) => "a boolean",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Something that is no TOML, or a key that stands twice.
pub(crate) struct SyntaxMistake {
    pub(crate) place: Place,
    /// Never holds text from the document but the name of a key.
    pub(crate) what: String,
    /// A key that stands twice: the rest of the document is still sound.
    pub(crate) duplicate: bool,
}

/// Parses a document; with mistakes, the tree holds what could be read.
pub(crate) fn parse(text: &str) -> (Vec<Entry>, Vec<SyntaxMistake>) {
    let lines = Lines::of(text);
    let place = |offset: usize| {
        let (line, column) = lines.line_and_column(offset);
        Place::File { line, column }
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    let mistakes = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            // Only the parser's own fixed sentences: its Display would show the line.
            let duplicate = error.message().starts_with("duplicate key");
            let what = match text.get(span.clone()) {
                Some(key) if duplicate => format!("duplicate key `{}`; keep one of them", crate::mistake::shown(key)),
                _ => format!("this is not TOML: {}", error.message()),
            };
            SyntaxMistake { place: place(span.start), what, duplicate }
        })
        .collect();
    (entries(root.get_ref(), &|span| place(span.start)), mistakes)
}

/// Parses one TOML value, as it stands behind a `=`; everything in it gets the same place. `None` when it is none.
pub(crate) fn parse_value(text: &str, place: &Place) -> Option<Placed> {
    let document = format!("value = {text}");
    let root = DeTable::parse(&document).ok()?;
    let table = root.get_ref();
    // A line break in the text could have added further keys.
    if table.len() != 1 {
        return None;
    }
    let value = table.values().next()?;
    Some(placed(value, &|_| place.clone()))
}

fn entries(table: &DeTable<'_>, place_of: &dyn Fn(Range<usize>) -> Place) -> Vec<Entry> {
    table
        .iter()
        .map(|(key, value)| Entry {
            name: key.get_ref().to_string(),
            place: place_of(key.span()),
            value: placed(value, place_of),
        })
        .collect()
}

fn placed(value: &Spanned<DeValue<'_>>, place_of: &dyn Fn(Range<usize>) -> Place) -> Placed {
    let node = match value.get_ref() {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let beyond = if integer.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Node::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(beyond))
        }
        DeValue::Float(float) => Node::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(switch) => Node::Switch(*switch),
        DeValue::Datetime(_) => Node::Date,
        DeValue::Array(items) => Node::List(items.iter().map(|item| placed(item, place_of)).collect()),
        DeValue::Table(table) => Node::Table(entries(table, place_of)),
    };
    Placed { place: place_of(value.span()), node }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let (root, mistakes) = parse("# ü\n[cache]\n  ttl = \"5m\"\nä.b = 1\n");
        assert_eq!(mistakes.len(), 1, "a bare key is ASCII");
        assert_eq!(mistakes[0].place, Place::File { line: 4, column: 1 });
        let Node::Table(cache) = &root[0].value.node else { panic!("a table") };
        assert_eq!(root[0].place, Place::File { line: 2, column: 2 });
        assert_eq!(cache[0].place, Place::File { line: 3, column: 3 });
        assert_eq!(cache[0].value.place, Place::File { line: 3, column: 9 });
    }

    #[test]
    fn a_value_from_a_variable_is_one_value() {
        let place = Place::Variable("X".to_owned());
        assert!(matches!(parse_value("[1, 2]", &place).expect("a list").node, Node::List(items) if items.len() == 2));
        for wrong in ["", "1\nother = 2", "a, b", "\"open"] {
            assert!(parse_value(wrong, &place).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_integer_beyond_any_range_keeps_its_sign() {
        let place = Place::Variable("X".to_owned());
        let digits = "9".repeat(60);
        assert!(matches!(parse_value(&digits, &place).expect("a number").node, Node::Integer(i128::MAX)));
        assert!(matches!(parse_value(&format!("-{digits}"), &place).expect("one").node, Node::Integer(i128::MIN)));
    }
}
