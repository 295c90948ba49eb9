//! The environment, passed in so that nothing here reads the process's own behind the caller's back.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::mistake::Mistake;

/// Variables and their values. It may hold secrets, so it is printed by nothing.
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Takes a copy of this process's environment.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Makes an environment of exactly these variables; a later one wins.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Returns the variable's value; set to nothing is `Some` of the empty string.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Returns the variable as text; an error when it is set and not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Mistake> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(Mistake::of_variable(name, "is not UTF-8")),
            },
        }
    }

    /// Iterates over all variables in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}
