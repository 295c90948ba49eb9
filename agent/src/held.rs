//! A secret as the cache holds it: all of it in one block of the arena, so that a hundred thousand small ones cost little
//! more than their bytes.

use std::sync::Arc;

use keyside_protocol::value::{SecretRef, SecretValues};

use crate::arena::{Arena, Block};
use crate::backend::{Description, Scope, Secret};

/// A secret with its values. Reading it takes no lock.
///
/// The block begins with where each item ends (four bytes each), then come the items: name, version, id, and each key
/// followed by its value, in byte order of the key.
pub struct Held {
    block: Block,
    pairs: u32,
    /// Stores of ZenML begin the version with the id, which then is not kept twice.
    id: Id,
    scope: Scope,
    scope_label: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Id {
    None,
    Item,
    StartOfVersion(u16),
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
        let Description { name, scope, scope_label, id, version, keys: _ } = secret.description;
        let (id, id_text) = match id {
            None => (Id::None, String::new()),
            Some(id) => match u16::try_from(id.len()) {
                Ok(length) if version.starts_with(&id) => (Id::StartOfVersion(length), String::new()),
                _ => (Id::Item, id),
            },
        };
        let pairs = secret.values.len();
        let mut items: Vec<&[u8]> = Vec::with_capacity(FIRST_KEY + 2 * pairs);
        items.extend([name.as_bytes(), version.as_bytes(), id_text.as_bytes()]);
        for (key, value) in secret.values.iter() {
            // expose: copied into the arena.
            items.extend([key.as_bytes(), value.expose()]);
        }
        let table = items.len() * size_of::<u32>();
        let mut block = arena.block(table + items.iter().map(|item| item.len()).sum::<usize>());
        let bytes = block.bytes_mut();
        let mut end = table;
        for (item, place) in items.iter().zip((0..table).step_by(size_of::<u32>())) {
            bytes[end..end + item.len()].copy_from_slice(item);
            end += item.len();
            let end = u32::try_from(end).expect("a secret is smaller than 4 GiB");
            bytes[place..place + size_of::<u32>()].copy_from_slice(&end.to_ne_bytes());
        }
        let pairs = u32::try_from(pairs).expect("fewer pairs than bytes");
        Self { block, pairs, id, scope, scope_label }
    }

    fn end(bytes: &[u8], item: usize) -> usize {
        let place = item * size_of::<u32>();
        let end = bytes[place..place + size_of::<u32>()].try_into().expect("four bytes");
        u32::from_ne_bytes(end) as usize
    }

    fn item(&self, item: usize) -> &[u8] {
        let bytes = self.block.bytes();
        let start = match item {
            0 => (FIRST_KEY + 2 * self.len()) * size_of::<u32>(),
            _ => Self::end(bytes, item - 1),
        };
        &bytes[start..Self::end(bytes, item)]
    }

    fn text(&self, item: usize) -> &str {
        std::str::from_utf8(self.item(item)).expect("it was put in as text")
    }

    /// Returns its exact name.
    pub fn name(&self) -> &str {
        self.text(NAME)
    }

    /// Returns what changes whenever the values change; opaque.
    pub fn version(&self) -> &str {
        self.text(VERSION)
    }

    /// Returns the back-end's own id.
    pub fn id(&self) -> Option<&str> {
        match self.id {
            Id::None => None,
            Id::Item => Some(self.text(ID)),
            Id::StartOfVersion(bytes) => Some(&self.version()[..usize::from(bytes)]),
        }
    }

    /// Says where it lies.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns what that scope is called there.
    pub fn scope_label(&self) -> Option<&'static str> {
        self.scope_label
    }

    /// Tells whether `description` is of the same version of the same secret.
    pub fn is(&self, description: &Description) -> bool {
        self.version() == description.version && self.id() == description.id.as_deref()
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
        self.pairs as usize
    }

    /// Tells whether the secret has no pair at all.
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
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
        let bytes = self.block.bytes();
        Self::end(bytes, FIRST_KEY - 1 + 2 * self.len()) - Self::end(bytes, FIRST_KEY - 1)
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
            scope_label: Some("private"),
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
            assert_eq!((held.name(), held.id(), held.version()), ("näme", id, version));
            assert_eq!((held.scope(), held.scope_label()), (Scope::Private, Some("private")));
            let read: Vec<_> = held.iter().map(|(key, value)| (key, value.expose())).collect();
            assert_eq!(read, pairs);
            assert!(pairs.iter().all(|(key, value)| held.get(key).expect("it is there").expose() == *value));
            assert!(["c", "aa", "z", "0"].iter().all(|key| held.get(key).is_none()));
            assert_eq!(held.byte_size(), secret(id, version, &pairs).values.byte_size());
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
