//! What holds of every template: round trips, values as data, no input that stops the reader.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use keyside_protocol::reference::Reference;
use keyside_protocol::template::Template;
use keyside_protocol::value::SecretValue;
use proptest::prelude::*;

// The very functions that the fuzzer calls, so that a break shows here first.
#[allow(unreachable_pub, reason = "public where the fuzz targets use it")]
#[path = "../../fuzz/src/properties.rs"]
mod properties;

/// A piece of a template as it is written, and what it renders to when `{{a.b}}` and the like give `value`.
#[derive(Debug, Clone)]
enum Piece {
    Literal(String),
    /// With a brace before the backslashes, which makes a run of three with the two behind them when there is but one.
    Escaped {
        brace: &'static str,
        backslashes: usize,
    },
    Placeholder {
        backslashes: usize,
        text: &'static str,
    },
}

impl Piece {
    fn write(&self, template: &mut String) {
        match self {
            Self::Literal(text) => template.push_str(text),
            Self::Escaped { brace, backslashes } => {
                template.push_str(brace);
                template.push_str(&"\\".repeat(2 * backslashes + 1));
                template.push_str("{{");
            }
            Self::Placeholder { backslashes, text } => {
                template.push_str(&"\\".repeat(2 * backslashes));
                template.push_str(text);
            }
        }
    }

    fn render(&self, value: &[u8], rendered: &mut Vec<u8>) {
        match self {
            Self::Literal(text) => rendered.extend_from_slice(text.as_bytes()),
            Self::Escaped { brace, backslashes } => {
                rendered.extend_from_slice(brace.as_bytes());
                rendered.extend_from_slice("\\".repeat(*backslashes).as_bytes());
                rendered.extend_from_slice(b"{{");
            }
            Self::Placeholder { backslashes, .. } => {
                rendered.extend_from_slice("\\".repeat(*backslashes).as_bytes());
                rendered.extend_from_slice(value);
            }
        }
    }
}

/// A literal that neither begins nor ends with a backslash or an opening brace, so that its neighbours stay what they are.
fn literal() -> impl Strategy<Value = String> {
    "[ab}.$() \n\u{fc}|]([ab}.$() \n\u{fc}|]|\\\\[a}]|\\{[a }]){0,6}"
}

fn piece() -> impl Strategy<Value = Piece> {
    let written =
        proptest::sample::select(vec!["{{a.b}}", "{{ a.b }}", "{{\ta..b\n}}", "{{a|b.c.d}}", "{{\u{3000}é.\\}}"]);
    prop_oneof![
        literal().prop_map(Piece::Literal),
        (proptest::sample::select(vec!["", "{"]), 0..4usize)
            .prop_map(|(brace, backslashes)| Piece::Escaped { brace, backslashes }),
        (0..4usize, written).prop_map(|(backslashes, text)| Piece::Placeholder { backslashes, text }),
    ]
}

/// Values that would be read again by anything that expands what it has just put in.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::sample::select(vec!["{{x.y}}", "{{a.b}}", "${X}", "$(x)", "\\{{a.b}}", "\\\\", "", " \n", "{", "}}"])
            .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Texts in which most of what the grammar knows comes up often.
fn hostile_text() -> impl Strategy<Value = String> {
    let token = proptest::sample::select(vec![
        "{", "{{", "}", "}}", "\\", "\\\\", "a", "b", ".", "|", " ", "\n", "\t", "url", "json", "base64", "base64d",
        "a.b", "{{a.b}}", "\u{a0}", "\u{200b}", "\u{1c}", "ü", "\0",
    ]);
    prop_oneof![proptest::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat()), ".*"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_placeholder_is_replaced_once_and_a_value_is_data(
        pieces in proptest::collection::vec(piece(), 0..8),
        value in value(),
    ) {
        let (mut text, mut expected) = (String::new(), Vec::new());
        for piece in &pieces {
            piece.write(&mut text);
            piece.render(&value, &mut expected);
        }
        let template = Template::parse(&text).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        let value = SecretValue::new(value);
        let rendered = template.render(|_| &value).unwrap();
        prop_assert_eq!(rendered.expose(), expected, "{:?}", text);
        prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
    }

    #[test]
    fn literal_text_parses_to_itself(text in ".*", backslashes in "\\\\{0,3}") {
        let text = format!("{text}{backslashes}").replace("{{", "{");
        prop_assume!(!text.contains("{{"));
        let template = Template::parse(&text).unwrap();
        prop_assert!(template.is_literal());
        prop_assert_eq!(template.to_string(), text.clone());
        let never = |_: &Reference| -> &SecretValue { unreachable!() };
        let rendered = template.render(never).unwrap();
        prop_assert_eq!(rendered.expose(), text.as_bytes());
    }

    #[test]
    fn the_template_properties_hold_for_any_text(text in hostile_text()) {
        properties::template(text.as_bytes());
    }

    #[test]
    fn the_reference_properties_hold_for_any_text(text in hostile_text()) {
        properties::reference(text.as_bytes());
    }

    #[test]
    fn any_bytes_at_all_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        properties::template(&bytes);
        properties::reference(&bytes);
    }

    #[test]
    fn base64_there_and_back_is_the_value(value in value()) {
        let value = SecretValue::new(value);
        let rendered = Template::parse("{{a.b | base64 | base64d}}").unwrap().render(|_| &value).unwrap();
        prop_assert_eq!(rendered.expose(), value.expose());
    }
}
