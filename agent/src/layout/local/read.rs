//! From the text to its secrets: names and places first, values only when they are asked for.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle, Tag};
use keyside_protocol::value::{SecretValue, SecretValues};

use super::scalar::is_text;
use super::{SCHEMA_KEY, edit};

/// Collections inside one another; the layout has two, and the parser keeps all open ones.
const DEEPEST: usize = 64;

/// Names, keys, values and brackets in one file: each costs far more memory than its bytes in the text.
const MOST_NODES: usize = 1_000_000;

/// Why a text is no file of a secrets manager. Each of them may be a file that is still being written. No message holds
/// anything of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No bytes, or nothing but comments. ZenML writes `{}` when there are no secrets; no bytes are what the first
    /// half of its writing leaves.
    #[error("is empty")]
    Empty,
    /// Not YAML, or nested too deeply to be this file.
    #[error("is not YAML, at line {0}")]
    NotYaml(usize),
    /// A list or a scalar.
    #[error("is not a map of secrets")]
    NotAMap,
    /// More than one document.
    #[error("holds more than one YAML document")]
    SeveralDocuments,
    /// More than a million names, keys and values.
    #[error("holds more than a million names, keys and values")]
    TooMany,
    /// No line break at its end, so the last value may be half of one.
    #[error("ends in the middle of a line")]
    CutOff,
}

/// Why one secret cannot be served. Keys are named, values never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The name stands twice.
    #[error("its name stands twice")]
    NameTwice,
    /// No map.
    #[error("it is not a map of keys")]
    NotAMap,
    /// A key that is no text.
    #[error("one of its keys is not a text")]
    KeyNotText,
    /// A key that stands twice.
    #[error("its key `{0}` stands twice")]
    KeyTwice(String),
    /// A value that is no text; a number, `null` or a list, for example.
    #[error("the value of its key `{0}` is not a text")]
    ValueNotText(String),
    /// Not standard base64 with its padding.
    #[error("the value of its key `{0}` is not base64")]
    NotBase64(String),
    /// More bytes than allowed.
    #[error("the value of its key `{0}` is too large")]
    TooLarge(String),
}

/// A file, taken apart.
pub struct Document<'t> {
    pub(super) text: &'t str,
    pub(super) entries: Vec<Entry<'t>>,
    /// Where the root begins.
    pub(super) root: usize,
    /// Whether single secrets can be changed in the text.
    pub(super) editable: bool,
    /// Which entry has a name; `None` when several have it.
    by_name: HashMap<String, Option<usize>>,
}

/// One secret in the file.
pub struct Entry<'t> {
    /// Its name; `None` when that is no text, which no reference can mean.
    pub(super) name: Option<String>,
    /// Where its first line begins.
    pub(super) start: usize,
    nodes: Vec<Node<'t>>,
}

/// The decoded content of one secret.
pub struct Pairs {
    /// The values by their keys, the schema's name left out.
    pub values: SecretValues,
    /// The schema's name.
    pub schema: Option<String>,
}

/// What stands for a secret, in the order of the text.
#[derive(PartialEq)]
enum Node<'t> {
    Text(Cow<'t, str>),
    /// A scalar that YAML does not take for a text.
    Other(Cow<'t, str>),
    Map,
    List,
    End,
    /// Stands for another node; never expanded.
    Alias,
}

impl<'t> Document<'t> {
    /// A file without secrets, as ZenML writes it.
    pub fn empty() -> Document<'static> {
        let (entries, by_name) = (Vec::new(), HashMap::new());
        Document { text: "{}\n", entries, root: 0, editable: true, by_name }
    }

    /// Takes a text apart in one pass; decodes no value.
    pub fn parse(text: &'t str) -> Result<Self, ReadError> {
        Reader::new(text).document()
    }

    /// Iterates over the secrets whose names are texts, each name once; one that stands twice cannot be decoded.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Result<&Entry<'t>, DecodeError>)> {
        self.by_name.iter().map(|(name, at)| (name.as_str(), self.at(*at)))
    }

    /// Returns the secret of exactly `name`.
    pub fn get(&self, name: &str) -> Option<Result<&Entry<'t>, DecodeError>> {
        self.by_name.get(name).map(|at| self.at(*at))
    }

    fn at(&self, at: Option<usize>) -> Result<&Entry<'t>, DecodeError> {
        at.map(|at| &self.entries[at]).ok_or(DecodeError::NameTwice)
    }

    /// Feeds everything that stands under `name` to a digest, so that two equal secrets give equal bytes, in whatever
    /// style they are written.
    pub fn feed(&self, name: &str, mut sink: impl FnMut(&[u8])) {
        for entry in self.entries.iter().filter(|entry| entry.name.as_deref() == Some(name)) {
            for node in &entry.nodes {
                let (tag, text) = match node {
                    Node::Text(text) => (b't', text.as_ref()),
                    Node::Other(text) => (b'o', text.as_ref()),
                    Node::Map => (b'm', ""),
                    Node::List => (b'l', ""),
                    Node::End => (b'e', ""),
                    Node::Alias => (b'a', ""),
                };
                sink(&[tag]);
                sink(&(text.len() as u64).to_le_bytes());
                sink(text.as_bytes());
            }
        }
    }

    /// Tells whether both have the same secrets, `except` aside.
    pub(super) fn agrees_with(&self, other: &Document<'_>, except: &[&str]) -> bool {
        fn others<'d, 't>(document: &'d Document<'t>, except: &[&str]) -> Vec<(&'d Option<String>, &'d [Node<'t>])> {
            let is_other = |entry: &&Entry<'_>| entry.name.as_deref().is_none_or(|name| !except.contains(&name));
            document.entries.iter().filter(is_other).map(|entry| (&entry.name, entry.nodes.as_slice())).collect()
        }
        others(self, except) == others(other, except)
    }
}

