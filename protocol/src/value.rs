//! A secret value: bytes that are wiped when dropped and that nothing formats.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use zeroize::Zeroizing;

/// One secret value: any bytes, usually UTF-8 text; may be empty.
///
/// There is no `Debug`, `Display`, `Clone`, `PartialEq` or `Serialize` on purpose: the only way to the bytes is
/// [`expose`](SecretValue::expose), which a reader can grep for. The buffer is overwritten when dropped.
pub struct SecretValue {
    bytes: Zeroizing<Vec<u8>>,
}

impl SecretValue {
    /// Takes ownership of `bytes`; they are wiped, spare capacity included, when the value is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }

    /// Copies `bytes` into a buffer of exactly their size.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// Returns the bytes. Each call states in a comment where they go.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether the value is the empty string, which is a value like any other.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A look at one secret value that lies somewhere else: in a [`SecretValue`], or in memory that a program keeps apart.
///
/// Nothing formats or compares it either; a copy of it is a copy of the reference.
#[derive(Clone, Copy)]
pub struct SecretRef<'a> {
    bytes: &'a [u8],
}

impl<'a> SecretRef<'a> {
    /// Looks at `bytes`, whose owner wipes them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Returns the bytes. Each call states in a comment where they go.
    pub fn expose(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the number of bytes.
    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// Tells whether the value is the empty string.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Tells whether both are the same bytes; takes as long for a late difference as for none.
    pub fn same_as(self, other: Self) -> bool {
        self.len() == other.len()
            && self.bytes.iter().zip(other.bytes).fold(0, |seen, (left, right)| seen | (left ^ right)) == 0
    }
}

impl<'a> From<&'a SecretValue> for SecretRef<'a> {
    fn from(value: &'a SecretValue) -> Self {
        // expose: a look at the same bytes, no copy.
        Self::new(value.expose())
    }
}

/// The key-value pairs of one secret, in byte order of the key; may be empty.
///
/// A sorted list: a secret has few keys, and a reader finds one in a single run through memory.
#[derive(Default)]
pub struct SecretValues(Vec<(String, SecretValue)>);

impl SecretValues {
    /// An empty set of pairs.
    pub fn new() -> Self {
        Self::default()
    }

