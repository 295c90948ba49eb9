//! Templates, case by case: what is a placeholder, what is literal, what is an error and where, what filters give.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use keyside_protocol::reference::Reference;
use keyside_protocol::template::{MAX_RENDERED_BYTES, RenderError, Template, decode_base64};
use keyside_protocol::value::SecretValue;

/// Renders with `<name/key>` as the value of each reference.
fn rendered(template: &Template) -> String {
    let values: Vec<(Reference, SecretValue)> = template
        .references()
        .map(|reference| {
            let value = format!("<{}/{}>", reference.name(), reference.key());
            (reference.clone(), SecretValue::new(value.into_bytes()))
        })
        .collect();
    let value_of = |wanted: &Reference| &values.iter().find(|(reference, _)| reference == wanted).unwrap().1;
    String::from_utf8(template.render(value_of).unwrap().expose().to_vec()).unwrap()
}

/// Renders `text` with `value` for every reference.
fn render_with(text: &str, value: &[u8]) -> Result<Vec<u8>, RenderError> {
    let value = SecretValue::copy_of(value);
    Template::parse(text).unwrap().render(|_| &value).map(|rendered| rendered.expose().to_vec())
}

#[track_caller]
fn gives(text: &str, expected: &str) {
    let template = Template::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(rendered(&template), expected, "{text:?}");
    assert_eq!(Template::parse_lenient(text), template, "a well-formed template reads the same leniently: {text:?}");
    assert_eq!(Template::parse(&template.to_string()).as_ref(), Ok(&template), "{text:?} printed as {template}");
}

#[track_caller]
fn refuses(text: &str, place: (usize, usize), what: &str) {
    let error = Template::parse(text).expect_err(text);
    assert_eq!((error.line, error.column), place, "{text:?}: {error}");
    assert!(error.what.contains(what), "{text:?}: {error}");
    assert!(error.snippet.starts_with("{{"), "{text:?}: {error:?}");
}

#[track_caller]
fn leniently_gives(text: &str, expected: &str) {
    let template = Template::parse_lenient(text);
    assert_eq!(rendered(&template), expected, "{text:?}");
    assert_eq!(Template::parse(&template.to_string()), Ok(template), "{text:?}");
}

#[test]
fn placeholders_may_have_blanks_at_both_ends_and_stand_anywhere() {
    gives("{{a.b}}", "<a/b>");
    gives("x{{ a.b\t}}y", "x<a/b>y");
    gives("{{\n  a.b\r\n}}", "<a/b>");
    gives("{{\u{a0}\u{1c}\u{3000}a.b\u{2003}}}", "<a/b>");
    gives("{{db.user}}:{{db.password}}", "<db/user>:<db/password>");
    gives("{{a.b}}{{a.b}}", "<a/b><a/b>");
}

#[test]
fn a_name_ends_at_the_first_dot_and_a_key_at_a_blank_a_brace_or_a_bar() {
    gives("{{a.b.c}}", "<a/b.c>");
    gives("{{a..b}}", "<a/.b>");
    gives("{{a|b.c}}", "<a|b/c>");
    gives("{{ü\u{200b}.'é\\\"}}", "<ü\u{200b}/'é\\\">");
}

#[test]
fn text_without_a_double_opening_brace_is_literal() {
    for text in
        ["", "plain", "}}", "a }} b", "{a.b}", "{ {a.b} }", "\\", "\\\\ \\{ \\}}", "$(x) ${X}", "\0\u{feff}\r\n"]
    {
        gives(text, text);
        assert!(Template::parse(text).unwrap().is_literal());
        assert_eq!(Template::parse(text).unwrap().to_string(), text);
    }
    gives("{{a.b}}}", "<a/b>}");
    gives("{{a.b}}}}", "<a/b>}}");
    gives("{\"a\":{\"b\":\"{{a.b}}\"}}", "{\"a\":{\"b\":\"<a/b>\"}}");
    gives("{ {{a.b}} }", "{ <a/b> }");
}

