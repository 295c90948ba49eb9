//! A secret as the cache holds it: all of it in one block of the arena, so that a hundred thousand small ones cost little
//! more than their bytes.

use std::borrow::Cow;
use std::sync::Arc;

use keyside_protocol::value::{SecretRef, SecretValues};

use crate::arena::{Arena, Block};
use crate::backend::{Description, Scope, ScopeLabel, Secret};

/// A secret with its values. Reading it takes no lock.
///
/// The block begins with a `Kind` and the number of pairs; then comes where each item ends, and then the items: name,
/// version, id, and each key followed by its value, in byte order of the key. Ends are counted from the first item on.
/// A number takes one byte where none is above 255, two where none is above 65,535, else four. An id that is a dashed UUID
/// takes its sixteen bytes, and a version that begins with it, as those of ZenML's stores do, only the rest.
pub struct Held {
    block: Block,
}

/// What is to be known of a secret before any of its items can be read; one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    scope: Scope,
    label: Option<ScopeLabel>,
    id: Id,
    width: Width,
}

/// Bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    One,
    Two,
    Four,
}

impl Width {
    /// Returns the smallest that holds `number`.
    fn of(number: usize) -> Self {
        match number {
            0..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            _ => Self::Four,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    None,
    Text,
    Uuid,
    /// And the version begins with it.
    UuidOfVersion,
}

impl Kind {
    fn to_byte(self) -> u8 {
        let label = match self.label {
            None => 0,
            Some(ScopeLabel::Private) => 1,
            Some(ScopeLabel::Public) => 2,
            Some(ScopeLabel::User) => 3,
            Some(ScopeLabel::Workspace) => 4,
        };
        let id = match self.id {
            Id::None => 0,
            Id::Text => 1,
            Id::Uuid => 2,
            Id::UuidOfVersion => 3,
        };
        let width = match self.width {
            Width::One => 0,
            Width::Two => 1,
            Width::Four => 2,
        };
        label | id << 3 | u8::from(self.scope == Scope::Public) << 5 | width << 6
    }

    fn of_byte(byte: u8) -> Self {
        let label = match byte & 7 {
            0 => None,
            1 => Some(ScopeLabel::Private),
            2 => Some(ScopeLabel::Public),
            3 => Some(ScopeLabel::User),
            _ => Some(ScopeLabel::Workspace),
        };
        let id = match byte >> 3 & 3 {
            0 => Id::None,
            1 => Id::Text,
            2 => Id::Uuid,
            _ => Id::UuidOfVersion,
        };
        let scope = if byte & 1 << 5 == 0 { Scope::Private } else { Scope::Public };
        let width = match byte >> 6 {
            0 => Width::One,
            1 => Width::Two,
            _ => Width::Four,
        };
        Self { scope, label, id, width }
    }

    /// Returns where the items of a secret of `pairs` begin: behind the kind, the number of pairs and the ends.
    fn first_item(self, pairs: usize) -> usize {
        1 + (1 + FIRST_KEY + 2 * pairs) * self.width.bytes()
    }
}

const UUID_TEXT: usize = 36;

/// Returns the bytes of a UUID that is written as [`uuid_text`] writes it.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; UUID_TEXT] = text.as_bytes().try_into().ok()?;
    let digits =
        text.iter().filter_map(|byte| char::from(*byte).to_digit(16)).filter_map(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 16];
    for (place, digit) in digits.enumerate() {
        let byte = bytes.get_mut(place / 2)?;
        *byte = *byte << 4 | digit;
    }
    (uuid_text(&bytes) == *text).then_some(bytes)
}

/// Writes a UUID with dashes, in lower case.
fn uuid_text(bytes: &[u8]) -> [u8; UUID_TEXT] {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    let mut text = [b'-'; UUID_TEXT];
    let mut place = 0;
    for (index, byte) in bytes.iter().enumerate() {
        place += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[place] = digit(byte >> 4);
        text[place + 1] = digit(byte & 15);
        place += 2;
    }
    text
}

/// Returns the number at a place of those that [`Held`] begins with. One load: a read of one key takes ten of them.
fn number(numbers: &[u8], width: Width, place: usize) -> usize {
    let fits = "a place of a secret";
    match width {
        Width::One => usize::from(numbers[place]),
        Width::Two => usize::from(u16::from_le_bytes(*numbers[2 * place..].first_chunk().expect(fits))),
        Width::Four => u32::from_le_bytes(*numbers[4 * place..].first_chunk().expect(fits)) as usize,
    }
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was put in as text")
}

const NAME: usize = 0;
const VERSION: usize = 1;
const ID: usize = 2;
const FIRST_KEY: usize = 3;

impl Held {
    /// Moves `secret` into `arena`; the buffers it came in are wiped.
    ///
    /// # Panics
    /// When it has 4 GiB or more, which no limit allows.
    pub(crate) fn new(arena: &Arc<Arena>, secret: Secret) -> Self {
        let Description { name, scope, scope_label, id, version, keys: _ } = &secret.description;
        let uuid = id.as_deref().and_then(uuid_bytes);
        let (id, id_item, version) = match (id, &uuid) {
            (None, _) => (Id::None, &[][..], version.as_str()),
            (Some(id), None) => (Id::Text, id.as_bytes(), version.as_str()),
            (Some(id), Some(uuid)) => match version.strip_prefix(id.as_str()) {
                Some(rest) => (Id::UuidOfVersion, &uuid[..], rest),
                None => (Id::Uuid, &uuid[..], version.as_str()),
            },
        };
        let pairs = secret.values.len();
        let mut items: Vec<&[u8]> = Vec::with_capacity(FIRST_KEY + 2 * pairs);
        items.extend([name.as_bytes(), version.as_bytes(), id_item]);
        for (key, value) in secret.values.iter() {
            // expose: copied into the arena.
            items.extend([key.as_bytes(), value.expose()]);
        }
        let length = items.iter().map(|item| item.len()).sum::<usize>();
        let kind = Kind { scope: *scope, label: *scope_label, id, width: Width::of(length.max(pairs)) };
        let width = kind.width.bytes();
        let first = kind.first_item(pairs);
        let mut block = arena.block(first + length);
        let bytes = block.bytes_mut();
        bytes[0] = kind.to_byte();
        let put = |bytes: &mut [u8], place: usize, number: usize| {
            let number = u32::try_from(number).expect("a secret is smaller than 4 GiB").to_le_bytes();
            let place = 1 + place * width;
            bytes[place..place + width].copy_from_slice(&number[..width]);
        };
        put(bytes, 0, pairs);
        let mut end = 0;
        for (place, item) in items.iter().enumerate() {
            bytes[first + end..first + end + item.len()].copy_from_slice(item);
            end += item.len();
            put(bytes, 1 + place, end);
        }
        Self { block }
    }

