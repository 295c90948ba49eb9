//! The layout on the file that the real ZenML wrote, on files by hand, and on broken ones.

use std::collections::BTreeMap;

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::{SecretValue, SecretValues};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Written by ZenML 0.43.1.
const REAL: &str = include_str!("../../../../tests/fixtures/zenml/local_secrets_manager_secrets.yaml");
const CASES: &str = include_str!("../../../../tests/fixtures/zenml/cases.json");

const MOST: u64 = 1 << 20;

fn values(pairs: &[(&str, &str)]) -> SecretValues {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value.as_bytes()))).collect()
}

fn shown(values: &SecretValues) -> BTreeMap<String, String> {
    let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

fn parse(text: &str) -> Document<'_> {
    Document::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn decode(text: &str, name: &str) -> Result<Pairs, DecodeError> {
    parse(text).get(name).expect("the name").and_then(|entry| entry.decode(MOST))
}

fn text(buffer: &SecretBuffer) -> String {
    String::from_utf8(buffer.expose().to_vec()).expect("text")
}

fn lines(name: &str, pairs: &[(&str, &str)]) -> SecretBuffer {
    encode_entry(name, &values(pairs), Some(ARBITRARY_SCHEMA)).expect("text")
}

#[test]
fn everything_that_the_real_library_wrote_is_read_byte_for_byte() {
    let cases: Value = serde_json::from_str(CASES).expect("JSON");
    let document = parse(REAL);
    let mut names: Vec<&str> = document.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 18);
    for name in names {
        let Ok(pairs) = decode(REAL, name) else { panic!("{name}") };
        let expected: BTreeMap<String, String> = match name {
            "aws1" => [("aws_access_key_id", "AKIA"), ("aws_secret_access_key", "sek")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            _ => serde_json::from_value(cases["public"][name].clone()).expect("texts"),
        };
        let mut expected = expected;
        if name == "simple" {
            // It was updated with the component's own command.
            expected.insert("username".to_owned(), "admin2".to_owned());
        }
        assert_eq!(shown(&pairs.values), expected, "{name}");
        assert_eq!(pairs.schema.as_deref(), Some(if name == "aws1" { "aws" } else { "arbitrary" }));
        let keys: Vec<String> = expected.keys().cloned().collect();
        let Some(Ok(entry)) = document.get(name) else { panic!("{name}") };
        assert_eq!(entry.keys(), keys, "{name}");
    }
}

#[test]
fn what_the_real_library_wrote_is_written_byte_for_byte() {
    let mut document = "{}\n".to_owned();
    let mut names: Vec<String> = parse(REAL).iter().map(|(name, _)| name.to_owned()).collect();
    // Any order but that of the file.
    names.sort_unstable_by_key(|name| name.bytes().rev().collect::<Vec<_>>());
    for name in names {
        let Ok(pairs) = decode(REAL, &name) else { panic!("{name}") };
        let lines = encode_entry(&name, &pairs.values, pairs.schema.as_deref()).expect("text");
        document = text(&parse(&document).with(None, Some((&name, &lines))).expect("a change"));
    }
    assert!(document == REAL, "{document}");
}

#[test]
fn a_change_leaves_every_other_byte_as_it_stands() {
    let foreign = "# by hand\n---\nzz:   # last, and first\n    k:   'dg=='\n\nb: [not, a, map]\nc:\n  k: !!binary x\n  \
                   zenml_schema_name: aws\n# about d\nd: {k: dg==}\n1: {k: dg==}\n";
    let new = lines("bb", &[("k", "v")]);
    let change =
        |removed, added: Option<(&str, &SecretBuffer)>| text(&parse(foreign).with(removed, added).expect("sound"));
    let bb = "bb:\n  k: dg==\n  zenml_schema_name: arbitrary\n";
    let (head, rest) = foreign.split_at(foreign.find("zz:").expect("there"));
    assert_eq!(change(None, Some(("bb", &new))), format!("{head}{bb}{rest}"));
    let d = foreign.find("d: {").expect("there");
    assert_eq!(change(Some("d"), None), format!("{}{}", &foreign[..d], "1: {k: dg==}\n"));
    let replaced = lines("d", &[]);
    let expected = format!("{}d:\n  zenml_schema_name: arbitrary\n1: {{k: dg==}}\n", &foreign[..d]);
    assert_eq!(change(Some("d"), Some(("d", &replaced))), expected);
    assert!(change(Some("d"), Some(("bb", &new))).contains(bb), "renamed");
}

#[test]
fn the_last_secret_leaves_what_zenml_writes_for_none() {
    let one = "db:\n  k: dg==\n";
    assert_eq!(text(&parse(one).with(Some("db"), None).expect("sound")), "{}\n");
    let db = lines("db", &[("k", "v"), ("empty", ""), ("zz", "1")]);
    let expected = "db:\n  empty: ''\n  k: dg==\n  zenml_schema_name: arbitrary\n  zz: MQ==\n";
    for none in ["{}\n", "{}", "{ }\n"] {
        assert_eq!(text(&parse(none).with(None, Some(("db", &db))).expect("sound")), expected);
    }
    assert_eq!(
        text(&parse("# note\n{}\n").with(None, Some(("db", &db))).expect("sound")),
        format!("# note\n{expected}")
    );
    assert_eq!(text(&Document::empty().with(None, Some(("db", &db))).expect("sound")), expected);
    assert_eq!(text(&encode_entry("db", &values(&[]), None).expect("text")), "db: {}\n");
}

#[test]
fn odd_names_and_keys_are_written_so_that_they_are_read_again() {
    let long = "x".repeat(200);
    let unicode = "ключ ".repeat(40);
    for name in
        ["1", "true", "null", " a ", "a: b", "#", "'", "\"", "---", "a\nb", "ключ", "🔐", "\u{2028}", &long, &unicode]
    {
        let pairs: &[(&str, &str)] = &[(name, "v"), ("zzzz", ""), ("1", "1")];
        let lines = lines(name, pairs);
        let document =
            text(&parse(REAL).with(None, Some((name, &lines))).unwrap_or_else(|error| panic!("{name}: {error}")));
        let Ok(read) = decode(&document, name) else { panic!("{name}") };
        assert_eq!(shown(&read.values), shown(&values(pairs)), "{name}");
        assert!(text(&parse(&document).with(Some(name), None).expect("sound")) == REAL, "{name}");
    }
}

#[test]
fn a_secret_that_cannot_be_served_leaves_the_others_alone() {
    let check = |secret: &str, expected: DecodeError| {
        let text = format!("good:\n  k: dg==\nbad:{secret}\nlater:\n  k: dg==\n");
        assert_eq!(decode(&text, "bad").err(), Some(expected), "{secret}");
        for name in ["good", "later"] {
            assert!(decode(&text, name).is_ok(), "{name} beside {secret}");
        }
    };
    let k = || "k".to_owned();
    for secret in ["", " text", " 1", " [a]", " ~", " dg=="] {
        check(secret, DecodeError::NotAMap);
    }
    for value in ["dg", "d===", "dg==dg==", "*", "a b", "'dg== '", "d\u{e9}"] {
        if value != "*" {
            check(&format!("\n  k: {value}"), DecodeError::NotBase64(k()));
        }
    }
    for value in ["", "~", "1234", "true", "[a]", "{a: b}", "1.5", "!!binary dg==", "!!int '12'"] {
        check(&format!("\n  k: {value}"), DecodeError::ValueNotText(k()));
    }
    check("\n  k: dg==\n  k: dg==", DecodeError::KeyTwice(k()));
    check("\n  zenml_schema_name: [a]", DecodeError::ValueNotText(SCHEMA_KEY.to_owned()));
    check("\n  zenml_schema_name: a\n  zenml_schema_name: a", DecodeError::KeyTwice(SCHEMA_KEY.to_owned()));
    check("\n  1: dg==", DecodeError::KeyNotText);
    check("\n  [a]: dg==", DecodeError::KeyNotText);
    check("\n  k: dg==\nbad:\n  k: dg==", DecodeError::NameTwice);
    check("\n  k: &a dg==\n  l: *a", DecodeError::ValueNotText("l".to_owned()));
    check("\n  <<: {k: dg==}", DecodeError::KeyNotText);
}

#[test]
fn a_value_is_held_to_the_limit_before_it_is_decoded() {
    let of = |bytes: usize| text(&lines("db", &[("k", &"x".repeat(bytes))]));
    let decode = |bytes: usize, most: u64| match parse(&of(bytes)).get("db") {
        Some(Ok(entry)) => entry.decode(most).map(|pairs| pairs.values.byte_size()),
        _ => panic!("not there"),
    };
    for most in [0, 1, 2, 3, 4, 500] {
        let fits = usize::try_from(most).expect("small");
        assert_eq!(decode(fits, most), Ok(fits + 1));
        assert_eq!(decode(fits + 1, most), Err(DecodeError::TooLarge("k".to_owned())));
    }
}

#[test]
fn what_may_be_half_a_file_is_no_file_and_quotes_nothing() {
    let check = |text: &str, expected: ReadError| {
        let error = Document::parse(text).err();
        assert_eq!(error, Some(expected), "{text}");
    };
    for empty in ["", "\n", "# nothing\n", "---\n", "\u{feff}"] {
        check(empty, ReadError::Empty);
    }
    check("db:\n  k: Y2FuYXJ5\n  l: 'Y2Fu", ReadError::NotYaml(3));
    check("db: {k: Y2FuYXJ5,\n", ReadError::NotYaml(1));
    check("db:\n  k: Y2FuYXJ5\n l: x\n", ReadError::NotYaml(3));
    check("db: *canary\n", ReadError::NotYaml(1));
    check("- db\n", ReadError::NotAMap);
    check("Y2FuYXJ5\n", ReadError::NotAMap);
    check("a: {}\n---\nb: {}\n", ReadError::SeveralDocuments);
    for cut in ["db:\n  k: Y2FuYXJ5", "db:", "d: e", "db:\n  k: ''"] {
        check(cut, ReadError::CutOff);
    }
    // A brace ends a map by itself.
    assert!(Document::parse("{db: {k: dg==}}").is_ok());
}

#[test]
fn no_beginning_of_a_real_file_passes_for_a_whole_one_unless_it_ends_with_a_line() {
    for end in (1..REAL.len()).filter(|end| REAL.is_char_boundary(*end)) {
        // The long value alone has most of them.
        if !REAL[..end].ends_with('\n') && (end % 101 == 0 || end < 1500) {
            assert!(Document::parse(&REAL[..end]).is_err(), "{}", &REAL[..end]);
        }
    }
}

#[test]
fn a_form_that_zenml_does_not_write_is_read_and_not_changed() {
    for text in [
        "{db: {k: dg==}}\n",
        "a: &x\n  k: dg==\nb: *x\n",
        "  db:\n    k: dg==\n",
        "db:\n  k: dg==\n...\n",
        "!!map\ndb:\n  k: dg==\n",
    ] {
        assert!(parse(text).iter().count() > 0, "{text}");
        let new = lines("new", &[]);
        assert_eq!(parse(text).with(None, Some(("new", &new))).err(), Some(EditError::Foreign), "{text}");
    }
}

#[test]
fn bombs_and_depths_cost_no_more_than_their_length() {
    use std::fmt::Write as _;
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}", level - 1);
        writeln!(bomb, "a{level}: &a{level} [{}]", [alias.as_str(); 10].join(", ")).expect("memory");
    }
    assert_eq!(parse(&bomb).get("a29").map(|entry| entry.map(Entry::keys)), Some(Ok(Vec::new())));
    for deep in ["[", "{a: ", "- ", "? "] {
        assert!(matches!(Document::parse(&deep.repeat(1 << 18)), Err(ReadError::NotYaml(_) | ReadError::NotAMap)));
    }
    let mut nested = String::new();
    for depth in 0..700 {
        writeln!(nested, "{}a:", " ".repeat(depth)).expect("memory");
    }
    assert!(matches!(Document::parse(&nested), Err(ReadError::NotYaml(_))));
    let many: String = (0..100_000).map(|_| "a: {}\n").collect();
    assert_eq!(parse(&many).get("a").map(|entry| entry.err()), Some(Some(DecodeError::NameTwice)));
    let too_many: String = (0..400_000).map(|_| "a: {}\n").collect();
    assert_eq!(Document::parse(&too_many).err(), Some(ReadError::TooMany));
    let huge = format!("a:\n  k: {}\n", "9".repeat(1 << 20));
    assert_eq!(decode(&huge, "a").err(), Some(DecodeError::ValueNotText("k".to_owned())));
}

