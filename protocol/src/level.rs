//! How much a check verifies: ZenML's `ZENML_SECRET_VALIDATION_LEVEL`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The variable that names the level, in ZenML and here.
pub const LEVEL_VARIABLE: &str = "ZENML_SECRET_VALIDATION_LEVEL";

/// A validation level. Spelled exactly as ZenML spells it: case-sensitive, not trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ValidationLevel {
    /// No call to any back-end: everything well-formed passes.
    #[serde(rename = "NONE")]
    None,
    /// The secret exists; no value is read.
    #[serde(rename = "SECRET_EXISTS")]
    SecretExists,
    /// The secret exists and has the key.
    #[default]
    #[serde(rename = "SECRET_AND_KEY_EXISTS")]
    SecretAndKeyExists,
}

/// A word that is no level; the empty string is one too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a validation level; it is one of NONE, SECRET_EXISTS, SECRET_AND_KEY_EXISTS")]
pub struct UnknownLevel(pub String);

impl ValidationLevel {
    /// Returns the level's one spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SecretExists => "SECRET_EXISTS",
            Self::SecretAndKeyExists => "SECRET_AND_KEY_EXISTS",
        }
    }
}

impl fmt::Display for ValidationLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ValidationLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "NONE" => Ok(Self::None),
            "SECRET_EXISTS" => Ok(Self::SecretExists),
            "SECRET_AND_KEY_EXISTS" => Ok(Self::SecretAndKeyExists),
            other => Err(UnknownLevel(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_exact_words_are_levels() {
        for level in ["NONE", "SECRET_EXISTS", "SECRET_AND_KEY_EXISTS"] {
            assert_eq!(level.parse::<ValidationLevel>().expect("a level").as_str(), level);
        }
        for wrong in ["", "none", " NONE", "NONE ", "SECRET_AND_KEY", "ALL"] {
            let error = wrong.parse::<ValidationLevel>().expect_err("no level").to_string();
            assert!(error.contains("NONE, SECRET_EXISTS, SECRET_AND_KEY_EXISTS"), "{error}");
        }
    }
}