    fn search(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(key))
    }

    /// Sets `key`; an earlier value of the same key is wiped.
    pub fn insert(&mut self, key: String, value: SecretValue) {
        match self.search(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<SecretValue> {
        self.search(key).ok().map(|at| self.0.remove(at).1)
    }

    /// Returns the value of exactly `key`.
    pub fn get(&self, key: &str) -> Option<&SecretValue> {
        self.position(key).map(|at| self.at(at))
    }

    /// Returns where `key` stands, for [`at`](Self::at); valid until the pairs change.
    pub fn position(&self, key: &str) -> Option<usize> {
        self.search(key).ok()
    }

    /// Returns the value at a position.
    ///
    /// # Panics
    /// When nothing stands there.
    pub fn at(&self, position: usize) -> &SecretValue {
        &self.0[position].1
    }

    /// Iterates in byte order of the key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Iterates over the keys in byte order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether the secret has no pair at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether both have the same keys with the same bytes; takes as long for a late difference as for none.
    pub fn same_as(&self, other: &Self) -> bool {
        // expose: compared, nothing kept.
        let differs = |left: &SecretValue, right: &SecretValue| {
            left.len() != right.len()
                || left.expose().iter().zip(right.expose()).fold(0, |seen, (left, right)| seen | (left ^ right)) != 0
        };
        self.len() == other.len()
            && self.keys().eq(other.keys())
            && !self.iter().zip(other.iter()).fold(false, |seen, ((_, left), (_, right))| seen | differs(left, right))
    }

    /// Returns the bytes of all keys and values together: what size limits and the cache's budget count.
    pub fn byte_size(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl IntoIterator for SecretValues {
    type Item = (String, SecretValue);
    type IntoIter = std::vec::IntoIter<(String, SecretValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Of a key that stands more than once the last value counts.
impl FromIterator<(String, SecretValue)> for SecretValues {
    fn from_iter<I: IntoIterator<Item = (String, SecretValue)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.reverse();
        // Stable, so that of equal keys the last one given comes first and stays.
        pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        pairs.dedup_by(|(later, _), (kept, _)| later == kept);
        Self(pairs)
    }
}

/// Reads a JSON string, or `{"base64": "..."}` for bytes that are not UTF-8.
impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = SecretValue;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or {\"base64\": \"...\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretValue, E> {
                Ok(SecretValue::copy_of(text.as_bytes()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<SecretValue, E> {
                Ok(SecretValue::new(text.into_bytes()))
            }

            // serde's own message would quote these: the offending input may be a secret.
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretValue, E> {
                Err(E::custom("a value that is not a string"))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretValue, E> {
                Err(E::custom("a value that is not a string"))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretValue, E> {
                Err(E::custom("a value that is not a string"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretValue, E> {
                Err(E::custom("a value that is not a string"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretValue, A::Error> {
                let wrong = || de::Error::custom("expected exactly one field, `base64`");
                let Some(key) = map.next_key::<String>()? else { return Err(wrong()) };
                if key != "base64" {
                    return Err(wrong());
                }
                let text: SecretValue = map.next_value()?;
                if map.next_key::<String>()?.is_some() {
                    return Err(wrong());
                }
                // expose: decoded into another wiped buffer.
                crate::template::decode_base64(text.expose())
                    .ok_or_else(|| de::Error::custom("`base64` is not valid base64"))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for SecretValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValuesVisitor;

        impl<'de> Visitor<'de> for ValuesVisitor {
            type Value = SecretValues;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretValues, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, SecretValue>()? {
                    pairs.push(pair);
                }
                let given = pairs.len();
                let values: SecretValues = pairs.into_iter().collect();
                // Two meanings for one key are refused rather than one of them chosen.
                if values.len() < given {
                    return Err(de::Error::custom("a key stands twice"));
                }
                Ok(values)
            }
        }

        deserializer.deserialize_map(ValuesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_string_becomes_a_value_byte_for_byte() {
        let value: SecretValue = serde_json::from_str(r#"" a\u0000b\n""#).expect("a string");
        assert_eq!(value.expose(), b" a\0b\n");
    }

    #[test]
    fn bytes_that_are_not_text_travel_as_base64() {
        let value: SecretValue = serde_json::from_str(r#"{"base64":"/wA="}"#).expect("base64");
        assert_eq!(value.expose(), &[0xff, 0]);
    }

    #[test]
    fn a_number_is_refused_without_being_quoted() {
        let error = serde_json::from_str::<SecretValue>("123456").err().expect("no string").to_string();
        assert!(!error.contains("123456"), "{error}");
    }

    #[test]
    fn pairs_stand_in_byte_order_whatever_order_they_came_in_and_the_last_of_a_key_counts() {
        let pair = |key: &str, value: &str| (key.to_owned(), SecretValue::copy_of(value.as_bytes()));
        let mut values: SecretValues =
            [pair("b", "1"), pair("a", "2"), pair("b", "3"), pair("Z", "4")].into_iter().collect();
        values.insert("aa".to_owned(), SecretValue::copy_of(b"5"));
        values.insert("a".to_owned(), SecretValue::copy_of(b"6"));
        assert_eq!(values.keys().collect::<Vec<_>>(), ["Z", "a", "aa", "b"]);
        assert_eq!(values.get("b").map(SecretValue::expose), Some(b"3".as_slice()));
        assert_eq!(values.remove("a").map(|value| value.len()), Some(1));
        assert!(values.get("a").is_none());
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert!(serde_json::from_str::<SecretValues>(r#"{"a":"1","a":"2"}"#).is_err());
    }
}