impl Entry<'_> {
    /// Returns the keys that have a text, in byte order, without decoding what it means. None where the secret is no map.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .pairs()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| match (key, value) {
                (Node::Text(key), [Node::Text(_)]) if key != SCHEMA_KEY => Some(key.as_ref().to_owned()),
                _ => None,
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Decodes the values, none of more than `max_value` bytes.
    pub fn decode(&self, max_value: u64) -> Result<Pairs, DecodeError> {
        let mut decoded = Pairs { values: SecretValues::new(), schema: None };
        for (key, value) in self.pairs().ok_or(DecodeError::NotAMap)? {
            let Node::Text(key) = key else { return Err(DecodeError::KeyNotText) };
            let key = key.as_ref().to_owned();
            let [Node::Text(text)] = value else { return Err(DecodeError::ValueNotText(key)) };
            if key == SCHEMA_KEY {
                match decoded.schema {
                    None => decoded.schema = Some(text.as_ref().to_owned()),
                    Some(_) => return Err(DecodeError::KeyTwice(key)),
                }
                continue;
            }
            if decoded.values.get(&key).is_some() {
                return Err(DecodeError::KeyTwice(key));
            }
            match decode_base64(text, max_value) {
                Ok(value) => decoded.values.insert(key, value),
                Err(Base64Fault::Wrong) => return Err(DecodeError::NotBase64(key)),
                Err(Base64Fault::TooLarge) => return Err(DecodeError::TooLarge(key)),
            }
        }
        Ok(decoded)
    }

    /// The keys, each with the nodes of its value; `None` where this is no map.
    fn pairs(&self) -> Option<Vec<(&Node<'_>, &[Node<'_>])>> {
        let [Node::Map, inner @ .., Node::End] = self.nodes.as_slice() else { return None };
        let mut pairs = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (key, after) = rest.split_at(extent(rest));
            let (value, after) = after.split_at(extent(after));
            pairs.push((key.first()?, value));
            rest = after;
        }
        Some(pairs)
    }
}

