//! A JSON object of values, read into memory that is wiped: what ZenML writes into every place but its own file, and
//! what others write who keep several values in one secret.

use std::fmt;

use keyside_protocol::value::{SecretValue, SecretValues};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
use serde_json::value::RawValue;

use super::text::Text;

/// Why a text is no object of values. The parser's own words are dropped: they may quote what they stumbled over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairsError {
    /// Not JSON.
    #[error("not JSON")]
    NotJson,
    /// JSON, but not an object, or one whose members are not all what they must be.
    #[error("not an object of strings")]
    NotStrings,
}

/// Reads an object of strings as Python reads it: of a key that stands twice the last counts, and a `null` is no pair, as
/// ZenML drops it when writing.
pub(crate) fn strings(text: &[u8]) -> Result<SecretValues, PairsError> {
    object::<Text>(text)
}

/// Reads what a secrets manager of ZenML wrote: as [`strings`], but with values that `text::managed` takes.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
pub(crate) fn managed(text: &[u8]) -> Result<SecretValues, PairsError> {
    object::<Managed>(text)
}

/// Reads an object of anything: a string is itself, and everything else, `null` too, is its JSON text as it stands.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
pub(crate) fn anything(text: &[u8]) -> Result<SecretValues, PairsError> {
    object::<Anything>(text)
}

fn object<'de, M: Member<'de>>(text: &'de [u8]) -> Result<SecretValues, PairsError> {
    // Before the parser, which would call other bytes that begin with a digit a number.
    let text = std::str::from_utf8(text).map_err(|_| PairsError::NotJson)?;
    let pairs = serde_json::from_str::<Pairs<M>>(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => PairsError::NotStrings,
        _ => PairsError::NotJson,
    })?;
    Ok(pairs.values)
}

/// What a member of the object may be.
trait Member<'de>: Deserialize<'de> {
    /// `None` for `null`.
    fn into_value(self) -> Option<SecretValue>;
}

struct Pairs<M> {
    values: SecretValues,
    member: std::marker::PhantomData<M>,
}

impl<'de, M: Member<'de>> Deserialize<'de> for Pairs<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<M>(std::marker::PhantomData<M>);

        impl<'de, M: Member<'de>> Visitor<'de> for PairsVisitor<M> {
            type Value = Pairs<M>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<M>, A::Error> {
                let mut values = SecretValues::new();
                while let Some(key) = map.next_key::<String>()? {
                    match map.next_value::<M>()?.into_value() {
                        Some(value) => values.insert(key, value),
                        None => drop(values.remove(&key)),
                    }
                }
                Ok(Pairs { values, member: self.0 })
            }
        }

        deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData))
    }
}

impl Member<'_> for Text {
    fn into_value(self) -> Option<SecretValue> {
        self.0
    }
}

/// What `text::managed` takes.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
struct Managed(Option<SecretValue>);

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
impl Member<'_> for Managed {
    fn into_value(self) -> Option<SecretValue> {
        self.0
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
impl<'de> Deserialize<'de> for Managed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        // The parser's message is dropped by the caller, too.
        super::text::managed(raw).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A string, or the JSON text of anything else.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
struct Anything(SecretValue);

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
impl Member<'_> for Anything {
    fn into_value(self) -> Option<SecretValue> {
        Some(self.0)
    }
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", test))]
impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('"') {
            return Ok(Self(SecretValue::copy_of(raw.as_bytes())));
        }
        // The parser's message is dropped by the caller, too.
        let text = serde_json::from_str::<Text>(raw).map_err(|_| serde::de::Error::custom("no text"))?;
        text.0.map(Self).ok_or_else(|| serde::de::Error::custom("no text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: Result<SecretValues, PairsError>) -> Result<String, PairsError> {
        let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
        values.map(|values| values.iter().map(|(key, value)| format!("{key}={};", text(value))).collect())
    }

    #[test]
    fn an_object_of_strings_is_read_as_python_reads_it() {
        let check = |text: &str, expected: Result<&str, PairsError>| {
            assert_eq!(shown(strings(text.as_bytes())), expected.map(str::to_owned), "{text}");
        };
        check("{}", Ok(""));
        check(r#" {"b": "2", "a": "1\u00e9\ud83d\udd10"} "#, Ok("a=1é🔐;b=2;"));
        check(r#"{"a": "1", "a": "2", "b": null}"#, Ok("a=2;"));
        for text in [r#"{"a": 1}"#, r#"{"a": true}"#, r#"{"a": {}}"#, "[]", "\"x\"", "1", "null"] {
            check(text, Err(PairsError::NotStrings));
        }
        for text in ["", "{", "x", r#"{"a": "1"} x"#, r#"{"a": "\ud800"}"#] {
            check(text, Err(PairsError::NotJson));
        }
        assert_eq!(shown(strings(b"{\"a\": \"\xff\"}")), Err(PairsError::NotJson));
    }

    #[test]
    fn what_a_manager_wrote_is_the_text_that_zenml_makes_of_it() {
        let text = r#"{"s": "a\nb", "on": true, "off": false, "n": -12, "f": 1.5e+22, "q": "true", "z": null, "n": 7}"#;
        let expected = "f=1.5e+22;n=7;off=False;on=True;q=true;s=a\nb;";
        assert_eq!(shown(managed(text.as_bytes())), Ok(expected.to_owned()));
        for text in [r#"{"a": {}}"#, r#"{"a": [true]}"#, "[]", "true"] {
            assert_eq!(shown(managed(text.as_bytes())), Err(PairsError::NotStrings), "{text}");
        }
        for text in [r#"{"a": tru}"#, r#"{"a": 1"#, "hunter2"] {
            assert_eq!(shown(managed(text.as_bytes())), Err(PairsError::NotJson), "{text}");
        }
    }

    #[test]
    fn what_is_no_string_is_its_json_text() {
        let text = r#"{"n": 1.50, "big": 123456789012345678901234567890, "t": true, "o": {"x": [1, "y"]}, "z": null, "s": "a\nb"}"#;
        let expected = "big=123456789012345678901234567890;n=1.50;o={\"x\": [1, \"y\"]};s=a\nb;t=true;z=null;";
        assert_eq!(shown(anything(text.as_bytes())), Ok(expected.to_owned()));
        assert!(anything(b"[1]").is_err());
        assert!(anything(br#"{"a": "\ud800"}"#).is_err());
        assert!(anything(b"{\"a\": 1").is_err());
    }
}
