//! What a plug-in says: which request a line answers, and what the answer holds. Pure, and liberal: unknown fields are
//! ignored, numbers pass for texts where neither can be a value.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::value::{SecretValue, SecretValues};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::{Scope, ScopeLabel};

/// Most characters of a plug-in's own words that are passed on.
const MOST_WORDS: usize = 300;

/// One line, understood.
pub(super) enum Line {
    /// It answers the request with this id.
    Reply { id: u64, answer: Answer },
    /// It answers nothing: words for a protocol to come.
    Notice,
    /// It breaks the protocol; what is wrong with it.
    Broken(&'static str),
}

/// `result`, or `error`.
pub(super) type Answer = Result<Outcome, PluginError>;

/// The result of a request, still in its line.
pub(super) struct Outcome {
    line: SecretBuffer,
    result: Range<usize>,
}

impl Outcome {
    fn text(&self) -> &[u8] {
        // expose: taken apart by this module's parsers.
        &self.line.expose()[self.result.clone()]
    }

    /// Reads it as a `T`. The parser's own words are dropped: they may quote what they stumbled over.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        serde_json::from_slice(self.text()).map_err(|_| Malformed)
    }

    /// Reads it as an object: the parser would take a list for one, too.
    fn object<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        if self.text().first() == Some(&b'{') { self.read() } else { Err(Malformed) }
    }

    /// Returns what stands under `key`, if that is an object: `{"secret": {...}}` is taken for what is inside.
    fn unwrap(self, key: &str, unless: &str) -> Self {
        let Ok(fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(self.text()) else { return self };
        let inside = fields.get(key).filter(|inside| inside.get().starts_with('{') && !fields.contains_key(unless));
        let Some(range) = inside.map(|inside| range_in(self.line.expose(), inside)) else { return self };
        drop(fields);
        Self { result: range, ..self }
    }

    /// Reads the answer to `describe`, and to a write that says how the secret is then.
    pub(super) fn description(self) -> Result<Described, Malformed> {
        self.unwrap("secret", "name").object::<WrittenDescription>()?.understood()
    }

    /// Tells whether values stand where there must be none: in the result, in `secret`, or in one of `secrets`.
    pub(super) fn shows_values(&self) -> bool {
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            values: Option<IgnoredAny>,
            #[serde(default)]
            secret: Option<Box<Item>>,
            #[serde(default)]
            secrets: Vec<Part>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Part {
            Item(Item),
            Other(IgnoredAny),
        }
        impl Part {
            fn shows(&self) -> bool {
                matches!(self, Self::Item(item) if item.shows())
            }
        }
        impl Item {
            fn shows(&self) -> bool {
                let inside = self.secret.as_deref().is_some_and(Self::shows);
                self.values.is_some() || inside || self.secrets.iter().any(Part::shows)
            }
        }
        match self.text().first() {
            Some(b'[') => self.read::<Vec<Part>>().is_ok_and(|all| all.iter().any(Part::shows)),
            _ => self.object::<Item>().is_ok_and(|item| item.shows()),
        }
    }

    /// Reads the answer to `list`: an object with `secrets`, or the list itself; of objects, or of names alone.
    pub(super) fn list(self) -> Result<Vec<Described>, Malformed> {
        #[derive(Deserialize)]
        struct Object {
            secrets: Vec<Item>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item {
            Name(String),
            Whole(Box<WrittenDescription>),
        }
        let items = match self.text().first() {
            Some(b'[') => self.read::<Vec<Item>>()?,
            _ => self.object::<Object>()?.secrets,
        };
        let described = items.into_iter().map(|item| match item {
            Item::Name(name) => Ok(Described { name: Some(name), ..Described::default() }),
            Item::Whole(description) => description.understood(),
        });
        described.collect()
    }

    /// Reads the answer to `fetch`. No single value may have more than `max_value` bytes.
    pub(super) fn secret(self, max_value: u64) -> Result<(Described, SecretValues), Unfit> {
        #[derive(Deserialize)]
        struct Object {
            values: Pairs,
        }
        let whole = self.unwrap("secret", "values");
        let described = whole.object::<WrittenDescription>()?.understood()?;
        let pairs = whole.object::<Object>()?.values.0;
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            match value {
                None => return Err(Unfit::NotText(key)),
                Some(value) if value.len() as u64 > max_value => return Err(Unfit::TooLarge(key)),
                Some(value) => values.push((key, value)),
            }
        }
        let given = values.len();
        let values: SecretValues = values.into_iter().collect();
        // Two meanings for one key are refused rather than one of them chosen.
        if values.len() < given {
            return Err(Malformed.into());
        }
        Ok((described, values))
    }

    /// Reads the answer to `initialize`.
    pub(super) fn declared(&self) -> Result<Declared, Malformed> {
        match self.text() {
            b"null" | b"true" => Ok(Declared::default()),
            _ => self.object::<WrittenDeclaration>().map(WrittenDeclaration::understood),
        }
    }
}

