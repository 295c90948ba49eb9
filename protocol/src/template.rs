//! Text with references embedded in it: `postgres://{{db.user | url}}:{{db.password | url}}@host/`.
//!
//! The reader goes from one `{{` to the next and never backwards: what a placeholder may hold excludes braces, so an
//! attempt to read one ends, at the latest, where the next can begin, and any text is read in linear time.

use std::convert::Infallible;
use std::fmt;
use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::json::{SecretBuffer, push_escaped};
use crate::reference::{Reference, is_blank, is_brace};
use crate::value::{SecretRef, SecretValue};

/// The most bytes that [`Template::render`] makes out of several parts or through a filter.
///
/// Some bound is needed: a template that names a value of a megabyte a thousand times fits in a small request, and each
/// `json` may double what the one before it wrote.
pub const MAX_RENDERED_BYTES: usize = 16 * 1024 * 1024;

/// A filter that a placeholder's value passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Percent-encodes everything but unreserved characters (RFC 3986).
    Url,
    /// Escapes for the inside of a JSON string; the bytes must be UTF-8.
    Json,
    /// Standard base64 with padding.
    Base64,
    /// Decodes standard base64.
    Base64Decode,
}

/// A parsed template: literal text and placeholders in order.
// No literal is empty, no two stand side by side, and none before a placeholder ends in exactly one `{`, since no text
// says that: what is printed relies on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Placeholder { reference: Reference, filters: Vec<Filter> },
}

/// A malformed template: what, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed template at line {line}, column {column}: {what}")]
pub struct TemplateError {
    /// The line of the malformed `{{`, 1-based.
    pub line: usize,
    /// The column of the malformed `{{`, 1-based, in characters.
    pub column: usize,
    /// What is wrong, lower case, on one line.
    pub what: String,
    /// The template from the malformed `{{` on: at most 64 characters, and no further than the end of the line.
    pub snippet: String,
}

/// A value that a filter cannot take, or too much of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// `json` on bytes that are not UTF-8.
    #[error("the value of {0} is not UTF-8, so `json` cannot escape it")]
    NotText(Reference),
    /// `base64d` on something else.
    #[error("the value of {0} is not base64, so `base64d` cannot decode it")]
    NotBase64(Reference),
    /// The result, or a value on its way through the filters, has more bytes than this.
    #[error("a template that renders to more than {0} bytes")]
    TooLarge(usize),
}

impl Filter {
    /// All filters, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Url, Self::Json, Self::Base64, Self::Base64Decode];

    /// Returns the filter's name in a template.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Json => "json",
            Self::Base64 => "base64",
            Self::Base64Decode => "base64d",
        }
    }

    /// Passes `bytes` through the filter into a wiped buffer of at most `limit` bytes.
    fn apply(self, bytes: &[u8], limit: usize, reference: &Reference) -> Result<SecretValue, RenderError> {
        match self {
            Self::Url => url_encode(bytes, limit),
            Self::Json => match std::str::from_utf8(bytes) {
                Ok(text) => json_escape(text, limit),
                // The error itself tells where in the value the fault is, so it is dropped.
                Err(_) => Err(RenderError::NotText(reference.clone())),
            },
            Self::Base64 => base64_encode(bytes, limit),
            Self::Base64Decode => decode_base64(bytes).ok_or_else(|| RenderError::NotBase64(reference.clone())),
        }
    }
}