    #[cfg(test)]
    pub(crate) fn block_size(&self) -> usize {
        self.block.bytes().len()
    }

    fn kind(&self) -> Kind {
        Kind::of_byte(self.block.bytes()[0])
    }

    fn number(&self, place: usize) -> usize {
        let bytes = self.block.bytes();
        number(&bytes[1..], Kind::of_byte(bytes[0]).width, place)
    }

    fn item(&self, item: usize) -> &[u8] {
        let bytes = self.block.bytes();
        let kind = Kind::of_byte(bytes[0]);
        let numbers = &bytes[1..];
        let items = &bytes[kind.first_item(number(numbers, kind.width, 0))..];
        let start = if item == 0 { 0 } else { number(numbers, kind.width, item) };
        &items[start..number(numbers, kind.width, 1 + item)]
    }

    fn text(&self, item: usize) -> &str {
        as_text(self.item(item))
    }

    /// Returns its exact name.
    pub fn name(&self) -> &str {
        self.text(NAME)
    }

    /// Tells whether that is `name`.
    pub fn has_name(&self, name: &str) -> bool {
        self.item(NAME) == name.as_bytes()
    }

    /// Returns what changes whenever the values change; opaque.
    pub fn version(&self) -> Cow<'_, str> {
        let rest = self.text(VERSION);
        if self.kind().id != Id::UuidOfVersion {
            return Cow::Borrowed(rest);
        }
        let mut version = String::with_capacity(UUID_TEXT + rest.len());
        version.push_str(as_text(&uuid_text(self.item(ID))));
        version.push_str(rest);
        Cow::Owned(version)
    }