/// It is not what the protocol promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not what the protocol promises")]
pub(super) struct Malformed;

/// Why an answer gives no values that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// The answer itself.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// One value.
    #[error("the value of key `{0}` is neither a string nor {{\"base64\": \"...\"}}")]
    NotText(String),
    /// One value.
    #[error("the value of key `{0}` is larger than allowed")]
    TooLarge(String),
}

/// Which of the four classes an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// There is no such secret.
    NotFound,
    /// This secret is refused to us.
    Denied,
    /// Trying again may help; what no class, or an unknown one, is taken for.
    Transient,
    /// The request, or what is stored, is not right.
    Invalid,
}

impl Class {
    /// Returns its name on the line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Transient => "transient",
            Self::Invalid => "invalid",
        }
    }
}

/// What an `invalid` write ran into, where the plug-in tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The name is taken.
    Exists,
    /// The version is not the one that was named.
    VersionMismatch,
    /// A key to remove is not there.
    KeyNotFound,
}

/// An error that the plug-in answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PluginError {
    /// Its class.
    pub class: Class,
    /// The plug-in's words: printable, bounded; may be empty.
    pub message: String,
    /// More about it.
    pub reason: Option<Reason>,
}

/// What a plug-in says of a secret; everything may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// Its name.
    pub name: Option<String>,
    /// Where it lies, and what the plug-in calls that.
    pub scope: Option<(Scope, ScopeLabel)>,
    /// The plug-in's id of it.
    pub id: Option<String>,
    /// The plug-in's version of it.
    pub version: Option<String>,
    /// Its keys, in byte order.
    pub keys: Option<Vec<String>>,
}

/// What a plug-in says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// The version of the protocol it speaks; ours where it says nothing.
    pub protocol: Option<u64>,
    /// What it calls itself.
    pub name: Option<String>,
    /// Its own version.
    pub version: Option<String>,
    /// The methods it has beside those every plug-in has.
    pub methods: Vec<String>,
    /// Whether one list costs it no more than one description.
    pub cheap_list: bool,
}

impl Declared {
    /// Tells whether it can do this; reading needs no declaration.
    pub(super) fn has(&self, method: &str) -> bool {
        self.methods.iter().any(|one| one == method)
    }
}

/// Takes a line apart.
pub(super) fn parse(line: SecretBuffer) -> Line {
    #[derive(Deserialize)]
    struct Envelope<'l> {
        #[serde(borrow, default)]
        id: Option<&'l RawValue>,
        #[serde(borrow, default, deserialize_with = "present")]
        result: Option<&'l RawValue>,
        #[serde(borrow, default)]
        error: Option<&'l RawValue>,
    }
    fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
        // `null` is a result, too.
        <&RawValue>::deserialize(deserializer).map(Some)
    }

    // expose: taken apart here; the result stays in its wiped buffer.
    let Ok(text) = std::str::from_utf8(line.expose()) else { return Line::Broken("a line that is not UTF-8 text") };
    if !text.trim_start().starts_with('{') {
        return Line::Broken("a line that is no JSON object");
    }
    let envelope = match serde_json::from_str::<Envelope<'_>>(text) {
        Ok(envelope) => envelope,
        Err(error) if error.is_data() => return Line::Broken("a reply with a field twice"),
        Err(_) => return Line::Broken("a line that is no JSON"),
    };
    if envelope.result.is_none() && envelope.error.is_none() {
        return match envelope.id {
            Some(id) if number(id.get()).is_some() => Line::Broken("a reply with neither `result` nor `error`"),
            _ => Line::Notice,
        };
    }
    let Some(id) = envelope.id.and_then(|id| number(id.get())) else {
        return Line::Broken("a reply without the `id` of a request");
    };
    let error = envelope.error.map(|error| plugin_error(error.get()));
    let result = envelope.result.map(|result| range_in(line.expose(), result));
    let answer = match (error, result) {
        (Some(error), _) => Err(error),
        (None, Some(result)) => Ok(Outcome { line, result }),
        (None, None) => return Line::Notice,
    };
    Line::Reply { id, answer }
}

/// Where a part of `line` lies in it.
fn range_in(line: &[u8], part: &RawValue) -> Range<usize> {
    // It was borrowed from there.
    let start = part.get().as_ptr().addr() - line.as_ptr().addr();
    start..start + part.get().len()
}

