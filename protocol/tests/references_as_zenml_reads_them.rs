//! References against what ZenML's own parser makes of them: recorded rows, generated rows, and the expression itself.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::path::Path;

use keyside_protocol::reference::{Reference, ReferenceError};
use proptest::prelude::*;
use serde_json::Value;

/// Asserts that Keyside reads `text` as ZenML does, but for the two differences that are promised.
#[track_caller]
fn agrees(text: &str, zenml: Option<(&str, &str)>) {
    let is_doubled = |part: &str| part.contains("{{") || part.contains("}}");
    let ours = Reference::parse(text);
    let ours = ours.as_ref().map(|reference| (reference.name(), reference.key()));
    let expected = match zenml {
        None => Err(&ReferenceError::NotAReference),
        Some(("", _)) => Err(&ReferenceError::EmptyName),
        Some((name, key)) if is_doubled(name) || is_doubled(key) => Err(&ReferenceError::NestedBraces),
        Some(parts) => Ok(parts),
    };
    assert_eq!(ours, expected, "{text:?}");
}

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn name_and_key(parsed: &Value) -> Option<(&str, &str)> {
    (!parsed.is_null()).then(|| (parsed[0].as_str().unwrap(), parsed[1].as_str().unwrap()))
}

#[test]
fn every_row_recorded_from_zenml_reads_the_same() {
    let fixture = fixture("reference_parsing.json");
    let rows = fixture.as_array().unwrap();
    assert!(rows.len() >= 33);
    for row in rows {
        let parsed = name_and_key(&row["parsed"]);
        assert_eq!(parsed.is_some(), row["is_reference"].as_bool().unwrap());
        agrees(row["input"].as_str().unwrap(), parsed);
    }
}

#[test]
fn every_random_row_made_with_python_reads_the_same() {
    let fixture = fixture("reference_vectors.json");
    let rows = fixture["rows"].as_array().unwrap();
    assert!(rows.len() >= 2000);
    for row in rows {
        agrees(row[0].as_str().unwrap(), name_and_key(&row[1]));
    }
}

/// One part of an expression: what it matches, and whether it repeats, and where it must not be empty.
#[derive(Clone, Copy)]
enum Part {
    One(char),
    Blanks,
    NonBlanks,
}

/// Python's `\s`, from the list in its documentation rather than from the code under test.
fn is_space(character: char) -> bool {
    let code = u32::from(character);
    [0x20, 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000].contains(&code)
        || (0x09..=0x0d).contains(&code)
        || (0x1c..=0x1f).contains(&code)
        || (0x2000..=0x200a).contains(&code)
}

/// Matches a whole text by trying every way to share it out among the parts.
fn matches(parts: &[Part], text: &[char]) -> bool {
    let Some((part, others)) = parts.split_first() else { return text.is_empty() };
    let (least, fits): (usize, &dyn Fn(char) -> bool) = match part {
        Part::One(wanted) => return text.first() == Some(wanted) && matches(others, &text[1..]),
        Part::Blanks => (0, &is_space),
        Part::NonBlanks => (1, &|character| !is_space(character)),
    };
    let most = text.iter().take_while(|&&character| fits(character)).count();
    (least..=most).any(|taken| matches(others, &text[taken..]))
}

/// ZenML's parser, step by step: the expression, the two cuts, the split, the strips.
fn zenml(text: &str) -> Option<(String, String)> {
    use Part::{Blanks, NonBlanks, One};
    let expression = [One('{'), One('{'), Blanks, NonBlanks, One('.'), NonBlanks, Blanks, One('}'), One('}')];
    let characters: Vec<char> = text.chars().collect();
    if !matches(&expression, &characters) {
        return None;
    }
    let inner: String = characters[2..characters.len() - 2].iter().collect();
    let (name, key) = inner.split_once('.').unwrap();
    Some((name.trim_matches(is_space).to_owned(), key.trim_matches(is_space).to_owned()))
}

/// Texts that come near to being references.
fn near_reference() -> impl Strategy<Value = String> {
    let alphabet = || proptest::sample::select("{}.ab\t\n \u{a0}\u{1c}\u{200b}|\\".chars().collect::<Vec<_>>());
    let body = || proptest::collection::vec(alphabet(), 0..12).prop_map(String::from_iter);
    prop_oneof![
        body(),
        body().prop_map(|body| format!("{{{{{body}}}}}")),
        (body(), body()).prop_map(|(name, key)| format!("{{{{{name}.{key}}}}}")),
        ("[ \t\u{1c}]{0,2}", "[ab{}.|]{0,4}", "[ab{}.|]{0,4}", "[ \n\u{2003}]{0,2}")
            .prop_map(|(before, name, key, after)| format!("{{{{{before}{name}.{key}{after}}}}}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_predicate_is_the_expression(text in near_reference()) {
        let expected = zenml(&text);
        agrees(&text, expected.as_ref().map(|(name, key)| (name.as_str(), key.as_str())));
    }

    #[test]
    fn what_is_printed_parses_to_the_same_reference(text in near_reference()) {
        if let Ok(reference) = Reference::parse_lenient(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
            prop_assert_eq!(Reference::parse_lenient(&reference.to_string()), Ok(reference));
        }
    }

    #[test]
    fn a_bare_reference_is_the_braced_one_without_its_braces(bare in "[ab.|\\\\ \t\u{200b}\u{a0}é-]{0,10}") {
        let trimmed = bare.trim_matches(is_space) == bare;
        let expected = if trimmed { Reference::parse(&format!("{{{{{bare}}}}}")) } else { Err(ReferenceError::NotAReference) };
        prop_assert_eq!(Reference::parse_lenient(&bare), expected);
    }

    #[test]
    fn any_text_at_all_gets_an_answer(text in ".*") {
        let _ = Reference::parse(&text);
        let _ = Reference::parse_lenient(&text);
    }
}

#[test]
fn a_megabyte_of_anything_is_read() {
    const MEGABYTE: usize = 1024 * 1024;
    for unit in ["{", "}", ".", " ", "{{", "a.", "{{a.", "\u{2003}"] {
        let hostile = unit.repeat(MEGABYTE / unit.len());
        let _ = Reference::parse(&hostile);
        let _ = Reference::parse_lenient(&hostile);
        let _ = Reference::parse(&format!("{{{{{hostile}}}}}"));
    }
    let long = format!("{{{{{}.{}}}}}", "a".repeat(MEGABYTE), "b".repeat(MEGABYTE));
    assert_eq!(Reference::parse(&long).unwrap().key().len(), MEGABYTE);
}
