//! What must hold of a configuration file, whatever is in it. The fuzz target and the ordinary tests both call this.

use std::os::unix::fs::MetadataExt as _;

use keyside_config::{Environment, LoadRequest, Mistake};

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