    /// Tells whether that is `version`.
    pub fn has_version(&self, version: &str) -> bool {
        let rest = match self.kind().id {
            Id::UuidOfVersion => version.as_bytes().strip_prefix(&uuid_text(self.item(ID))),
            _ => Some(version.as_bytes()),
        };
        rest == Some(self.item(VERSION))
    }

    /// Returns the back-end's own id.
    pub fn id(&self) -> Option<Cow<'_, str>> {
        match self.kind().id {
            Id::None => None,
            Id::Text => Some(Cow::Borrowed(self.text(ID))),
            Id::Uuid | Id::UuidOfVersion => Some(Cow::Owned(as_text(&uuid_text(self.item(ID))).to_owned())),
        }
    }

    /// Tells whether that is `id`.
    pub fn has_id(&self, id: Option<&str>) -> bool {
        match (self.kind().id, id) {
            (Id::None, None) => true,
            (Id::Text, Some(id)) => self.item(ID) == id.as_bytes(),
            (Id::Uuid | Id::UuidOfVersion, Some(id)) => uuid_text(self.item(ID)) == *id.as_bytes(),
            _ => false,
        }
    }

    /// Says where it lies.
    pub fn scope(&self) -> Scope {
        self.kind().scope
    }

    /// Returns what that scope is called there.
    pub fn scope_label(&self) -> Option<ScopeLabel> {
        self.kind().label
    }

    /// Tells whether `description` is of the same version of the same secret.
    pub fn is(&self, description: &Description) -> bool {
        self.has_id(description.id.as_deref()) && self.has_version(&description.version)
    }

    fn key(&self, position: usize) -> &str {
        self.text(FIRST_KEY + 2 * position)
    }

    /// Returns where `key` stands, for [`at`](Self::at).
    pub fn position(&self, key: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.item(FIRST_KEY + 2 * middle).cmp(key.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Returns the value at a position.
    ///
    /// # Panics
    /// When nothing stands there.
    pub fn at(&self, position: usize) -> SecretRef<'_> {
        assert!(position < self.len(), "a position comes from `position`");
        SecretRef::new(self.item(FIRST_KEY + 2 * position + 1))
    }

    /// Returns the value of exactly `key`.
    pub fn get(&self, key: &str) -> Option<SecretRef<'_>> {
        self.position(key).map(|position| self.at(position))
    }

    /// Iterates in byte order of the key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SecretRef<'_>)> {
        (0..self.len()).map(|position| (self.key(position), self.at(position)))
    }

    /// Iterates over the keys in byte order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|position| self.key(position))
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.number(0)
    }

    /// Tells whether the secret has no pair at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether `values` are the same keys with the same bytes; takes as long for a late difference as for none.
    pub fn has_values(&self, values: &SecretValues) -> bool {
        self.len() == values.len()
            && self.keys().eq(values.keys())
            && self
                .iter()
                .zip(values.iter())
                .fold(true, |same, ((_, left), (_, right))| same & left.same_as(right.into()))
    }

    /// Returns the bytes of all keys and values together.
    pub fn byte_size(&self) -> usize {
        self.number(FIRST_KEY + 2 * self.len()) - self.number(FIRST_KEY)
    }
}

#[cfg(test)]
mod tests {
    use keyside_protocol::value::SecretValue;

    use super::*;

