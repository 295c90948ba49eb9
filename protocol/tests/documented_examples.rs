//! The tables of `docs/references.md`, row by row.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::path::Path;

use keyside_protocol::reference::{Reference, ReferenceError};
use keyside_protocol::template::Template;
use keyside_protocol::value::SecretValue;

/// Returns the code spans of each cell of each row of the tables under `header`.
fn rows(header: &str) -> Vec<Vec<Vec<String>>> {
    // A `|` in a cell is written `\|`; this stands in for it while the cells are cut apart.
    const BAR: &str = "\u{fffc}";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/references.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| *line != header)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let line = line.replace("\\|", BAR);
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.split('`').skip(1).step_by(2).map(|span| span.replace(BAR, "|")).collect()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table under {header:?}");
    rows
}

fn render(template: &str) -> String {
    let (user, password) = (SecretValue::copy_of(b"u"), SecretValue::copy_of(b"p@ss"));
    let value_of = |reference: &Reference| if reference.key() == "password" { &password } else { &user };
    let rendered = Template::parse(template).unwrap().render(value_of).unwrap();
    String::from_utf8(rendered.expose().to_vec()).unwrap()
}

#[test]
fn documented_references_have_the_documented_parts() {
    for row in rows("| String | Name | Key |") {
        let reference = Reference::parse(&row[0][0]).unwrap();
        assert_eq!((reference.name(), reference.key()), (row[1][0].as_str(), row[2][0].as_str()));
    }
}

#[test]
fn documented_plain_texts_are_no_references() {
    for row in rows("| String | Why it is no reference |") {
        for text in &row[0] {
            // The one row that says "and a newline".
            let text = if text == "{{db.key}}" { "{{db.key}}\n" } else { text };
            assert_eq!(Reference::parse(text), Err(ReferenceError::NotAReference), "{text:?}");
        }
    }
}

#[test]
fn documented_differences_from_zenml_have_errors_of_their_own() {
    let expected = [ReferenceError::EmptyName, ReferenceError::NestedBraces];
    let rows = rows("| String | What ZenML makes of it | What Keyside says |");
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(Reference::parse(&row[0][0]), Err(expected));
    }
}

#[test]
fn documented_templates_give_the_documented_results() {
    for row in rows("| Template | Result |") {
        assert_eq!(render(&row[0][0]), row[1][0], "{:?}", row[0][0]);
    }
    for row in rows("| Written | Gives |") {
        // "the value" stands outside the code spans.
        let expected = match row[0][0].as_str() {
            "{{a.b}}" => "u",
            r"\\{{a.b}}" => r"\u",
            _ => &row[1][0],
        };
        assert_eq!(render(&row[0][0]), expected);
    }
}

#[test]
fn documented_mistakes_are_errors() {
    for row in rows("| Template | What is wrong |") {
        for template in &row[0] {
            Template::parse(template).expect_err(template);
        }
    }
}