impl Template {
    /// Parses a template; any malformed `{{` is an error.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::read(text, |open, fault| Err(TemplateError::at(text, open, &fault)))
    }

    /// Parses a template and leaves every malformed `{{` as it stands, with the backslashes before it; reading goes on
    /// behind it. An escaped `\{{` gives `{{`, as always.
    pub fn parse_lenient(text: &str) -> Self {
        match Self::read(text, |_, _| Ok::<(), Infallible>(())) {
            Ok(template) => template,
        }
    }

    /// Iterates over the references, in order, repeats included.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Placeholder { reference, .. } => Some(reference),
            Segment::Literal(_) => None,
        })
    }

    /// Tells whether the template holds no reference at all.
    pub fn is_literal(&self) -> bool {
        self.references().next().is_none()
    }

    /// Returns the reference when the template is one placeholder without filters and nothing else: its rendered value
    /// is then the reference's own, byte for byte.
    pub fn as_single_reference(&self) -> Option<&Reference> {
        match self.segments.as_slice() {
            [Segment::Placeholder { reference, filters }] if filters.is_empty() => Some(reference),
            _ => None,
        }
    }

    /// Puts the values in, each once: what a value holds is data and never read as a template again.
    ///
    /// `value_of` is asked only for references that [`references`](Self::references) lists, possibly more than once.
    ///
    /// # Errors
    /// When a filter cannot take a value, or the result has more than [`MAX_RENDERED_BYTES`].
    pub fn render<'v, V: Into<SecretRef<'v>>>(
        &self,
        value_of: impl Fn(&Reference) -> V,
    ) -> Result<SecretValue, RenderError> {
        self.render_within(MAX_RENDERED_BYTES, value_of)
    }

    /// Does what [`render`](Self::render) does with another bound, in bytes. A single placeholder without filters has no
    /// bound but its value's own size.
    pub fn render_within<'v, V: Into<SecretRef<'v>>>(
        &self,
        limit: usize,
        value_of: impl Fn(&Reference) -> V,
    ) -> Result<SecretValue, RenderError> {
        let value_of = |reference: &Reference| value_of(reference).into();
        if let Some(reference) = self.as_single_reference() {
            // expose: copied into the rendered value.
            return Ok(SecretValue::copy_of(value_of(reference).expose()));
        }
        let expected = self.segments.iter().fold(0, |sum: usize, segment| {
            sum.saturating_add(match segment {
                Segment::Literal(text) => text.len(),
                Segment::Placeholder { reference, .. } => value_of(reference).len(),
            })
        });
        let mut out = SecretBuffer::with_capacity(expected.min(limit));
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => push_within(&mut out, text.as_bytes(), limit)?,
                Segment::Placeholder { reference, filters } => {
                    let value = value_of(reference);
                    match filters.split_first() {
                        // expose: copied into the rendered value.
                        None => push_within(&mut out, value.expose(), limit)?,
                        Some((first, others)) => {
                            // expose: through the first filter into a wiped buffer.
                            let mut filtered = first.apply(value.expose(), limit, reference)?;
                            for filter in others {
                                // expose: through the next filter into a wiped buffer.
                                filtered = filter.apply(filtered.expose(), limit, reference)?;
                            }
                            // expose: copied into the rendered value.
                            push_within(&mut out, filtered.expose(), limit)?;
                        }
                    }
                }
            }
        }
        Ok(out.into_value())
    }

    /// Reads `text`, and asks `on_malformed` about every `{{` (its byte offset, and what is wrong) that is no
    /// placeholder: an error ends the reading, otherwise the `{{` is left as it stands.
    fn read<'t, E>(text: &'t str, mut on_malformed: impl FnMut(usize, Fault<'t>) -> Result<(), E>) -> Result<Self, E> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("{{") {
            let open = at + found;
            let before = &text[at..open];
            let plain = before.trim_end_matches('\\');
            let backslashes = &before[plain.len()..];
            let halved = &backslashes[..backslashes.len() / 2];
            literal.push_str(plain);
            at = open + "{{".len();
            if backslashes.len() % 2 == 1 {
                literal.push_str(halved);
                literal.push_str("{{");
                continue;
            }
            match read_placeholder(&text[at..]) {
                Ok((placeholder, rest)) => {
                    literal.push_str(halved);
                    if !literal.is_empty() {
                        segments.push(Segment::Literal(mem::take(&mut literal)));
                    }
                    segments.push(placeholder);
                    at = text.len() - rest.len();
                }
                Err(fault) => {
                    on_malformed(open, fault)?;
                    literal.push_str(backslashes);
                    literal.push_str("{{");
                }
            }
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        Ok(Self { segments })
    }
}

