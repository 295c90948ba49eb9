//! The YAML file of ZenML's local secrets manager: a map from a secret's name to a map from its keys to the standard
//! base64 of their values, with the name of the secret's schema in plain beside them.
//!
//! `read` takes the file apart without decoding a value; `edit` changes one secret and leaves every other byte as it
//! stands; `scalar` knows which texts PyYAML, which ZenML reads and writes the file with, writes in which style.
//!
//! The file is read as the parser's events rather than through serde: a change needs the places of things, aliases are
//! never expanded, and no message of a deserialiser can quote a value.

mod edit;
mod read;
mod scalar;
#[cfg(test)]
mod tests;

pub use edit::{EditError, NotText, encode_entry};
pub use read::{DecodeError, Document, Entry, Pairs, ReadError};

/// The key that holds the name of a secret's schema.
pub const SCHEMA_KEY: &str = "zenml_schema_name";

/// The schema of a secret that has none of ZenML's forms.
pub const ARBITRARY_SCHEMA: &str = "arbitrary";

/// Tells whether ZenML uses this key itself, so that no value can have it.
pub fn is_reserved(key: &str) -> bool {
    key == SCHEMA_KEY || key == "name"
}
