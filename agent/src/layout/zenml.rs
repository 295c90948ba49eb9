//! How ZenML encodes the values of one secret in its own SQL table.
//!
//! The pairs are the text of one JSON object, written as Python's `json.dumps` writes it. Stored is either the base64
//! of that text, or the base64 of `nonce (12) | tag (16) | ciphertext` of AES-256-GCM without associated data, whose
//! key is the SHA-256 of the configured string (the `AesGcmEngine` of sqlalchemy-utils). Nothing marks which of the
//! two it is.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::SecretValues;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::pairs::{self, PairsError};

/// ZenML's limit for all keys and values of one secret together, in bytes of UTF-8 (0.98).
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

const TAG_BYTES: usize = 16;

/// The key of ZenML's SQL secrets store.
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl StoreKey {
    /// Derives the key from the configured string. `None` when it is empty: ZenML then does not encrypt.
    pub fn derive(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Zeroizing::new(Sha256::digest(text.as_bytes()).into())))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&(*self.0).into())
    }
}

/// Why stored bytes are no pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No key is configured, and the bytes look encrypted.
    #[error("the values are encrypted and no encryption key is configured")]
    Encrypted,
    /// A key is configured, and the bytes are plain.
    #[error("the values are not encrypted but an encryption key is configured")]
    NotEncrypted,
    /// The configured key does not fit, or the bytes were changed.
    #[error("the encryption key does not fit")]
    WrongKey,
    /// Not base64.
    #[error("the stored values are not base64")]
    NotBase64,
    /// Not JSON.
    #[error("the stored values are not JSON")]
    NotJson,
    /// JSON, but not an object whose members are strings.
    #[error("the stored values are not an object of strings")]
    NotStrings,
}

/// Why pairs cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// ZenML's values are text.
    #[error("the value of key `{0}` is not UTF-8 text")]
    NotText(String),
    /// More than [`MAX_SECRET_BYTES`].
    #[error("keys and values together are {0} bytes, ZenML allows 65536")]
    TooLarge(usize),
}

/// Returns the pairs that `stored` holds. Blanks and line ends between base64 digits are skipped, as Python does. Of
/// a key that stands twice the last counts, also as in Python; a `null` is no pair, as ZenML drops it when writing.
pub fn decode(stored: &[u8], key: Option<&StoreKey>) -> Result<SecretValues, DecodeError> {
    let mut bytes = decode_base64(stored).ok_or(DecodeError::NotBase64)?;
    match key {
        None => parse(&bytes).map_err(|error| match error {
            DecodeError::NotJson if could_be_encrypted(&bytes) => DecodeError::Encrypted,
            error => error,
        }),
        Some(key) if decrypt(&mut bytes, key) => parse(&bytes[NONCE_BYTES + TAG_BYTES..]),
        Some(_) if parse(&bytes).is_ok() => Err(DecodeError::NotEncrypted),
        Some(_) => Err(DecodeError::WrongKey),
    }
}

/// Returns the text to store: base64, plain without `key`. `nonce` must never be used twice with one key.
///
/// The keys stand in byte order (Python keeps the order they were given in, which nothing reads).
pub fn encode(values: &SecretValues, key: Option<(&StoreKey, [u8; NONCE_BYTES])>) -> Result<SecretBuffer, EncodeError> {
    let size = values.byte_size();
    if size > MAX_SECRET_BYTES {
        return Err(EncodeError::TooLarge(size));
    }
    let Some((key, nonce)) = key else {
        // expose: into another wiped buffer.
        return Ok(encode_base64(to_json(values, 0)?.expose()));
    };
    let text = to_json(values, NONCE_BYTES + TAG_BYTES)?;
    // expose: encrypted in place, in another wiped buffer.
    let mut bytes = Zeroizing::new(text.expose().to_vec());
    drop(text);
    let (head, body) = bytes.split_at_mut(NONCE_BYTES + TAG_BYTES);
    let tag = key
        .cipher()
        .encrypt_inout_detached(&Nonce::from(nonce), &[], body.into())
        .expect("far less than the cipher's 64 GiB");
    head[..NONCE_BYTES].copy_from_slice(&nonce);
    head[NONCE_BYTES..].copy_from_slice(&tag);
    Ok(encode_base64(&bytes))
}

