//! One part of ZenML's configuration, variables over the file, and how its fields are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::given::{Given, Table};
use crate::backend::url;
use crate::mistake::Mistake;
use crate::settings::SecretText;

/// Where a field stands.
#[derive(Clone)]
pub(super) enum Origin {
    /// In this variable; in JSON there, under this key.
    Variable(String, Option<String>),
    /// In this file, under this key with its parents.
    File(PathBuf, String),
}

impl Origin {
    /// Names the place, for "X says".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Variable(name, None) => format!("variable {name}"),
            Self::Variable(name, Some(key)) => format!("`{key}` in variable {name}"),
            Self::File(file, key) => format!("`{key}` in {}", file.display()),
        }
    }

    pub(super) fn mistake(&self, what: &str) -> Mistake {
        match self {
            Self::Variable(name, None) => Mistake::of_variable(name, what),
            Self::Variable(name, Some(key)) => Mistake::of_variable(name, format!("`{key}`: {what}")),
            Self::File(file, key) => in_file(file, &format!("`{key}`: {what}")),
        }
    }

    /// The place of a key inside a table that stands here.
    fn within(&self, inner: &str) -> Self {
        match self {
            Self::Variable(name, _) => Self::Variable(name.clone(), Some(inner.to_owned())),
            Self::File(file, key) => Self::File(file.clone(), format!("{key}.{inner}")),
        }
    }
}

/// A mistake in one of ZenML's files.
pub(super) fn in_file(path: &Path, what: &str) -> Mistake {
    Mistake::of_file(path, what).with_hint(INSTEAD)
}

/// What to do where ZenML's own configuration cannot be taken.
const INSTEAD: &str = "write a [backend.NAME] into keyside.toml, which then counts alone";

struct Field {
    value: Given,
    origin: Origin,
}

/// A part of ZenML's configuration.
pub(super) struct Section {
    /// What it configures, for "X has no `key`".
    pub(super) noun: String,
    /// How a missing field is to be set: a text with `KEY` in it.
    way: String,
    fields: BTreeMap<String, Field>,
}

impl Section {
    /// An empty section whose fields are set by variables with this prefix.
    pub(super) fn new(noun: &str, prefix: &str) -> Self {
        Self { noun: noun.to_owned(), way: format!("{prefix}KEY"), fields: BTreeMap::new() }
    }

    /// Adds what a file has; `parents` is the path to it there.
    pub(super) fn add_file(&mut self, table: Table, file: &Path, parents: &str) {
        for (key, value) in table {
            let origin = Origin::File(file.to_owned(), format!("{parents}.{key}"));
            self.fields.insert(key, Field { value, origin });
        }
    }

    /// Lays variables over it: pairs of a name without the prefix, and the whole name with its value.
    pub(super) fn add_variables(&mut self, variables: Vec<(String, String, Zeroizing<String>)>) {
        for (key, name, value) in variables {
            self.fields.insert(key, Field { value: Given::Text(value), origin: Origin::Variable(name, None) });
        }
    }