#[test]
fn backslashes_before_a_double_opening_brace_are_halved_and_an_odd_one_makes_it_literal() {
    gives(r"\{{a.b}}", "{{a.b}}");
    gives(r"\\{{a.b}}", r"\<a/b>");
    gives(r"\\\{{a.b}}", r"\{{a.b}}");
    gives(r"\\\\{{a.b}}", r"\\<a/b>");
    gives(r"\{{", "{{");
    gives(r"\{{{", "{{{");
    gives(r"\{{{{a.b}}", "{{<a/b>");
    gives(r"{\{{{{a.b}}", "{{{<a/b>");
    gives(r"\{\{{\\{{a.b}}", r"\{{{\<a/b>");
    gives(r"\\\{{{\{{{{a.b}}", r"\{{{{{<a/b>");
    gives(r"\{{\{{\\\{{", r"{{{{\{{");
    gives(r"C:\dir\{{a.b}} \n \}} \ {{a.b}}", r"C:\dir{{a.b}} \n \}} \ <a/b>");
    gives(r"{{a.b}}\\{{a.b}}", r"<a/b>\<a/b>");
}

#[test]
fn a_malformed_placeholder_is_an_error_at_its_double_brace() {
    refuses("{{", (1, 1), "not closed");
    refuses("ü {{a", (1, 3), "not closed");
    refuses("a\nb\r\n  {{a.b", (3, 3), "not closed");
    refuses("{{a.", (1, 1), "not closed");
    refuses("{{a.b |", (1, 1), "not closed");
    refuses("{{a.b | url ", (1, 1), "not closed");
    refuses("{{a.b}} {{ }}", (1, 9), "nothing stands between");
    refuses("{{}}", (1, 1), "nothing stands between");
    refuses("{{a}}", (1, 1), "needs a name, a dot and a key");
    refuses("{{ a\n}}", (1, 1), "needs a name, a dot and a key");
    refuses("{{.b}}", (1, 1), "no name");
    refuses("{{.a.b}}", (1, 1), "no name");
    refuses("{{a.}}", (1, 1), "no key");
    refuses("{{a. b}}", (1, 1), "no key");
    refuses("{{a .b}}", (1, 1), "neither blank nor brace");
    refuses("{{my secret.b}}", (1, 1), "neither blank nor brace");
    refuses("{{a{.b}}", (1, 1), "neither blank nor brace");
    refuses("{{a.b c}}", (1, 1), "neither blank nor brace");
    refuses("{{a.{b}}}", (1, 1), "no key");
    refuses("{{a.b{{c.d}}", (1, 1), "neither blank nor brace");
    refuses("{{a.b} }", (1, 1), "neither blank nor brace");
    refuses("{{{a.b}}}", (1, 1), "three braces");
    refuses(r"\\{{a}}", (1, 3), "needs a name, a dot and a key");
    refuses(r"\{{a}} {{b}}", (1, 8), "needs a name, a dot and a key");
}

#[test]
fn an_unknown_filter_is_named_and_the_known_ones_are_listed() {
    let known = "the filters are `url`, `json`, `base64`, `base64d`";
    refuses("{{a.b | upper}}", (1, 1), &format!("unknown filter `upper`; {known}"));
    refuses("{{a.b|URL}}", (1, 1), "unknown filter `URL`");
    refuses("{{a.b|url|base32}}", (1, 1), "unknown filter `base32`");
    refuses("{{a.b|}}", (1, 1), &format!("no filter stands after `|`; {known}"));
    refuses("{{a.b||url}}", (1, 1), "no filter");
    refuses("{{a.b | url json}}", (1, 1), "after the filter `url` only `|` or `}}`");
    let long = Template::parse(&format!("{{{{a.b|{}\u{1b}\n}}}}", "x".repeat(31))).expect_err("unknown");
    assert!(long.what.contains(&format!("`{}\\u{{1b}}`", "x".repeat(31))), "{long}");
    let longer = Template::parse(&format!("{{{{a.b|{}}}}}", "x".repeat(1000))).expect_err("unknown");
    assert!(longer.what.contains(&format!("`{}...`", "x".repeat(32))), "{longer}");
}

