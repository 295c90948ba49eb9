//! JSON text that holds secret values, written into a buffer that is wiped when dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::value::{SecretRef, SecretValue, SecretValues};

/// A growing byte buffer for text that holds secret values.
///
/// `Vec` leaves a copy behind when it grows; this one wipes the old buffer first.
pub struct SecretBuffer {
    bytes: Zeroizing<Vec<u8>>,
}

impl SecretBuffer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(capacity)) }
    }

    /// Appends `bytes`; when the buffer must grow, the old one is wiped.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.bytes.capacity() * 2)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what was written so far. Each call states where the bytes go.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of bytes written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Turns the text into one secret value without copying it.
    pub fn into_value(mut self) -> SecretValue {
        SecretValue::new(std::mem::take(&mut *self.bytes))
    }
}

impl AsRef<[u8]> for SecretBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(out: &mut SecretBuffer, text: &str) {
    out.push(b"\"");
    push_escaped(out, text);
    out.push(b"\"");
}

/// Appends `text` escaped for the inside of a JSON string (RFC 8259, section 7), without quotes.
pub fn push_escaped(out: &mut SecretBuffer, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    loop {
        at += plain_length(&bytes[at..]);
        let Some(&byte) = bytes.get(at) else { break };
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            _ => &[],
        };
        out.push(&bytes[plain..at]);
        at += 1;
        plain = at;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(escape);
        }
    }
    out.push(&bytes[plain..]);
}

/// Returns how many bytes stand before the first that must be escaped.
fn plain_length(bytes: &[u8]) -> usize {
    let is_escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f);
    // Whole pieces without a branch for each byte: the compiler makes vector instructions of that.
    let is_plain = |piece: &&[u8]| piece.iter().fold(0, |any, byte| any | u8::from(is_escaped(*byte))) == 0;
    let pieces = bytes.chunks_exact(PIECE).take_while(is_plain).count() * PIECE;
    pieces + bytes[pieces..].iter().position(|byte| is_escaped(*byte)).unwrap_or(bytes.len() - pieces)
}

/// Bytes that are looked at together.
const PIECE: usize = 32;

/// Appends a value: a JSON string, or `{"base64": "..."}` when the bytes are not UTF-8.
pub fn push_value<'a>(out: &mut SecretBuffer, value: impl Into<SecretRef<'a>>) {
    // expose: into the wiped buffer of a reply.
    let bytes = value.into().expose();
    match std::str::from_utf8(bytes) {
        Ok(text) => push_string(out, text),
        Err(_) => {
            let mut encoded = Zeroizing::new(vec![0; base64::encoded_len(bytes.len(), true).unwrap_or(0)]);
            let written = STANDARD.encode_slice(bytes, &mut encoded).unwrap_or(0);
            out.push(b"{\"base64\":\"");
            out.push(&encoded[..written]);
            out.push(b"\"}");
        }
    }
}

/// Appends `{"key": value, ...}` in byte order of the key.
pub fn push_values<'a, V: Into<SecretRef<'a>>>(out: &mut SecretBuffer, values: impl Iterator<Item = (&'a str, V)>) {
    out.push(b"{");
    for (index, (key, value)) in values.enumerate() {
        if index > 0 {
            out.push(b",");
        }
        push_string(out, key);
        out.push(b":");
        push_value(out, value);
    }
    out.push(b"}");
}

/// Returns `{"key": value, ...}` as text in a wiped buffer.
pub fn values_to_json(values: &SecretValues) -> SecretBuffer {
    let mut out = SecretBuffer::with_capacity(values.byte_size() + values.len() * 8 + 16);
    push_values(&mut out, values.iter());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back_as_it_was_written() {
        for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}", "naïve 🔐 \u{2028}"] {
            let mut out = SecretBuffer::with_capacity(0);
            push_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(out.expose()).expect("valid JSON"), text);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_marked() {
        let mut out = SecretBuffer::with_capacity(0);
        push_value(&mut out, &SecretValue::new(vec![0xff, 0]));
        assert_eq!(out.expose(), br#"{"base64":"/wA="}"#);
    }
}