    /// Returns where a field stands that is there and not empty.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        let field = self.fields.get(key)?;
        match &field.value {
            Given::Nothing => None,
            Given::Text(text) if text.is_empty() => None,
            _ => Some(&field.origin),
        }
    }

    /// Returns a text, the empty one too; anything else is reported.
    pub(super) fn raw_text(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<&str> {
        let field = self.fields.get(key)?;
        match &field.value {
            Given::Text(text) => Some(text.as_str()),
            Given::Nothing => None,
            _ => {
                mistakes.push(field.origin.mistake("must be a text; put it in quotes"));
                None
            }
        }
    }

    /// Returns a text that is not empty; to ZenML an empty one is mostly none.
    pub(super) fn text(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<&str> {
        self.raw_text(key, mistakes).filter(|text| !text.is_empty())
    }

    pub(super) fn owned(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
        self.text(key, mistakes).map(str::to_owned)
    }

    /// Returns a text that must be there.
    pub(super) fn required(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<&str> {
        let before = mistakes.len();
        let text = self.text(key, mistakes);
        if text.is_none() && mistakes.len() == before {
            mistakes.push(self.missing(key));
        }
        text
    }

    /// Says that a field is missing.
    pub(super) fn missing(&self, key: &str) -> Mistake {
        let variable = if self.way.starts_with('`') { key.to_owned() } else { key.to_ascii_uppercase() };
        let way = self.way.replace("KEY", &variable);
        Mistake::plain(format!("{} has no `{key}`", self.noun)).with_hint(format!("set {way}, or {INSTEAD}"))
    }

    /// Returns a text inside a field that is a table.
    pub(super) fn within(&self, key: &str, inner: &str) -> Option<Zeroizing<String>> {
        match self.fields.get(key).map(|field| &field.value) {
            Some(Given::Table(table)) => match table.get(inner) {
                Some(Given::Text(text)) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns a secret.
    pub(super) fn secret(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<SecretText> {
        let text = self.text(key, mistakes)?;
        Some(self.as_secret(key, Zeroizing::new(text.to_owned())))
    }

    pub(super) fn required_secret(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<SecretText> {
        let text = self.required(key, mistakes)?;
        Some(self.as_secret(key, Zeroizing::new(text.to_owned())))
    }

    /// Makes a secret of a text that came from the field `key`.
    pub(super) fn as_secret(&self, key: &str, text: Zeroizing<String>) -> SecretText {
        let origin = self.fields.get(key).map(|field| field.origin.describe()).unwrap_or_default();
        SecretText { text, origin, file: None }
    }

    /// Returns true or false, as a word too; any other word is `Err`.
    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, &str> {
        match self.fields.get(key).map(|field| &field.value) {
            Some(Given::Switch(switch)) => Ok(Some(*switch)),
            Some(Given::Text(text)) if !text.is_empty() => switch_of(text).map(Some).ok_or(text.as_str()),
            _ => Ok(None),
        }
    }

    /// Returns a field as JSON, whether it was written as a table or as JSON already.
    pub(super) fn json(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Zeroizing<String>> {
        match self.fields.get(key).map(|field| &field.value) {
            Some(table @ Given::Table(_)) => Some(table.to_json()),
            _ => self.text(key, mistakes).map(|text| Zeroizing::new(text.to_owned())),
        }
    }

    /// Returns the address in a field without a slash at its end; off this machine it must have TLS.
    pub(super) fn address(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
        let text = self.text(key, mistakes)?;
        let read = match url::address(text, true) {
            // ZenML's configuration has no word for "without TLS", so a table of ours must say it.
            Ok(_) => url::address(text, false).map_err(|_| {
                "without TLS only this machine is asked; write https://, or a [backend.NAME] with `allow_plaintext = true`"
                    .to_owned()
            }),
            Err(what) => Err(what),
        };
        match read {
            Ok(address) => Some(address),
            Err(what) => {
                mistakes.extend(self.origin(key).map(|origin| origin.mistake(&what)));
                None
            }
        }
    }

    /// Returns the table in a field, which may be written as JSON, as a section; an empty one where there is none.
    pub(super) fn table(&mut self, key: &str, mistakes: &mut Vec<Mistake>) -> Section {
        let way = format!("`KEY` in {}", self.way.replace("KEY", &key.to_ascii_uppercase()));
        let mut inner = Section { noun: self.noun.clone(), way, fields: BTreeMap::new() };
        let Some(field) = self.fields.remove(key) else { return inner };
        let table = match field.value {
            Given::Table(table) => table,
            Given::Nothing => return inner,
            Given::Text(text) if text.is_empty() => return inner,
            Given::Text(text) => match serde_json::from_str(&text) {
                Ok(Given::Table(table)) => table,
                _ => {
                    mistakes.push(field.origin.mistake("must be a JSON object"));
                    return inner;
                }
            },
            _ => {
                mistakes.push(field.origin.mistake("must be a table, or a JSON object as text"));
                return inner;
            }
        };
        for (key, value) in table {
            let origin = field.origin.within(&key);
            inner.fields.insert(key, Field { value, origin });
        }
        inner
    }
}

/// Reads a word as ZenML reads it for true or false.
pub(super) fn switch_of(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "t" | "true" | "on" => Some(true),
        "0" | "n" | "no" | "f" | "false" | "off" => Some(false),
        _ => None,
    }
}
