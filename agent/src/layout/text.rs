//! A string in a JSON object of values, read into memory that is wiped.

use std::fmt;

use keyside_protocol::value::SecretValue;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A string; `None` for `null`.
pub(super) struct Text(pub(super) Option<SecretValue>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(SecretValue::copy_of(text.as_bytes()))))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(Some(SecretValue::new(text.into_bytes()))))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
                Ok(Text(None))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}
