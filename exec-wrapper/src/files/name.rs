//! What a file of the step may be called, and which names may stand beside each other.

use std::collections::BTreeMap;
use std::fmt;

use crate::report::Complaint;

/// A relative path of harmless components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName(String);

/// Why a text is no file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileNameError {
    #[error("it is empty or has an empty part")]
    Empty,
    #[error("it is absolute")]
    Absolute,
    #[error("`.` and `..` are not allowed in it")]
    Dots,
    #[error("a part of it has more than 255 bytes")]
    TooLong,
    #[error("it has a control character")]
    Control,
    #[error("it is not UTF-8")]
    NotText,
    #[error("it has a `/`")]
    Slash,
}

impl FileName {
    /// Accepts components separated by `/`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FileNameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FileNameError::NotText)?;
        if text.starts_with('/') {
            return Err(FileNameError::Absolute);
        }
        text.split('/').try_for_each(check_component)?;
        if text.len() > 4000 {
            return Err(FileNameError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Accepts `SECRET/KEY`, where neither may hold a `/` of its own.
    pub(crate) fn of_key(secret: &str, key: &str) -> Result<Self, FileNameError> {
        for component in [secret, key] {
            if component.contains('/') {
                return Err(FileNameError::Slash);
            }
            check_component(component)?;
        }
        Ok(Self(format!("{secret}/{key}")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Accepts one part of a file name.
pub(crate) fn check_component(component: &str) -> Result<(), FileNameError> {
    match component {
        "" => Err(FileNameError::Empty),
        "." | ".." => Err(FileNameError::Dots),
        _ if component.len() > 255 => Err(FileNameError::TooLong),
        _ if component.chars().any(char::is_control) => Err(FileNameError::Control),
        _ => Ok(()),
    }
}

/// Complains about names that stand twice, differ only by case, or are a file and a directory at once.
pub(crate) fn check_together<'n>(names: impl IntoIterator<Item = &'n FileName>) -> Vec<Complaint> {
    // Folded path -> the path as first written, and whether it is a file.
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    let mut complaints = Vec::new();
    for name in names {
        let text = name.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        for end in ends {
            let (path, is_file) = (&text[..end], end == text.len());
            let Some(&(earlier, was_file)) = seen.get(&path.to_lowercase()) else {
                seen.insert(path.to_lowercase(), (path, is_file));
                continue;
            };
            let what = if earlier != path {
                format!("the file names {earlier} and {path} differ only by case")
            } else if is_file && was_file {
                format!("two sources write the file {path}")
            } else if is_file != was_file {
                format!("{path} would be a file and a directory")
            } else {
                continue;
            };
            complaints.push(Complaint::new(what, "give each file a name of its own"));
            break;
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_leads_nowhere_else() {
        for name in ["a", "a/b", "db.conf", "Ü x", "...", "-x", &"x".repeat(255)] {
            assert!(FileName::parse(name.as_bytes()).is_ok(), "{name}");
        }
        for (name, error) in [
            ("", FileNameError::Empty),
            ("a//b", FileNameError::Empty),
            ("a/", FileNameError::Empty),
            ("/a", FileNameError::Absolute),
            ("..", FileNameError::Dots),
            ("a/../b", FileNameError::Dots),
            ("./a", FileNameError::Dots),
            ("a\nb", FileNameError::Control),
            ("a\u{7f}", FileNameError::Control),
            (&"x".repeat(256), FileNameError::TooLong),
        ] {
            assert_eq!(FileName::parse(name.as_bytes()), Err(error), "{name:?}");
        }
        assert_eq!(FileName::parse(b"\xff"), Err(FileNameError::NotText));
        assert_eq!(FileName::of_key("db", "a/b"), Err(FileNameError::Slash));
        assert_eq!(FileName::of_key("..", "a"), Err(FileNameError::Dots));
    }

    #[test]
    fn names_that_could_be_one_file_are_refused_together() {
        let check = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| FileName::parse(name.as_bytes()).expect("a name")).collect();
            check_together(&names).len()
        };
        assert_eq!(check(&["a", "b", "c/a", "c/b"]), 0);
        for names in [&["a", "A"][..], &["a", "a"], &["Ä", "ä"], &["d/x", "D/y"], &["a", "a/b"], &["a/b", "a"]] {
            assert_eq!(check(names), 1, "{names:?}");
        }
    }
}
