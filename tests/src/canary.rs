//! A value that nobody else has, and every form in which it could leak.

use std::fs::File;
use std::io::Read as _;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A random value of two halves, with characters between them that every escaping changes.
pub struct Canary {
    text: String,
    needles: Needles,
}

/// Forms and their bytes, by the first byte: one run through a text looks for all of them.
struct Needles(Vec<Vec<(&'static str, Vec<u8>)>>);

impl Needles {
    fn of(parts: &[&str]) -> Self {
        let mut by_first = vec![Vec::<(&str, Vec<u8>)>::new(); 256];
        for (form, needle) in parts.iter().flat_map(|part| needles(part)) {
            let Some(first) = needle.first() else { continue };
            let known = &mut by_first[usize::from(*first)];
            if !known.iter().any(|(_, other)| *other == needle) {
                known.push((form, needle));
            }
        }
        Self(by_first)
    }
}

impl Canary {
    /// Makes a new one.
    pub fn new() -> Self {
        let (left, right) = (random_hex(), random_hex());
        let text = format!("{left}/\"\\é% +&{right}");
        // A half alone, too: it would show in a text that was cut off, and in any escaped form.
        let needles = Needles::of(&[&text, &left, &right]);
        Self { text, needles }
    }

    /// Takes `text`, which should be long enough to be found nowhere by chance.
    pub fn of(text: &str) -> Self {
        Self { text: text.to_owned(), needles: Needles::of(&[text]) }
    }

    /// Returns the value.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the form in which the value, or a half of it, stands in `bytes`.
    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        bytes.iter().enumerate().find_map(|(at, first)| {
            let candidates = &self.needles.0[usize::from(*first)];
            candidates.iter().find(|(_, needle)| bytes[at..].starts_with(needle)).map(|(form, _)| *form)
        })
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

fn needles(part: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = part.as_bytes();
    let mut needles = vec![
        ("as it is", bytes.to_vec()),
        ("as hex", bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()),
        ("as hex", bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect()),
        ("URL-escaped", url_escaped(bytes).into_bytes()),
        ("JSON-escaped", json_escaped(part).into_bytes()),
    ];
    for shift in 0..3 {
        needles.push(("as base64", aligned(&STANDARD_NO_PAD, bytes, shift)));
        needles.push(("as base64url", aligned(&URL_SAFE_NO_PAD, bytes, shift)));
    }
    needles
}

/// Sixteen random hexadecimal digits.
pub fn random_hex() -> String {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("the kernel has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Percent-encodes everything but letters and digits.
pub fn url_escaped(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(escape).collect()
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a text is always JSON");
    quoted.trim_matches('"').replace('é', "\\u00e9")
}

/// The characters of a base64 text that depend on `bytes` alone when `shift` other bytes stand before them.
fn aligned(engine: &impl base64::Engine, bytes: &[u8], shift: usize) -> Vec<u8> {
    let mut shifted = vec![0; shift];
    shifted.extend(bytes);
    let whole_groups = shifted.len() / 3 * 4;
    let own = (shift * 8).div_ceil(6);
    engine.encode(shifted).into_bytes()[own..whole_groups].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn every_form_is_found_at_every_alignment_and_others_are_not() {
        let canary = Canary::new();
        let text = canary.text();
        for padding in ["", "x", "xy", "xyz"] {
            let padded = format!("{padding}{text}{padding}");
            assert!(canary.found_in(STANDARD_NO_PAD.encode(&padded).as_bytes()).is_some());
            assert!(canary.found_in(URL_SAFE_NO_PAD.encode(&padded).as_bytes()).is_some());
            assert!(canary.found_in(padded.as_bytes()).is_some());
        }
        assert_eq!(canary.found_in(&text.as_bytes()[..20]), Some("as it is"), "a text that was cut off");
        assert!(canary.found_in(serde_json::to_string(text).expect("JSON").as_bytes()).is_some());
        assert!(canary.found_in(format!("{text:?}").as_bytes()).is_some());
        assert!(canary.found_in(url_escaped(text.as_bytes()).as_bytes()).is_some());
        assert_eq!(canary.found_in(Canary::new().text().as_bytes()), None);
        assert_eq!(canary.found_in(b""), None);
    }
}
