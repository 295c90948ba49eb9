//! `{{name.key}}`: a whole string that is a reference, by ZenML's grammar (0.40 and later).
//!
//! ZenML asks for a full match of the Python expression `\{\{\s*\S+?\.\S+\s*\}\}`, cuts two characters off each end,
//! splits at the first dot and strips both parts. Neither `\S` can take a blank and neither `\s*` anything else, so the
//! expression is the same as: two braces at each end, and between them, once stripped, no blank and a dot that is
//! neither the first nor the last character. That is what stands here, without an engine that backtracks.

use std::fmt;

/// A parsed reference. The name is what stands before the first dot, the key is the rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    key: String,
}

/// Why a string is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// ZenML would take it as plain text too.
    #[error("not a reference of the form {{{{name.key}}}}")]
    NotAReference,
    /// ZenML would accept it; it can only be a mistake.
    #[error("a reference with an empty name")]
    EmptyName,
    /// ZenML would accept it; it can only be a mistake.
    #[error("a reference whose name or key holds `{{{{` or `}}}}`")]
    NestedBraces,
}

impl Reference {
    /// Parses a whole string. Blanks (Python's `\s`) inside the braces are trimmed; none may stand outside them.
    ///
    /// # Errors
    /// [`NotAReference`](ReferenceError::NotAReference) for whatever ZenML takes as plain text; the other two for what
    /// ZenML would accept and Keyside does not.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let inner =
            text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).ok_or(ReferenceError::NotAReference)?;
        Self::from_inner(inner.trim_matches(is_blank))
    }

    /// Parses `{{name.key}}` or, as people type it in a shell, `name.key`.
    ///
    /// A text without any brace is read as if it stood between braces, except that no blank may surround it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_lenient(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(is_brace) { Self::parse(text) } else { Self::from_inner(text) }
    }

    /// Reads what stands between the braces, blanks at its ends already gone.
    fn from_inner(inner: &str) -> Result<Self, ReferenceError> {
        let mut between = inner.chars();
        between.next();
        between.next_back();
        // Any dot between the ends will do for a match, though the split is at the first: `.a.b` matches, with no name.
        if inner.contains(is_blank) || !between.as_str().contains('.') {
            return Err(ReferenceError::NotAReference);
        }
        let (name, key) = inner.split_once('.').ok_or(ReferenceError::NotAReference)?;
        if name.is_empty() {
            return Err(ReferenceError::EmptyName);
        }
        if [name, key].iter().any(|part| part.contains("{{") || part.contains("}}")) {
            return Err(ReferenceError::NestedBraces);
        }
        Ok(Self::from_parts(name, key))
    }

    /// Joins two parts that the caller has checked: neither empty, no blank or double brace in either, no dot in `name`.
    pub(crate) fn from_parts(name: &str, key: &str) -> Self {
        Self { name: name.to_owned(), key: key.to_owned() }
    }

    /// The secret's name: not empty, no dot, no blank.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key: not empty, no blank; may hold dots.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Prints `{{name.key}}`, which parses to the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{{{}.{}}}}}", self.name, self.key)
    }
}

/// Python's `\s` and `str.isspace`: Unicode's white space and the four ASCII separators. U+200B is none.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(
        character,
        '\t'..='\r'
            | '\u{1c}'..='\u{1f}'
            | ' '
            | '\u{85}'
            | '\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
    )
}

pub(crate) fn is_brace(character: char) -> bool {
    matches!(character, '{' | '}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(reference: Result<Reference, ReferenceError>) -> Result<(String, String), ReferenceError> {
        reference.map(|reference| (reference.name, reference.key))
    }

    #[track_caller]
    fn reads(text: &str, name: &str, key: &str) {
        assert_eq!(parts(Reference::parse(text)), Ok((name.to_owned(), key.to_owned())), "{text:?}");
        assert_eq!(Reference::parse_lenient(text), Reference::parse(text), "{text:?}");
    }

    #[track_caller]
    fn refuses(text: &str, error: ReferenceError) {
        assert_eq!(Reference::parse(text), Err(error), "{text:?}");
        assert_eq!(Reference::parse_lenient(text), Reference::parse(text), "{text:?}");
    }

    #[test]
    fn a_name_ends_at_the_first_dot_and_single_braces_belong_to_it() {
        reads("{{a.b}}", "a", "b");
        reads("{{a.b.c}}", "a", "b.c");
        reads("{{a..b}}", "a", ".b");
        reads("{{a..}}", "a", ".");
        reads("{{{a.b}}}", "{a", "b}");
        reads("{{a.{b}}}", "a", "{b}");
        reads("{{a|b.c|d}}", "a|b", "c|d");
    }

    #[test]
    fn every_python_blank_is_trimmed_and_nothing_else() {
        let blanks: String = (0..=0x0010_ffff).filter_map(char::from_u32).filter(|&c| is_blank(c)).collect();
        assert_eq!(blanks.chars().count(), 29);
        reads(&format!("{{{{{blanks}a.b{blanks}}}}}"), "a", "b");
        reads("{{\u{200b}a.b\u{feff}}}", "\u{200b}a", "b\u{feff}");
    }

    #[test]
    fn what_zenml_takes_as_plain_text_is_no_reference() {
        for text in ["{{.}}", "{{..}}", "{{a.}}", "{{.a}}", "{{.a.}}", "{{a.b", "{{}}", "{{}", "{{a.b}}\n", "{{a .b}}"]
        {
            refuses(text, ReferenceError::NotAReference);
        }
    }

    #[test]
    fn what_can_only_be_a_mistake_has_its_own_error() {
        refuses("{{.a.b}}", ReferenceError::EmptyName);
        refuses("{{...}}", ReferenceError::EmptyName);
        refuses("{{a.b}}{{c.d}}", ReferenceError::NestedBraces);
        refuses("{{{{a.b}}}}", ReferenceError::NestedBraces);
        refuses("{{a.b}}}}", ReferenceError::NestedBraces);
    }

    #[test]
    fn a_bare_name_and_key_are_read_only_where_asked_for() {
        for (bare, expected) in [
            ("a.b", Ok(("a".to_owned(), "b".to_owned()))),
            ("a.b.c", Ok(("a".to_owned(), "b.c".to_owned()))),
            ("a", Err(ReferenceError::NotAReference)),
            ("", Err(ReferenceError::NotAReference)),
            ("a.", Err(ReferenceError::NotAReference)),
            (".a", Err(ReferenceError::NotAReference)),
            (".a.b", Err(ReferenceError::EmptyName)),
            (" a.b", Err(ReferenceError::NotAReference)),
            ("a.b\n", Err(ReferenceError::NotAReference)),
            ("a. b", Err(ReferenceError::NotAReference)),
        ] {
            assert_eq!(parts(Reference::parse_lenient(bare)), expected, "{bare:?}");
            assert_eq!(Reference::parse(bare), Err(ReferenceError::NotAReference), "{bare:?}");
        }
        for one_brace in ["{a.b}", "a{.b", "{a.b", "a.b}}"] {
            refuses(one_brace, ReferenceError::NotAReference);
        }
    }
}