#[test]
fn bytes_that_zenml_could_not_read_are_not_written() {
    let bytes = [("k".to_owned(), SecretValue::new(vec![0xff]))].into_iter().collect();
    assert_eq!(encode_entry("db", &bytes, None).err(), Some(NotText("k".to_owned())));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        name in "(?s).{1,12}|\\PC{1,160}",
        pairs in proptest::collection::btree_map("(?s).{1,8}|[ -~]{1,6}|[0-9.:+-]{1,6}", "(?s).{0,20}", 0..6),
    ) {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let wanted = values(&pairs);
        let lines = encode_entry(&name, &wanted, None).expect("text");
        let document = Document::parse(REAL).expect("YAML").with(None, Some((&name, &lines)));
        let document = text(&document.expect("sound"));
        let read = decode(&document, &name).expect("pairs");
        prop_assert_eq!(shown(&read.values), shown(&wanted));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,60}|[-{}\\[\\]:?,&*!|> \"'%#a=\n]{0,40}") {
        if let Ok(document) = Document::parse(&text) {
            for (name, entry) in document.iter() {
                let _ = entry.map(|entry| (entry.keys(), entry.decode(MOST).is_ok()));
                if let Ok(changed) = document.with(Some(name), None) {
                    let changed = String::from_utf8(changed.expose().to_vec()).expect("text");
                    prop_assert!(Document::parse(&changed).expect("YAML").get(name).is_none());
                }
            }
        }
    }
}