fn decode_base64(stored: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut digits = Zeroizing::new(Vec::with_capacity(stored.len()));
    digits.extend(stored.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(digits.len())]);
    let length = STANDARD.decode_slice(&*digits, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn encode_base64(bytes: &[u8]) -> SecretBuffer {
    let mut text = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    let length = STANDARD.encode_slice(bytes, &mut text).expect("the buffer has the size of the encoding");
    let mut out = SecretBuffer::with_capacity(length);
    out.push(&text[..length]);
    out
}

/// Nonce, tag and at least `{}`, and not text: so many random bytes are hardly ever UTF-8.
fn could_be_encrypted(bytes: &[u8]) -> bool {
    bytes.len() >= NONCE_BYTES + TAG_BYTES + 2 && std::str::from_utf8(bytes).is_err()
}

/// Decrypts what follows nonce and tag in place; `false`, and nothing changed, when the tag does not fit.
fn decrypt(bytes: &mut [u8], key: &StoreKey) -> bool {
    let Some((nonce, rest)) = bytes.split_first_chunk_mut::<NONCE_BYTES>() else { return false };
    let Some((tag, body)) = rest.split_first_chunk_mut::<TAG_BYTES>() else { return false };
    key.cipher().decrypt_inout_detached(&Nonce::from(*nonce), &[], body.into(), &Tag::from(*tag)).is_ok()
}

fn parse(text: &[u8]) -> Result<SecretValues, DecodeError> {
    pairs::strings(text).map_err(|error| match error {
        PairsError::NotJson => DecodeError::NotJson,
        PairsError::NotStrings => DecodeError::NotStrings,
    })
}

/// The text of `json.dumps`, after `room` bytes of zeros.
fn to_json(values: &SecretValues, room: usize) -> Result<SecretBuffer, EncodeError> {
    let mut out = SecretBuffer::with_capacity(room + values.byte_size() + values.len() * 8 + 2);
    out.push(&[0; NONCE_BYTES + TAG_BYTES][..room]);
    out.push(b"{");
    for (index, (key, value)) in values.iter().enumerate() {
        if index > 0 {
            out.push(b", ");
        }
        push_python_string(&mut out, key);
        out.push(b": ");
        // expose: into a wiped buffer.
        let text = std::str::from_utf8(value.expose()).map_err(|_| EncodeError::NotText(key.to_owned()))?;
        push_python_string(&mut out, text);
    }
    out.push(b"}");
    Ok(out)
}

/// Appends `text` as `json.dumps` does with `ensure_ascii`: all but printable ASCII as UTF-16 escapes in lower case.
fn push_python_string(out: &mut SecretBuffer, text: &str) {
    out.push(b"\"");
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escape: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            '\u{8}' => b"\\b",
            '\u{c}' => b"\\f",
            '\u{0}'..='\u{1f}' | '\u{7f}'.. => b"",
            _ => continue,
        };
        out.push(&text.as_bytes()[plain..at]);
        plain = at + character.len_utf8();
        if escape.is_empty() {
            for unit in character.encode_utf16(&mut [0; 2]) {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digit = |shift: u16| HEX[usize::from((*unit >> shift) & 15)];
                out.push(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
        } else {
            out.push(escape);
        }
    }
    out.push(&text.as_bytes()[plain..]);
    out.push(b"\"");
}

#[cfg(test)]
mod tests {
    use keyside_protocol::value::SecretValue;
    use proptest::prelude::*;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> SecretValues {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value.as_bytes()))).collect()
    }

    fn shown(values: &SecretValues) -> Vec<(String, String)> {
        let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
        values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
    }

    fn plain(json: &str) -> Vec<u8> {
        STANDARD.encode(json).into_bytes()
    }

    fn key(text: &str) -> StoreKey {
        StoreKey::derive(text).expect("not empty")
    }

    #[test]
    fn pairs_are_written_byte_for_byte_as_python_writes_them() {
        // Right: json.dumps({...}) of Python 3.11.
        let check = |pairs: &[(&str, &str)], json: &str| {
            let text = to_json(&values(pairs), 0).expect("text");
            assert_eq!(String::from_utf8_lossy(text.expose()), json);
        };
        check(&[], "{}");
        check(&[("a", "1"), ("b", "")], r#"{"a": "1", "b": ""}"#);
        check(&[("k", "\"\\/\u{8}\u{c}\n\r\t")], r#"{"k": "\"\\/\b\f\n\r\t"}"#);
        check(&[("k", "\0\u{1}\u{b}\u{1f} ~\u{7f}")], r#"{"k": "\u0000\u0001\u000b\u001f ~\u007f"}"#);
        check(&[("ключ", "ï\u{80}\u{2028}")], r#"{"\u043a\u043b\u044e\u0447": "\u00ef\u0080\u2028"}"#);
        check(&[("🔐", "\u{ffff}\u{10000}\u{10ffff}")], r#"{"\ud83d\udd10": "\uffff\ud800\udc00\udbff\udfff"}"#);
        assert_eq!(encode(&values(&[]), None).expect("empty").expose(), b"e30=");
    }

    #[test]
    fn what_the_real_library_stored_is_read() {
        // From ZenML 0.98.0: the same empty secret plain, and under the key of the fixtures.
        assert!(decode(b"e30=", None).expect("plain").is_empty());
        let stored = b"yqmE6x3pUJuPhdJ5QGbvCvsg6Ua1ZF8Md8iWby7f";
        assert!(decode(stored, Some(&key("fixture-encryption-key-Ünïcode"))).expect("encrypted").is_empty());
    }

    #[test]
    fn a_wrong_a_missing_and_a_needless_key_are_told_apart() {
        let check = |stored: &[u8], key: Option<&StoreKey>, expected| {
            assert_eq!(decode(stored, key).err(), Some(expected), "{}", String::from_utf8_lossy(stored));
        };
        let stored = b"yqmE6x3pUJuPhdJ5QGbvCvsg6Ua1ZF8Md8iWby7f";
        check(stored, None, DecodeError::Encrypted);
        check(stored, Some(&key("another")), DecodeError::WrongKey);
        check(b"e30=", Some(&key("any")), DecodeError::NotEncrypted);
        check(&plain(r#"{"a": "1"}"#), Some(&key("any")), DecodeError::NotEncrypted);
        check(&plain("x"), Some(&key("any")), DecodeError::WrongKey);
    }

    #[test]
    fn an_empty_key_is_no_key() {
        assert!(StoreKey::derive("").is_none());
    }

    #[test]
    fn damaged_values_are_refused() {
        let check = |stored: &[u8], expected| assert_eq!(decode(stored, None).err(), Some(expected));
        check(b"{}", DecodeError::NotBase64);
        check(b"e30", DecodeError::NotBase64);
        check(b"", DecodeError::NotJson);
        check(&plain("{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": "), DecodeError::NotJson);
        check(&plain(r#"{"a": "\ud800"}"#), DecodeError::NotJson);
        check(&plain("[]"), DecodeError::NotStrings);
        check(&plain("\"x\""), DecodeError::NotStrings);
        for value in ["1", "1.5", "true", "[]", "{}"] {
            check(&plain(&format!("{{\"a\": {value}}}")), DecodeError::NotStrings);
        }
    }

    #[test]
    fn pairs_are_read_as_python_reads_them() {
        let check = |stored: &[u8], expected: &[(&str, &str)]| {
            let values = decode(stored, None).expect("pairs");
            let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(shown(&values), expected);
        };
        check(b"eyJhIjog\nIjEifQ==\n", &[("a", "1")]);
        check(&plain(r#"{"a": "1", "a": "2"}"#), &[("a", "2")]);
        check(&plain(r#"{"a": "1", "b": null, "a": null}"#), &[]);
        check(&plain(r#" { "a":"\u00e9é\ud83d\udd10" } "#), &[("a", "éé🔐")]);
    }

    #[test]
    fn what_zenml_could_not_hold_is_refused() {
        let too_large = values(&[("a", &"y".repeat(MAX_SECRET_BYTES))]);
        assert_eq!(encode(&too_large, None).err(), Some(EncodeError::TooLarge(MAX_SECRET_BYTES + 1)));
        assert!(encode(&values(&[("a", &"y".repeat(MAX_SECRET_BYTES - 1))]), None).is_ok());
        let bytes = [("k".to_owned(), SecretValue::new(vec![0xff]))].into_iter().collect();
        assert_eq!(encode(&bytes, None).err(), Some(EncodeError::NotText("k".into())));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            pairs in proptest::collection::btree_map("\\PC{0,8}|[\\x00-\\x7f]{0,4}", "(?s).{0,40}", 0..6),
            nonce in any::<[u8; NONCE_BYTES]>(),
            key_text in "\\PC{1,20}",
        ) {
            let key = key(&key_text);
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let values = values(&pairs);
            let plain = encode(&values, None).expect("text");
            let encrypted = encode(&values, Some((&key, nonce))).expect("text");
            prop_assert_eq!(shown(&decode(plain.expose(), None).expect("plain")), shown(&values));
            prop_assert_eq!(shown(&decode(encrypted.expose(), Some(&key)).expect("encrypted")), shown(&values));
            prop_assert_eq!(decode(encrypted.expose(), None).err(), Some(DecodeError::Encrypted));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(stored in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&stored, None);
            let _ = decode(&stored, Some(&key("k")));
            let _ = decode(STANDARD.encode(&stored).as_bytes(), None);
        }
    }
}
