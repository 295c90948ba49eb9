//! A value as ZenML's files and the JSON in its variables have it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// Any value. May be secret, so nothing prints it.
pub(super) enum Given {
    Nothing,
    Switch(bool),
    /// As it would be written.
    Number(String),
    Text(Zeroizing<String>),
    List(Vec<Given>),
    Table(Table),
}

/// Keys, each once, with their values.
pub(super) type Table = BTreeMap<String, Given>;

impl Given {
    /// Returns the value as JSON, keys in byte order.
    pub(super) fn to_json(&self) -> Zeroizing<String> {
        let mut json = Zeroizing::new(String::new());
        self.write_json(&mut json);
        json
    }

    fn write_json(&self, json: &mut String) {
        match self {
            Self::Nothing => json.push_str("null"),
            Self::Switch(switch) => json.push_str(if *switch { "true" } else { "false" }),
            Self::Number(number) => json.push_str(number),
            Self::Text(text) => write_json_text(text, json),
            Self::List(items) => {
                json.push('[');
                for (nth, item) in items.iter().enumerate() {
                    json.push_str(if nth > 0 { "," } else { "" });
                    item.write_json(json);
                }
                json.push(']');
            }
            Self::Table(table) => {
                json.push('{');
                for (nth, (key, value)) in table.iter().enumerate() {
                    json.push_str(if nth > 0 { "," } else { "" });
                    write_json_text(key, json);
                    json.push(':');
                    value.write_json(json);
                }
                json.push('}');
            }
        }
    }
}

fn write_json_text(text: &str, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => {
                // Writing into a text cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Given;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Given, E> {
        Ok(Given::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Given, E> {
        Ok(Given::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given, D::Error> {
        Given::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, switch: bool) -> Result<Given, E> {
        Ok(Given::Switch(switch))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Given, E> {
        Ok(Given::Number(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Given, E> {
        Ok(Given::Number(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Given, E> {
        // JSON has no others; nothing here needs them.
        Ok(if number.is_finite() { Given::Number(number.to_string()) } else { Given::Nothing })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
        Ok(Given::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Given, E> {
        Ok(Given::Text(Zeroizing::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Given, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Given::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut table = Table::new();
        while let Some(key) = map.next_key::<String>()? {
            if table.insert(key, map.next_value()?).is_some() {
                return Err(de::Error::custom("a key stands twice"));
            }
        }
        Ok(Given::Table(table))
    }
}

/// Deserializes a table, and nothing else.
pub(super) fn table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
    match Given::deserialize(deserializer)? {
        Given::Table(table) => Ok(table),
        Given::Nothing => Ok(Table::new()),
        _ => Err(de::Error::custom("this must be a table")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_as_json_is_written_as_the_same_json() {
        for json in
            [r#"{"a":"x\u0001\"\\ü","b":[1,-2,0.5,true,null],"c":{}}"#, "[]", "\"\"", "null", "18446744073709551615"]
        {
            let given: Given = serde_json::from_str(json).expect("JSON");
            assert_eq!(given.to_json().as_str(), json);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert!(serde_json::from_str::<Given>(r#"{"a":1,"a":2}"#).is_err());
    }
}