/// The number of nodes that the first one spans, with what is inside it.
fn extent(nodes: &[Node<'_>]) -> usize {
    let mut depth = 0usize;
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Map | Node::List => depth += 1,
            Node::End => depth = depth.saturating_sub(1),
            Node::Text(_) | Node::Other(_) | Node::Alias => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    nodes.len()
}

enum Base64Fault {
    Wrong,
    TooLarge,
}

fn decode_base64(text: &str, max_value: u64) -> Result<SecretValue, Base64Fault> {
    // Three bytes for each four digits, of which the padding may take two.
    if (text.len() / 4 * 3).saturating_sub(2) as u64 > max_value {
        return Err(Base64Fault::TooLarge);
    }
    let mut bytes = vec![0; base64::decoded_len_estimate(text.len())];
    let decoded = STANDARD.decode_slice(text, &mut bytes);
    let length = *decoded.as_ref().unwrap_or(&0);
    bytes.truncate(length);
    // Wiped when dropped, whatever came of it.
    let value = SecretValue::new(bytes);
    match decoded {
        Err(_) => Err(Base64Fault::Wrong),
        Ok(length) if length as u64 > max_value => Err(Base64Fault::TooLarge),
        Ok(_) => Ok(value),
    }
}

/// Pulls events and puts secrets together.
struct Reader<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    /// Something refers to something else, so that no single secret can be changed.
    entangled: bool,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEEPEST,
            block_nesting_limit: DEEPEST,
        };
        Self { text, parser: Parser::new_from_str_with_options(text, options), entangled: false, nodes: 0 }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), ReadError> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(ReadError::TooMany);
        }
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(not_yaml(&error)),
            None => Err(ReadError::Empty),
        }
    }

    fn document(mut self) -> Result<Document<'t>, ReadError> {
        let (root, style) = loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd => return Err(ReadError::Empty),
                Event::MappingStart(style, anchor, tag) => {
                    self.entangled |= anchor != 0 || tag.is_some();
                    break (self.line_start(&span), style);
                }
                // The parser's word for nothing is `~`.
                Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(text.as_ref(), "" | "~") => {
                    return Err(ReadError::Empty);
                }
                _ => return Err(ReadError::NotAMap),
            }
        };
        let mut entries = Vec::new();
        let mut at_line_starts = true;
        loop {
            let mut key = Vec::new();
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let start = self.line_start(&span);
            let before = byte_of(&span).and_then(|at| self.text.get(start..at));
            at_line_starts &= matches!(before, Some("" | "? "));
            self.node(event, &mut key)?;
            let mut nodes = Vec::new();
            let (event, _) = self.next()?;
            self.node(event, &mut nodes)?;
            let name = match key.as_slice() {
                [Node::Text(name)] => Some(name.as_ref().to_owned()),
                _ => None,
            };
            entries.push(Entry { name, start, nodes });
        }
        loop {
            match self.next()?.0 {
                Event::StreamEnd => break,
                Event::DocumentStart(..) => return Err(ReadError::SeveralDocuments),
                _ => {}
            }
        }
        // A dumper ends its last line, so a file without that is half of one. A brace ends a map by itself.
        if !self.text.ends_with(['\n', '}']) {
            return Err(ReadError::CutOff);
        }
        let is_plain = match style {
            StructureStyle::Block => at_line_starts,
            StructureStyle::Flow => entries.is_empty(),
        };
        let editable = is_plain && !self.entangled && !edit::has_end_marker(self.text);
        let mut by_name: HashMap<String, Option<usize>> = HashMap::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            if let Some(name) = &entry.name {
                by_name.entry(name.clone()).and_modify(|known| *known = None).or_insert(Some(at));
            }
        }
        Ok(Document { text: self.text, entries, root, editable, by_name })
    }

    /// Takes in one node whole, of which `event` is the beginning.
    fn node(&mut self, event: Event<'t>, nodes: &mut Vec<Node<'t>>) -> Result<(), ReadError> {
        let mut event = event;
        let mut depth = 0usize;
        loop {
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.entangled |= anchor != 0;
                    nodes.push(scalar(text, style, tag.as_deref()));
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.entangled |= anchor != 0;
                    // Python builds something else from a tag that is not its own.
                    let is_map = tag.is_none_or(|tag| tag.core_suffix() == Some("map"));
                    nodes.push(if is_map { Node::Map } else { Node::List });
                    depth += 1;
                }
                Event::SequenceStart(_, anchor, _) => {
                    self.entangled |= anchor != 0;
                    nodes.push(Node::List);
                    depth += 1;
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    nodes.push(Node::End);
                    depth = depth.saturating_sub(1);
                }
                Event::Alias(_) => {
                    self.entangled = true;
                    nodes.push(Node::Alias);
                }
                _ => {}
            }
            if depth == 0 && !nodes.is_empty() {
                return Ok(());
            }
            event = self.next()?.0;
        }
    }

    /// Where the line begins on which something stands.
    fn line_start(&self, span: &Span) -> usize {
        let at = byte_of(span).unwrap_or(0);
        self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1)
    }
}

fn byte_of(span: &Span) -> Option<usize> {
    span.start.byte_offset()
}

fn not_yaml(error: &ScanError) -> ReadError {
    ReadError::NotYaml(error.marker().line())
}

fn scalar<'t>(text: Cow<'t, str>, style: ScalarStyle, tag: Option<&Tag>) -> Node<'t> {
    let is_text = match tag {
        Some(tag) => tag.core_suffix() == Some("str") || tag.parts() == ("", "!"),
        None => style != ScalarStyle::Plain || is_text(&text),
    };
    if is_text { Node::Text(text) } else { Node::Other(text) }
}