#[test]
fn a_snippet_is_the_template_from_the_fault_to_the_end_of_its_line_and_at_most_64_characters() {
    assert_eq!(Template::parse("x {{a b\nc").expect_err("malformed").snippet, "{{a b");
    assert_eq!(Template::parse("x {{a b\r\nc").expect_err("malformed").snippet, "{{a b");
    let long = format!("{{{{{}", "ü".repeat(100));
    assert_eq!(Template::parse(&long).expect_err("malformed").snippet, format!("{{{{{}", "ü".repeat(62)));
}

#[test]
fn an_error_reads_as_one_line_with_a_place_and_a_hint() {
    let error = Template::parse("a\n b {{c}}").expect_err("malformed");
    assert_eq!(
        error.to_string(),
        "malformed template at line 2, column 4: a placeholder needs a name, a dot and a key"
    );
    assert!(error.hint().contains(r"\{{"));
}

#[test]
fn leniently_a_malformed_double_brace_stays_as_it_stands() {
    leniently_gives("{{ not one }} {{a.b}}", "{{ not one }} <a/b>");
    leniently_gives("{{ {{a.b}}", "{{ <a/b>");
    leniently_gives("{{a.b|upper}}", "{{a.b|upper}}");
    leniently_gives("{{{a.b}}}", "{{{a.b}}}");
    leniently_gives("{{{{a.b}}", "{{<a/b>");
    leniently_gives(r"\\{{ a }} \\{{a.b}}", r"\\{{ a }} \<a/b>");
    leniently_gives(r"\{{ a }} \\\{{a.b}}", r"{{ a }} \{{a.b}}");
    leniently_gives("{{", "{{");
    leniently_gives(r"{{ {\{{{{a.b}}", "{{ {{{<a/b>");
}

