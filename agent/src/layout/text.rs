//! A string in a JSON object of values, read into memory that is wiped.

use std::fmt;

use keyside_protocol::value::SecretValue;
use serde::de::{self, Deserialize, Deserializer, Visitor};
#[cfg(any(
    feature = "aws",
    feature = "azure",
    feature = "gcp",
    feature = "vault",
    all(test, feature = "zenml-sql")
))]
use serde_json::value::RawValue;

/// Reads what ZenML's secrets managers wrote for a key, some of whose schemas have more than texts: a truth value and a number
/// are what ZenML makes of them (`str()`), `True`, `False`, `12`; `None` for `null`. Errors: it is a list or an object.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault", all(test, feature = "zenml-sql")))]
pub(super) fn managed(raw: &RawValue) -> serde_json::Result<Option<SecretValue>> {
    let text = match raw.get() {
        "true" => "True",
        "false" => "False",
        // Python writes a number as `str()` shows it.
        number if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => number,
        other => return serde_json::from_str::<Text>(other).map(|text| text.0),
    };
    Ok(Some(SecretValue::copy_of(text.as_bytes())))
}

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
