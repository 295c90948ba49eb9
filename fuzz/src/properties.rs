//! What must hold of what we read for any input at all. The fuzz targets and the ordinary tests both call these.

use std::os::unix::fs::MetadataExt as _;

use keyside_config::{Environment, LoadRequest, Mistake};
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

/// Any bytes as `keyside.toml`: refused with mistakes that stand in the file, or meant the same twice, by the wrapper
/// too.
pub fn configuration(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keyside.toml");
    std::fs::write(&path, data).expect("written");
    let request = LoadRequest {
        config: Some(path.clone()),
        socket: None,
        environment: Environment::from_pairs([
            ("HOME", folder.path().as_os_str()),
            ("KEYSIDE_STORE_KEY", "k".as_ref()),
        ]),
        uid: folder.path().metadata().expect("metadata").uid(),
    };
    let settings = match keyside_config::load(&request) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(error.mistakes.last().is_some_and(|mistake| mistake.hint.is_some()), "{error}");
            for mistake in &error.mistakes {
                stands_in(mistake, data);
            }
            return;
        }
    };
    assert!(!settings.backends.is_empty() && settings.files.contains(&path));
    for grant in &settings.grants {
        assert!(!grant.uids.contains(&65534) && !grant.gids.contains(&65534));
        let names = [grant.uids.len(), grant.gids.len(), grant.exes.len(), grant.cgroups.len()];
        assert_ne!(names.iter().sum::<usize>(), 0, "a grant names somebody");
    }
    for listener in &settings.agent.listeners {
        assert!(listener.path.is_absolute() && listener.path.as_os_str().len() < 108 && listener.mode <= 0o777);
    }
    assert!(settings.metrics.listen.is_none_or(|address| address.port() != 0));

    let again = keyside_config::load(&request).expect("what was right is right");
    assert!(settings.agent == again.agent && settings.backends == again.backends && settings.grants == again.grants);
    let wrapper =
        keyside_exec_wrapper::profile::load(Some(&path), None).expect("what the agent takes the wrapper takes");
    assert_eq!(wrapper.exec, settings.exec);
}

/// A mistake is one line, has no control character, and its place is one in the file.
fn stands_in(mistake: &Mistake, data: &[u8]) {
    let shown = mistake.to_string();
    assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
    if let (Some(line), Some(column)) = (mistake.line, mistake.column) {
        let text = std::str::from_utf8(data).expect("what has a place is text");
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line = text.split('\n').nth(line - 1).expect("a line of the file");
        assert!((1..=line.chars().count() + 1).contains(&column), "column {column} of {}", line.len());
    }
}
