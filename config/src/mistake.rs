//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong, in the order of the file, then of the variables; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The mistakes; never empty.
    pub mistakes: Vec<Mistake>,
}

/// One mistake. It never quotes a value that could be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, when the mistake is in one.
    pub file: Option<PathBuf>,
    /// 1-based.
    pub line: Option<usize>,
    /// 1-based, in characters.
    pub column: Option<usize>,
    /// What is wrong: lower case, no full stop, one line.
    pub what: String,
    /// What to try. Where several mistakes have the same hint, the last of them has it.
    pub hint: Option<String>,
}

/// What to try for a mistake in the words of a configuration.
const REFERENCE_HINT: &str = "correct or remove it; docs/configuration.md has every table and key";

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the configuration file; both 1-based, the column in characters.
    File { line: usize, column: usize },
    /// In this variable.
    Variable(String),
}

impl Mistake {
    /// A mistake without a place.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self { file: None, line: None, column: None, what: what.into(), hint: None }
    }

    /// A mistake in a variable.
    pub(crate) fn of_variable(name: &str, what: impl fmt::Display) -> Self {
        Self::plain(format!("variable {name}: {what}")).with_hint("correct or unset this variable")
    }

    /// A mistake of a whole file.
    pub(crate) fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), ..Self::plain(what) }
    }

    /// A mistake at a place; `file` is the configuration file, if there is one.
    pub(crate) fn at(place: &Place, file: Option<&Path>, what: impl fmt::Display) -> Self {
        match place {
            Place::File { line, column } => Self {
                file: file.map(Path::to_owned),
                line: Some(*line),
                column: Some(*column),
                ..Self::plain(what.to_string())
            },
            Place::Variable(name) => Self::of_variable(name, what),
        }
        .with_hint(REFERENCE_HINT)
    }

    /// Adds advice.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write_one_line(formatter, &file.to_string_lossy())?;
            for number in [self.line, self.column].into_iter().flatten() {
                write!(formatter, ":{number}")?;
            }
            formatter.write_str(": ")?;
        }
        write_one_line(formatter, &self.what)
    }
}

/// Writes text with control characters escaped: a path or a key may hold a line break or a terminal's escape.
fn write_one_line(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        if character.is_control() {
            write!(formatter, "{}", character.escape_default())?;
        } else {
            fmt::Write::write_char(formatter, character)?;
        }
    }
    Ok(())
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake] }
    }
}

impl From<Vec<Mistake>> for ConfigError {
    fn from(mut mistakes: Vec<Mistake>) -> Self {
        // By place, file after file as they were met; what has no line keeps its order and comes last.
        let mut files: Vec<Option<PathBuf>> = Vec::new();
        for mistake in &mistakes {
            if !files.contains(&mistake.file) {
                files.push(mistake.file.clone());
            }
        }
        let nth = |file: &Option<PathBuf>| files.iter().position(|other| other == file);
        mistakes.sort_by_cached_key(|mistake| {
            (mistake.line.is_none(), mistake.line.and(nth(&mistake.file)), mistake.line, mistake.column)
        });
        mistakes.dedup();
        for index in 0..mistakes.len() {
            if mistakes[index + 1..].iter().any(|later| later.hint == mistakes[index].hint) {
                mistakes[index].hint = None;
            }
        }
        Self { mistakes }
    }
}

/// Shortens a word for an error message.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