#[test]
fn url_encodes_every_byte_but_the_unreserved_ones() {
    let bytes: Vec<u8> = (0..=255).collect();
    let encoded = String::from_utf8(render_with("{{a.b | url}}", &bytes).unwrap()).unwrap();
    let expected: String = bytes
        .iter()
        .map(|&byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    assert_eq!(encoded, expected);
    assert_eq!(render_with("{{a.b|url}}", "p@ss w/ü".as_bytes()).unwrap(), b"p%40ss%20w%2F%C3%BC");
}

#[test]
fn json_gives_the_inside_of_a_string_that_reads_back() {
    let secret = "a\"b\\c\n\0\u{7f}ü🔐\u{2028}".repeat(2000);
    let json = render_with("{\"password\": \"{{a.b | json}}\"}", secret.as_bytes()).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(read["password"], secret);
    let reference = Reference::parse("{{a.b}}").unwrap();
    assert_eq!(render_with("{{a.b|json}}", b"\xff"), Err(RenderError::NotText(reference)));
}

#[test]
fn base64_encodes_and_decodes_any_bytes_strictly() {
    assert_eq!(render_with("{{a.b|base64}}", b"\xff\0").unwrap(), b"/wA=");
    assert_eq!(render_with("{{a.b|base64d}}", b"/wA=").unwrap(), b"\xff\0");
    assert_eq!(render_with("{{a.b|base64d}}", b"").unwrap(), b"");
    let reference = Reference::parse("{{a.b}}").unwrap();
    for wrong in ["/wA", "/wA=\n", " /wA=", "_wA=", "/wB=", "====", "/wA==", "secret!"] {
        let error = render_with("{{a.b|base64d}}", wrong.as_bytes()).expect_err(wrong);
        assert_eq!(error, RenderError::NotBase64(reference.clone()), "{wrong:?}");
        assert!(!error.to_string().contains(wrong.trim()), "{error}");
        assert!(decode_base64(wrong.as_bytes()).is_none(), "{wrong:?}");
    }
}

#[test]
fn filters_apply_from_left_to_right_with_blanks_or_without() {
    assert_eq!(render_with("{{a.b|base64|url}}", b"\xff\0").unwrap(), b"%2FwA%3D");
    assert_eq!(render_with("{{ a.b |\turl\n| base64 }}", b"\xff").unwrap(), b"JUZG");
    assert_eq!(render_with("{{a.b|base64d|json}}", b"Ig==").unwrap(), b"\\\"");
    assert_eq!(render_with("x{{a.b}}{{a.b|base64}}y", b"1").unwrap(), b"x1MQ==y");
}

#[test]
fn one_placeholder_alone_gives_the_exact_bytes() {
    for value in [&b""[..], b" a\n", b"\xff\0\xfe", b"{{a.b}} \\{{ ${X} $(x)"] {
        assert_eq!(render_with("{{ a.b }}", value).unwrap(), value);
        assert_eq!(render_with("-{{ a.b }}-", value).unwrap(), [b"-", value, b"-"].concat());
    }
    assert_eq!(Template::parse("{{a.b}}").unwrap().as_single_reference(), Reference::parse("{{a.b}}").as_ref().ok());
    for more in ["{{a.b|url}}", " {{a.b}}", "{{a.b}}{{a.b}}", "a.b", ""] {
        assert_eq!(Template::parse(more).unwrap().as_single_reference(), None, "{more:?}");
    }
}

#[test]
fn references_are_listed_in_order_with_repeats() {
    let template = Template::parse("{{b.k}} {{a.k|url}} {{b.k}}").unwrap();
    let listed: Vec<String> = template.references().map(ToString::to_string).collect();
    assert_eq!(listed, ["{{b.k}}", "{{a.k}}", "{{b.k}}"]);
}

#[test]
fn what_a_template_renders_to_is_bounded() {
    let value = SecretValue::new(vec![b'"'; 1000]);
    let render = |text: &str, limit| Template::parse(text).unwrap().render_within(limit, |_| &value).map(|r| r.len());
    assert_eq!(render("{{a.b}}", 10), Ok(1000), "a value alone is as large as it is");
    assert_eq!(render("x{{a.b}}", 1001), Ok(1001));
    assert_eq!(render("x{{a.b}}", 1000), Err(RenderError::TooLarge(1000)));
    assert_eq!(render("{{a.b|url}}", 3000), Ok(3000));
    assert_eq!(render("{{a.b|url}}", 2999), Err(RenderError::TooLarge(2999)));
    assert_eq!(render("{{a.b|base64}}", 1336), Ok(1336));
    assert_eq!(render("{{a.b|base64}}", 1335), Err(RenderError::TooLarge(1335)));
    assert_eq!(render("{{a.b|json}}", 2000), Ok(2000));
    assert_eq!(render("{{a.b|json}}", 1999), Err(RenderError::TooLarge(1999)));
    let doubling = format!("{{{{a.b{}}}}}", "|json".repeat(10_000));
    assert_eq!(render(&doubling, 65_536), Err(RenderError::TooLarge(65_536)));
    let repeated = Template::parse(&"{{a.b}}".repeat(17_000)).unwrap();
    assert_eq!(repeated.render(|_| &value).err(), Some(RenderError::TooLarge(MAX_RENDERED_BYTES)));
}

#[test]
fn a_megabyte_of_anything_is_read_in_one_pass() {
    const MEGABYTE: usize = 1024 * 1024;
    for unit in [
        "{",
        "}",
        "\\",
        "|",
        " ",
        "{{a",
        "{{a.b",
        "{{ ",
        "{{a.b|",
        "{{a.b|url",
        "\\{{",
        "\\\\{{",
        "{{a.b}}",
        "{{a.b|url}}",
        "{\\",
        "\u{2003}",
        "{{\u{2003}",
        "\n{{",
    ] {
        let hostile = unit.repeat(MEGABYTE / unit.len());
        let lenient = Template::parse_lenient(&hostile);
        match Template::parse(&hostile) {
            Ok(template) => assert_eq!(template, lenient, "{unit:?}"),
            Err(error) => assert!(error.snippet.len() < 300 && error.what.len() < 300, "{unit:?}: {error}"),
        }
        assert_eq!(Template::parse(&lenient.to_string()), Ok(lenient), "{unit:?}");
    }
    let late = format!("{}{{{{", "x\n".repeat(MEGABYTE / 2));
    assert_eq!(Template::parse(&late).expect_err("unclosed").line, MEGABYTE / 2 + 1);
}
