//! What must hold of the grammars for any input at all. The fuzz targets and the ordinary tests both call these.

use keyside_protocol::reference::{Reference, ReferenceError};
use keyside_protocol::template::Template;
use keyside_protocol::value::SecretValue;

/// Any bytes: if they are text and a reference, it survives printing, strictly and leniently.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strict = Reference::parse(text);
    let lenient = Reference::parse_lenient(text);
    if text.contains(['{', '}']) {
        assert_eq!(strict, lenient);
    } else {
        assert_eq!(strict, Err(ReferenceError::NotAReference));
    }
    if let Ok(reference) = lenient {
        for part in [reference.name(), reference.key()] {
            assert!(!part.is_empty() && !part.contains(char::is_whitespace));
            assert!(!part.contains("{{") && !part.contains("}}"));
        }
        assert!(!reference.name().contains('.'));
        assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
    }
}

/// Any bytes: a template, and behind the first NUL, the value of all its references.
pub fn template(data: &[u8]) {
    let (text, value) = match data.iter().position(|&byte| byte == 0) {
        Some(nul) => (&data[..nul], &data[nul + 1..]),
        None => (data, &b"{{x.y}} ${X} $(x) \\{{"[..]),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let value = SecretValue::copy_of(value);

    let lenient = Template::parse_lenient(text);
    assert_eq!(Template::parse(&lenient.to_string()).as_ref(), Ok(&lenient), "what is printed parses to the same");
    for reference in lenient.references() {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(reference), "placeholders hold references");
    }
    match Template::parse(text) {
        Ok(strict) => assert_eq!(strict, lenient, "leniency changes nothing where nothing is malformed"),
        Err(error) => {
            let line = text.split('\n').nth(error.line - 1).expect("a line of the text");
            let from_fault: String = line.chars().skip(error.column - 1).collect();
            assert!(from_fault.starts_with(&error.snippet) && error.snippet.starts_with("{{"));
            assert!(error.snippet.chars().count() <= 64 && !error.what.contains('\n'));
        }
    }

    if let Ok(rendered) = lenient.render_within(1 << 20, |_| &value) {
        // expose: compared with the value that was put in.
        let rendered = rendered.expose();
        if lenient.as_single_reference().is_some() {
            assert_eq!(rendered, value.expose());
        }
        if lenient.is_literal() && !text.contains("{{") {
            assert_eq!(rendered, text.as_bytes());
        }
    }
}