/// Prints canonical text, which parses to the same template: no blanks in placeholders but around `|`, and a backslash
/// before each literal `{{`.
impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut segments = self.segments.iter().peekable();
        while let Some(segment) = segments.next() {
            match segment {
                Segment::Literal(text) => {
                    let tail = write_escaped(formatter, text)?;
                    if segments.peek().is_some() {
                        formatter.write_str(trailing_backslashes(tail))?;
                    }
                }
                Segment::Placeholder { reference, filters } => {
                    write!(formatter, "{{{{{}.{}", reference.name(), reference.key())?;
                    for filter in filters {
                        write!(formatter, " | {}", filter.as_str())?;
                    }
                    formatter.write_str("}}")?;
                }
            }
        }
        Ok(())
    }
}

/// Writes literal text so that it reads back as it is; returns what stands behind the last `{{` in it.
fn write_escaped<'t>(formatter: &mut fmt::Formatter<'_>, text: &'t str) -> Result<&'t str, fmt::Error> {
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, run) = rest.split_at(open);
        let after = run.trim_start_matches('{');
        let braces = run.len() - after.len();
        // An odd brace goes first, where no escape stands before it: last, it would make a `{{` with a placeholder's.
        let doubled = if braces % 2 == 1 { "{" } else { trailing_backslashes(before) };
        write!(formatter, "{before}{doubled}")?;
        for _ in 0..braces / 2 {
            formatter.write_str(r"\{{")?;
        }
        rest = after;
    }
    formatter.write_str(rest)?;
    Ok(rest)
}

fn trailing_backslashes(text: &str) -> &str {
    &text[text.trim_end_matches('\\').len()..]
}

impl TemplateError {
    const SNIPPET_CHARS: usize = 64;

    /// Builds the error for the malformed `{{` at byte `open` of `text`.
    fn at(text: &str, open: usize, fault: &Fault<'_>) -> Self {
        let before = &text[..open];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: fault.to_string(),
            snippet: text[open..].chars().take(Self::SNIPPET_CHARS).take_while(|c| !matches!(c, '\n' | '\r')).collect(),
        }
    }

    /// Returns what to try.
    pub fn hint(&self) -> &'static str {
        r"write {{name.key}}, optionally with filters as in {{name.key | url}}, or \{{ for a literal {{"
    }
}

/// Why a `{{` opens no placeholder. Borrows from the template, so that skipping many of them costs nothing.
#[derive(thiserror::Error, Debug)]
enum Fault<'t> {
    #[error("`{{{{` is not closed by `}}}}`")]
    Unclosed,
    #[error("nothing stands between `{{{{` and `}}}}`")]
    Empty,
    #[error("three braces in a row: set the first apart with a blank")]
    ThreeBraces,
    #[error("a placeholder needs a name, a dot and a key")]
    NoDot,
    #[error("no name stands before the dot")]
    NoName,
    #[error("a name holds neither blank nor brace, and a dot follows it")]
    InName,
    #[error("no key stands after the dot")]
    NoKey,
    #[error("a key holds neither blank nor brace, and `|` or `}}}}` follows it")]
    AfterKey,
    #[error("no filter stands after `|`; the filters are {}", FilterList)]
    NoFilter,
    #[error("unknown filter `{}`; the filters are {}", Clipped(.0), FilterList)]
    UnknownFilter(&'t str),
    #[error("after the filter `{}` only `|` or `}}}}` may follow", .0.as_str())]
    AfterFilter(Filter),
}

/// Lists the filters for a message.
struct FilterList;

impl fmt::Display for FilterList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, filter) in Filter::ALL.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}`{}`", filter.as_str())?;
        }
        Ok(())
    }
}

/// Prints the start of a word from the template on one line.
struct Clipped<'t>(&'t str);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS: usize = 32;
        let mut rest = self.0.chars();
        write!(formatter, "{}", rest.by_ref().take(CHARS).collect::<String>().escape_debug())?;
        if rest.next().is_some() { formatter.write_str("...") } else { Ok(()) }
    }
}