    fn secret(id: Option<&str>, version: &str, pairs: &[(&str, &[u8])]) -> Secret {
        let description = Description {
            name: "näme".into(),
            scope: Scope::Private,
            scope_label: Some(ScopeLabel::Private),
            id: id.map(str::to_owned),
            version: version.into(),
            keys: None,
        };
        let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretValue::copy_of(value))).collect();
        Secret { description, values }
    }

    #[test]
    fn everything_about_a_secret_reads_back_as_it_was() {
        let pairs: [(&str, &[u8]); 4] = [("", b"1"), ("a", b""), ("b", &[0xff, 0]), ("ü", b"four")];
        for (id, version) in [(None, ""), (Some("id"), "id:1"), (Some("id"), "1"), (Some(""), "")] {
            let held = Held::new(&Arena::new(), secret(id, version, &pairs));
            assert_eq!((held.name(), held.id().as_deref(), &*held.version()), ("näme", id, version));
            assert_eq!((held.scope(), held.scope_label()), (Scope::Private, Some(ScopeLabel::Private)));
            let read: Vec<_> = held.iter().map(|(key, value)| (key, value.expose())).collect();
            assert_eq!(read, pairs);
            assert!(pairs.iter().all(|(key, value)| held.get(key).expect("it is there").expose() == *value));
            assert!(["c", "aa", "z", "0"].iter().all(|key| held.get(key).is_none()));
            assert_eq!(held.byte_size(), secret(id, version, &pairs).values.byte_size());
        }
    }

    #[test]
    fn what_is_stored_shorter_reads_back_as_it_was() {
        const UUID: &str = "0123abcd-ef01-2345-6789-abcdef012345";
        let check = |id: &str, version: &str, bytes: usize| {
            let held = Held::new(&Arena::new(), secret(Some(id), version, &[]));
            assert_eq!((held.id().as_deref(), &*held.version()), (Some(id), version));
            assert!(held.has_id(Some(id)) && held.has_version(version), "{id} {version}");
            assert!(!held.has_id(None) && !held.has_id(Some("other")) && !held.has_version("other"));
            assert!(!held.has_version(&format!("{version}~")) && !held.has_version(&version[..version.len() - 1]));
            assert_eq!(held.item(VERSION).len() + held.item(ID).len(), bytes, "{id} {version}");
        };
        check(UUID, &format!("{UUID}:1"), 16 + 2);
        check(UUID, UUID, 16);
        check(UUID, "1", 16 + 1);
        check(UUID, &format!("x{UUID}"), 16 + 37);
        // These are no UUIDs as they would be written again.
        for id in [UUID.to_uppercase(), UUID.replace('-', ""), UUID.replace('a', "g"), UUID.replacen('0', "-", 1)] {
            check(&id, &format!("{id}:1"), 2 * id.len() + 2);
        }
    }

    #[test]
    fn everything_beside_the_items_reads_back_as_it_was() {
        use ScopeLabel::{Private, Public, User, Workspace};
        for label in [None, Some(Private), Some(Public), Some(User), Some(Workspace)] {
            for id in [Id::None, Id::Text, Id::Uuid, Id::UuidOfVersion] {
                for scope in [Scope::Private, Scope::Public] {
                    for width in [Width::One, Width::Two, Width::Four] {
                        let kind = Kind { scope, label, id, width };
                        assert_eq!(Kind::of_byte(kind.to_byte()), kind);
                    }
                }
            }
        }
    }

    #[test]
    fn values_of_any_size_read_back_as_they_were() {
        // 256 bytes and 64 KiB are where numbers become wider.
        for size in [
            0, 1, 240, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 255, 256, 300, 65_480, 65_500, 65_501, 65_502,
            65_503, 65_504, 65_520, 65_536, 200_000,
        ] {
            let value = vec![7; size];
            let held = Held::new(&Arena::new(), secret(None, "1", &[("a", &value), ("b", b"x")]));
            assert_eq!(held.get("a").expect("it is there").expose(), value, "{size}");
            assert_eq!(held.get("b").expect("it is there").expose(), b"x", "{size}");
            assert_eq!(held.byte_size(), size + 3);
        }
    }

    #[test]
    fn a_secret_without_any_pair_is_a_secret() {
        let held = Held::new(&Arena::new(), secret(None, "1", &[]));
        assert!(held.is_empty() && held.get("a").is_none() && held.byte_size() == 0);
    }

    #[test]
    fn values_are_the_same_only_byte_for_byte() {
        let held = Held::new(&Arena::new(), secret(None, "1", &[("a", b"1"), ("b", b"2")]));
        let same = |pairs: &[(&str, &[u8])]| held.has_values(&secret(None, "1", pairs).values);
        assert!(same(&[("a", b"1"), ("b", b"2")]));
        assert!(!same(&[("a", b"1"), ("b", b"3")]) && !same(&[("a", b"1"), ("b", b"22")]));
        assert!(!same(&[("a", b"1")]) && !same(&[("a", b"1"), ("c", b"2")]));
    }
}