/// Returns the number that JSON text is; in quotes, too, as programs that know only texts write it.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn plugin_error(text: &str) -> PluginError {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        class: Word,
        #[serde(default)]
        message: Word,
        #[serde(default)]
        reason: Word,
    }
    let (class, message, reason) = match serde_json::from_str::<Object>(text) {
        Ok(object) => (object.class.0, object.message.0, object.reason.0),
        // A bare text, or garbage: that it is an error is all there is to know.
        Err(_) => (None, serde_json::from_str::<Word>(text).ok().and_then(|word| word.0), None),
    };
    let class = match class.as_deref() {
        Some("not_found") => Class::NotFound,
        Some("denied") => Class::Denied,
        Some("invalid") => Class::Invalid,
        _ => Class::Transient,
    };
    let reason = match reason.as_deref() {
        Some("exists") => Some(Reason::Exists),
        Some("version_mismatch") => Some(Reason::VersionMismatch),
        Some("key_not_found") => Some(Reason::KeyNotFound),
        _ => None,
    };
    PluginError { class, message: words(&message.unwrap_or_default(), MOST_WORDS), reason }
}

/// Makes somebody else's text fit to be shown: one line, no control characters, at most so many characters.
pub(super) fn words(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    let mut shown: String = line.trim().chars().take(most).collect();
    if line.trim().chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// A text, or a number or a truth value as text; anything else counts as missing.
#[derive(Default)]
struct Word(Option<String>);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;

        impl<'de> Visitor<'de> for WordVisitor {
            type Value = Word;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(Some(text.to_owned())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(Some(number.to_string())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(Some(number.to_string())))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Word, E> {
                Ok(Word(Some(number.to_string())))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Word, E> {
                Ok(Word(Some(truth.to_string())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Word, E> {
                Ok(Word(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Word, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Word(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Word(None))
            }
        }

        deserializer.deserialize_any(WordVisitor)
    }
}

#[derive(Deserialize)]
struct WrittenDescription {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    id: Word,
    #[serde(default)]
    version: Word,
    #[serde(default)]
    keys: Option<Vec<String>>,
}

impl WrittenDescription {
    fn understood(self) -> Result<Described, Malformed> {
        let scope = match self.scope.as_deref() {
            None | Some("") => None,
            Some("private") => Some((Scope::Private, ScopeLabel::Private)),
            Some("public") => Some((Scope::Public, ScopeLabel::Public)),
            Some("user") => Some((Scope::Private, ScopeLabel::User)),
            Some("workspace") => Some((Scope::Public, ScopeLabel::Workspace)),
            // Taking it for either could show a secret to the wrong reader.
            Some(_) => return Err(Malformed),
        };
        let keys = self.keys.map(|mut keys| {
            keys.sort_unstable();
            keys.dedup();
            keys
        });
        let version = self.version.0.filter(|version| !version.is_empty());
        Ok(Described { name: self.name, scope, id: self.id.0.filter(|id| !id.is_empty()), version, keys })
    }
}

#[derive(Deserialize)]
struct WrittenDeclaration {
    #[serde(default, alias = "protocol_version")]
    protocol: Word,
    #[serde(default)]
    name: Word,
    #[serde(default)]
    version: Word,
    #[serde(default)]
    methods: Methods,
    #[serde(default)]
    capabilities: Methods,
    #[serde(default)]
    writable: Word,
    #[serde(default)]
    cheap_list: Word,
}

impl WrittenDeclaration {
    fn understood(self) -> Declared {
        let mut methods = self.methods.0;
        methods.extend(self.capabilities.0);
        if self.writable.0.as_deref() == Some("true") {
            methods.extend(["create", "update", "delete"].map(str::to_owned));
        }
        let bounded = |word: Word| word.0.map(|text| words(&text, MOST_WORDS)).filter(|text| !text.is_empty());
        Declared {
            // As digits alone: another protocol may count otherwise.
            protocol: self.protocol.0.as_deref().and_then(number),
            name: bounded(self.name),
            version: bounded(self.version),
            cheap_list: self.cheap_list.0.as_deref() == Some("true") || methods.iter().any(|one| one == "cheap_list"),
            methods,
        }
    }
}

/// A list of names, or an object whose members say `true`.
#[derive(Default)]
struct Methods(Vec<String>);

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MethodsVisitor;

        impl<'de> Visitor<'de> for MethodsVisitor {
            type Value = Methods;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of methods")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Methods, E> {
                Ok(Methods::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Methods, A::Error> {
                let mut methods = Methods::default();
                while let Some(word) = list.next_element::<Word>()? {
                    methods.0.extend(word.0);
                }
                Ok(methods)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Methods, A::Error> {
                let mut methods = Methods::default();
                while let Some((name, word)) = map.next_entry::<String, Word>()? {
                    if word.0.as_deref() == Some("true") {
                        methods.0.push(name);
                    }
                }
                Ok(methods)
            }
        }

        deserializer.deserialize_any(MethodsVisitor)
    }
}

/// Pairs in the order they stand; `None` for a value of a wrong type.
struct Pairs(Vec<(String, Option<SecretValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let raw = map.next_value::<&RawValue>()?.get();
                    // Its own words are dropped; the type is all that is told.
                    pairs.push((key, serde_json::from_str::<SecretValue>(raw).ok()));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}