/// Reads a placeholder from behind its `{{`; returns it and what follows its `}}`.
fn read_placeholder(text: &str) -> Result<(Segment, &str), Fault<'_>> {
    if text.starts_with('{') {
        return Err(Fault::ThreeBraces);
    }
    let (name, rest) = cut(skip_blanks(text), |c| c == '.' || is_blank(c) || is_brace(c));
    let Some(rest) = rest.strip_prefix('.') else {
        let rest = skip_blanks(rest);
        return Err(match (rest.starts_with("}}"), rest.is_empty()) {
            (_, true) => Fault::Unclosed,
            (true, _) if name.is_empty() => Fault::Empty,
            (true, _) => Fault::NoDot,
            (false, _) => Fault::InName,
        });
    };
    if name.is_empty() {
        return Err(Fault::NoName);
    }
    let (key, rest) = cut(rest, |c| c == '|' || is_blank(c) || is_brace(c));
    if key.is_empty() {
        return Err(if rest.is_empty() { Fault::Unclosed } else { Fault::NoKey });
    }

    let mut filters = Vec::new();
    let mut rest = skip_blanks(rest);
    loop {
        if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((Segment::Placeholder { reference: Reference::from_parts(name, key), filters }, behind));
        }
        let Some(behind) = rest.strip_prefix('|') else {
            return Err(match filters.last() {
                _ if rest.is_empty() => Fault::Unclosed,
                Some(&filter) => Fault::AfterFilter(filter),
                None => Fault::AfterKey,
            });
        };
        let (word, behind) = cut(skip_blanks(behind), |c| c == '|' || is_blank(c) || is_brace(c));
        match Filter::ALL.into_iter().find(|filter| filter.as_str() == word) {
            Some(filter) => filters.push(filter),
            None if !word.is_empty() => return Err(Fault::UnknownFilter(word)),
            None if behind.is_empty() => return Err(Fault::Unclosed),
            None => return Err(Fault::NoFilter),
        }
        rest = skip_blanks(behind);
    }
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

/// Cuts before the first character that `ends` accepts, or at the end.
fn cut(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn push_within(out: &mut SecretBuffer, bytes: &[u8], limit: usize) -> Result<(), RenderError> {
    if bytes.len() > limit.saturating_sub(out.len()) {
        return Err(RenderError::TooLarge(limit));
    }
    out.push(bytes);
    Ok(())
}

fn url_encode(bytes: &[u8], limit: usize) -> Result<SecretValue, RenderError> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // RFC 3986, section 2.3.
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let encoded_len = bytes.iter().map(|&byte| if is_unreserved(byte) { 1 } else { 3 }).sum();
    if encoded_len > limit {
        return Err(RenderError::TooLarge(limit));
    }
    let mut out = SecretBuffer::with_capacity(encoded_len);
    for &byte in bytes {
        if is_unreserved(byte) {
            out.push(&[byte]);
        } else {
            out.push(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    Ok(out.into_value())
}

fn json_escape(text: &str, limit: usize) -> Result<SecretValue, RenderError> {
    // In pieces, so that the bound holds before much more than it is written: one byte may become six.
    const PIECE: usize = 4096;
    let mut out = SecretBuffer::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE));
        push_escaped(&mut out, piece);
        if out.len() > limit {
            return Err(RenderError::TooLarge(limit));
        }
        rest = behind;
    }
    Ok(out.into_value())
}

fn base64_encode(bytes: &[u8], limit: usize) -> Result<SecretValue, RenderError> {
    let encoded_len = base64::encoded_len(bytes.len(), true)
        .filter(|&encoded_len| encoded_len <= limit)
        .ok_or(RenderError::TooLarge(limit))?;
    let mut encoded = Zeroizing::new(vec![0; encoded_len]);
    let written = STANDARD.encode_slice(bytes, &mut encoded).expect("the buffer has the encoded length");
    encoded.truncate(written);
    Ok(SecretValue::new(mem::take(&mut *encoded)))
}

/// Decodes standard base64 with padding into a wiped buffer; `None` when it is not that. Blanks and line ends are not
/// skipped.
pub fn decode_base64(encoded: &[u8]) -> Option<SecretValue> {
    let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
    // The error would quote a byte of the value, so it is dropped.
    let written = STANDARD.decode_slice(encoded, &mut decoded).ok()?;
    decoded.truncate(written);
    Some(SecretValue::new(mem::take(&mut *decoded)))
}
