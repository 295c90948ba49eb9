//! Changes one secret in the text and leaves every other byte as it stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::SecretValues;
use zeroize::Zeroizing;

use super::SCHEMA_KEY;
use super::read::Document;
use super::scalar::{push_key, push_value};

/// Why the text cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Anchors, aliases, braces around everything, or an end marker: a change would have to write all of it anew.
    #[error("is written in a form that ZenML does not write")]
    Foreign,
    /// What came out would not be read as what was meant.
    #[error("cannot be changed in that place")]
    Unsound,
}

/// A value that is not text, with its key: ZenML could not read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of key `{0}` is not text")]
pub struct NotText(pub String);

/// Returns the lines of one secret as ZenML's dumper writes them, keys in order.
pub fn encode_entry(name: &str, values: &SecretValues, schema: Option<&str>) -> Result<SecretBuffer, NotText> {
    // expose: looked at for what ZenML could not read.
    if let Some((key, _)) = values.iter().find(|(_, value)| std::str::from_utf8(value.expose()).is_err()) {
        return Err(NotText(key.to_owned()));
    }
    let mut out = SecretBuffer::with_capacity(values.byte_size() * 2 + name.len() + 64);
    push_key(&mut out, name, "");
    let is_broken = out.expose().starts_with(b"? ");
    let mut keys: Vec<&str> = values.keys().chain(schema.map(|_| SCHEMA_KEY)).collect();
    keys.sort_unstable();
    if keys.is_empty() {
        out.push(b" {}\n");
    }
    for (at, key) in keys.iter().enumerate() {
        match (at, is_broken) {
            (0, true) => out.push(b" "),
            (0, false) => out.push(b"\n  "),
            (_, _) => out.push(b"  "),
        }
        push_key(&mut out, key, "  ");
        out.push(b" ");
        match (values.get(key), schema) {
            (Some(value), _) => {
                // expose: encoded into a buffer that is wiped.
                let bytes = value.expose();
                let mut digits = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
                let length =
                    STANDARD.encode_slice(bytes, &mut digits).expect("the buffer has the size of the encoding");
                push_value(&mut out, std::str::from_utf8(&digits[..length]).expect("base64 is ASCII"));
            }
            (None, schema) => push_value(&mut out, schema.unwrap_or_default()),
        }
        out.push(b"\n");
    }
    Ok(out)
}

impl Document<'_> {
    /// Returns the text without the secret `removed` and with `added`, a name and its lines. What replaces a secret of
    /// the same name takes its place; what is new goes where the order of names has it.
    ///
    /// Errors: `Foreign` when this text is not made of lines for each secret; `Unsound` when reading the result would
    /// not give what was meant, which should not happen.
    pub fn with(&self, removed: Option<&str>, added: Option<(&str, &SecretBuffer)>) -> Result<SecretBuffer, EditError> {
        if !self.editable {
            return Err(EditError::Foreign);
        }
        let is = |at: usize, name: Option<&str>| name.is_some() && self.entries[at].name.as_deref() == name;
        let place = added.map(|(name, _)| {
            let same = (0..self.entries.len()).find(|at| is(*at, Some(name)) && is(*at, removed));
            let later = |at: &usize| self.entries[*at].name.as_deref().is_some_and(|other| other > name);
            same.or_else(|| (0..self.entries.len()).find(later)).unwrap_or(self.entries.len())
        });
        let mut out = SecretBuffer::with_capacity(self.text.len() + added.map_or(0, |(_, lines)| lines.len()) + 4);
        let head = self.entries.first().map_or(self.root, |first| first.start);
        out.push(&self.text.as_bytes()[..head]);
        let mut kept = 0usize;
        for at in 0..=self.entries.len() {
            if let Some((_, lines)) = added.filter(|_| place == Some(at)) {
                // expose: into the next text, which is wiped as well.
                push_lines(&mut out, lines.expose());
                kept += 1;
            }
            if at == self.entries.len() || is(at, removed) {
                continue;
            }
            let end = self.entries.get(at + 1).map_or(self.text.len(), |next| next.start);
            push_lines(&mut out, &self.text.as_bytes()[self.entries[at].start..end]);
            kept += 1;
        }
        if kept == 0 {
            push_lines(&mut out, b"{}\n");
        }
        let names: Vec<&str> = removed.into_iter().chain(added.map(|(name, _)| name)).collect();
        // expose: read back before anybody relies on it.
        let read = std::str::from_utf8(out.expose()).ok().and_then(|text| Document::parse(text).ok());
        match read {
            Some(read) if read.agrees_with(self, &names) && read.holds(removed, added) => {}
            _ => return Err(EditError::Unsound),
        }
        Ok(out)
    }

    /// Tells whether what was added is there, as it was meant, and what was removed is not.
    fn holds(&self, removed: Option<&str>, added: Option<(&str, &SecretBuffer)>) -> bool {
        let is_gone = removed.is_none_or(|name| added.is_some_and(|(new, _)| new == name) || self.get(name).is_none());
        let is_there = added.is_none_or(|(name, lines)| {
            // expose: read back.
            let alone = std::str::from_utf8(lines.expose()).ok().and_then(|text| Document::parse(text).ok());
            matches!(self.get(name), Some(Ok(_)))
                && alone.is_some_and(|alone| digest(self, name) == digest(&alone, name))
        });
        is_gone && is_there
    }
}

/// What stands under a name, in one buffer that is wiped.
fn digest(document: &Document<'_>, name: &str) -> Zeroizing<Vec<u8>> {
    let mut all = SecretBuffer::with_capacity(256);
    document.feed(name, |bytes| all.push(bytes));
    // expose: compared only.
    Zeroizing::new(all.expose().to_vec())
}

/// Appends lines, behind a line break where the last line has none.
fn push_lines(out: &mut SecretBuffer, lines: &[u8]) {
    // expose: the last byte only.
    if out.expose().last().is_some_and(|last| *last != b'\n') {
        out.push(b"\n");
    }
    out.push(lines);
}

/// Tells whether a line ends the document, behind which nothing may be added.
pub(super) fn has_end_marker(text: &str) -> bool {
    text.lines()
        .any(|line| line.strip_prefix("...").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])))
}
