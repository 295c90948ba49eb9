//! The child's environment block, byte for byte.
//!
//! It starts from the inherited block, in its order. What replaces an inherited variable takes its place; what is new
//! is appended: whole secrets in the order of their flags (keys in byte order), env files, `--env`, `--file-env`, and
//! `KEYSIDE_FILES` last.

use std::collections::BTreeMap;
use std::ffi::CStr;

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::reference::{Reference, ReferenceError};

use crate::plan::Plan;

/// One place in the inherited block, after reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Handed on as it is.
    Kept(&'static CStr),
    /// A whole-string reference, to be replaced by its value.
    Reference {
        /// The variable.
        name: Vec<u8>,
        /// What its value says.
        reference: Reference,
    },
}

/// The inherited environment, read.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// In order.
    pub(crate) slots: Vec<Slot>,
    /// Variables whose value ZenML would resolve and we refuse, and why.
    pub(crate) odd: Vec<(String, ReferenceError)>,
}

fn split(entry: &CStr) -> (&[u8], Option<&[u8]>) {
    let bytes = entry.to_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// `NAME_CHUNK_3` -> (`NAME`, 3).
fn chunk(name: &[u8]) -> Option<(&[u8], u8)> {
    let (&digit, rest) = name.split_last()?;
    let base = rest.strip_suffix(b"_CHUNK_")?;
    (digit.is_ascii_digit() && !base.is_empty()).then(|| (base, digit - b'0'))
}

/// What a value is, by ZenML's grammar.
enum Value {
    Plain,
    Reference(Reference),
    Odd(ReferenceError),
}

fn read_value(value: &[u8]) -> Value {
    // Nearly every variable ends here.
    if !value.starts_with(b"{{") {
        return Value::Plain;
    }
    match std::str::from_utf8(value).map(Reference::parse) {
        Ok(Ok(reference)) => Value::Reference(reference),
        Ok(Err(odd @ (ReferenceError::EmptyName | ReferenceError::NestedBraces))) => Value::Odd(odd),
        Ok(Err(ReferenceError::NotAReference)) | Err(_) => Value::Plain,
    }
}

impl Inherited {
    /// Reads the block as the plan wants it: with `--pristine` only what is passed through, with `--no-resolve-env`
    /// without looking for references.
    pub(crate) fn read(block: &[&'static CStr], plan: &Plan) -> Self {
        let joined = if plan.resolve_inherited { joined_chunks(block) } else { BTreeMap::new() };
        let mut inherited = Self { slots: Vec::with_capacity(block.len()), odd: Vec::new() };
        let mut placed: Vec<&[u8]> = Vec::new();
        for &entry in block {
            let (name, value) = split(entry);
            // A joined variable stands where it stood, or where its first chunk stands.
            let base = chunk(name).map(|(base, _)| base).filter(|base| joined.contains_key(*base));
            let whole = joined.get_key_value(base.unwrap_or(name));
            let wanted = whole.map_or(name, |(base, _)| *base);
            if plan.pristine && !plan.passed_through.contains(wanted) {
                continue;
            }
            if let Some((base, reference)) = whole {
                if plan.sets(base) {
                    // Its chunks would put it back together in the step.
                    if *base == name {
                        inherited.slots.push(Slot::Kept(entry));
                    }
                    continue;
                }
                if !placed.contains(base) {
                    placed.push(base);
                    inherited.slots.push(Slot::Reference { name: base.to_vec(), reference: reference.clone() });
                }
                continue;
            }
            // A part of something that is no reference as a whole is no reference either.
            let value = match value {
                Some(value) if plan.resolve_inherited && !plan.sets(name) => read_value(value),
                _ => Value::Plain,
            };
            inherited.slots.push(match value {
                Value::Reference(reference) => Slot::Reference { name: name.to_vec(), reference },
                Value::Plain => Slot::Kept(entry),
                Value::Odd(odd) => {
                    inherited.odd.push((String::from_utf8_lossy(name).into_owned(), odd));
                    Slot::Kept(entry)
                }
            });
        }
        inherited
    }

    /// Returns the inherited value of a variable that needs no resolving.
    pub(crate) fn plain(&self, wanted: &[u8]) -> Option<&'static [u8]> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Kept(entry) => {
                let (name, value) = split(entry);
                if name == wanted { value } else { None }
            }
            Slot::Reference { .. } => None,
        })
    }

    /// Tells whether a variable is a reference.
    pub(crate) fn is_reference(&self, wanted: &[u8]) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Reference { name, .. } if name == wanted))
    }
}

/// Joins what ZenML splits (env_utils.py, 0.98): `NAME_CHUNK_0` to at most `NAME_CHUNK_9`, in order. Only what is a
/// reference as a whole is joined: everything else is the step's own affair, and its bytes are not ours to move.
fn joined_chunks(block: &[&'static CStr]) -> BTreeMap<&'static [u8], Reference> {
    let mut parts: BTreeMap<&'static [u8], [Option<&'static [u8]>; 10]> = BTreeMap::new();
    for entry in block {
        let (name, value) = split(entry);
        if let (Some((base, index)), Some(value)) = (chunk(name), value) {
            parts.entry(base).or_default()[usize::from(index)].get_or_insert(value);
        }
    }
    let mut joined = BTreeMap::new();
    for (base, parts) in parts {
        let whole = parts.iter().map_while(|part| *part).collect::<Vec<_>>();
        // A gap means that these are not ZenML's.
        if whole.len() == parts.iter().flatten().count()
            && let Value::Reference(reference) = read_value(&whole.concat())
        {
            joined.insert(base, reference);
        }
    }
    joined
}

/// The block in the making.
#[derive(Default)]
pub(crate) struct Block {
    entries: Vec<Entry>,
}

enum Entry {
    Inherited(&'static CStr),
    /// `NAME=VALUE` and a NUL.
    Ours {
        name_length: usize,
        text: SecretBuffer,
    },
}

impl Entry {
    fn name(&self) -> &[u8] {
        match self {
            Self::Inherited(entry) => split(entry).0,
            // expose: only the name is looked at.
            Self::Ours { name_length, text } => &text.expose()[..*name_length],
        }
    }
}

impl Block {
    /// Appends an inherited entry as it is.
    pub(crate) fn keep(&mut self, entry: &'static CStr) {
        self.entries.push(Entry::Inherited(entry));
    }

    /// Appends a variable without looking for an earlier one. Neither part may hold a NUL.
    pub(crate) fn append(&mut self, name: &[u8], value: &[u8]) {
        self.entries.push(ours(name, value));
    }

    /// Sets a variable in the place of the first of that name, or at the end. Neither part may hold a NUL.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        let entry = ours(name, value);
        match self.entries.iter().position(|earlier| earlier.name() == name) {
            Some(at) => {
                self.entries[at] = entry;
                // A second entry of that name could be the one that a program finds.
                let mut index = 0;
                self.entries.retain(|other| {
                    index += 1;
                    index <= at + 1 || other.name() != name
                });
            }
            None => self.entries.push(entry),
        }
    }

    /// Removes every variable of that name.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.entries.retain(|entry| entry.name() != name);
    }

    /// Returns the value of the first variable of that name.
    pub(crate) fn get(&self, wanted: &[u8]) -> Option<&[u8]> {
        self.entries.iter().find(|entry| entry.name() == wanted).and_then(|entry| match entry {
            Entry::Inherited(entry) => split(entry).1,
            // expose: PATH, to look the command up.
            Entry::Ours { name_length, text } => Some(&text.expose()[name_length + 1..text.len() - 1]),
        })
    }

    /// Returns the strings for execve.
    pub(crate) fn strings(&self) -> Vec<&CStr> {
        let strings = self.entries.iter().map(|entry| match entry {
            Entry::Inherited(entry) => entry,
            // expose: into the child's environment block.
            Entry::Ours { text, .. } => CStr::from_bytes_until_nul(text.expose()).expect("it ends with a NUL"),
        });
        strings.collect()
    }

    /// Iterates over our own variables: name, and length of the whole string without NUL.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Inherited(_) => None,
            Entry::Ours { text, .. } => Some((entry.name(), text.len() - 1)),
        })
    }

    /// Returns the number and the bytes, without NULs, of the inherited entries.
    pub(crate) fn inherited_size(&self) -> (usize, usize) {
        self.entries.iter().fold((0, 0), |(count, bytes), entry| match entry {
            Entry::Inherited(entry) => (count + 1, bytes + entry.count_bytes()),
            Entry::Ours { .. } => (count, bytes),
        })
    }
}

fn ours(name: &[u8], value: &[u8]) -> Entry {
    let mut text = SecretBuffer::with_capacity(name.len() + value.len() + 2);
    for part in [name, b"=", value, b"\0"] {
        text.push(part);
    }
    Entry::Ours { name_length: name.len(), text }
}

#[cfg(test)]
mod tests {
    use keyside_protocol::settings::ExecSettings;

    use super::*;
    use crate::args::Written;

    fn plan(written: Written) -> Plan {
        Plan::make(Written { command: vec!["true".into()], ..written }, ExecSettings::default()).expect("a plan")
    }

    fn shown(inherited: &Inherited) -> Vec<String> {
        let show = |slot: &Slot| match slot {
            Slot::Kept(entry) => String::from_utf8_lossy(entry.to_bytes()).into_owned(),
            Slot::Reference { name, reference } => format!("{} <- {reference}", String::from_utf8_lossy(name)),
        };
        inherited.slots.iter().map(show).collect()
    }

    fn check(block: &[&'static CStr], expected: &[&str]) {
        assert_eq!(shown(&Inherited::read(block, &plan(Written::default()))), expected);
    }

    #[test]
    fn whole_string_references_are_found_where_they_stand() {
        check(
            &[c"A=1", c"B={{db.pw}}", c"C=x{{db.pw}}", c"nothing", c"=odd", c"B={{ db.b }}", c"D="],
            &["A=1", "B <- {{db.pw}}", "C=x{{db.pw}}", "nothing", "=odd", "B <- {{db.b}}", "D="],
        );
    }

    #[test]
    fn chunks_are_joined_in_order_where_the_whole_is_a_reference() {
        check(&[c"X_CHUNK_1=.pw}}", c"A=1", c"X_CHUNK_0={{db"], &["X <- {{db.pw}}", "A=1"]);
        check(&[c"X_CHUNK_0={{db", c"X=old", c"X_CHUNK_1=.pw}}"], &["X <- {{db.pw}}"]);
        check(&[c"X_CHUNK_0=long", c"X_CHUNK_1=er"], &["X_CHUNK_0=long", "X_CHUNK_1=er"]);
        check(
            &[c"X_CHUNK_0={{db", c"X_CHUNK_2=.pw}}", c"_CHUNK_0=x"],
            &["X_CHUNK_0={{db", "X_CHUNK_2=.pw}}", "_CHUNK_0=x"],
        );
    }

    #[test]
    fn what_zenml_accepts_and_we_refuse_stays_with_a_warning() {
        let inherited = Inherited::read(&[c"A={{.a.b}}"], &plan(Written::default()));
        assert_eq!((shown(&inherited), inherited.odd.len()), (vec!["A={{.a.b}}".to_owned()], 1));
    }

    #[test]
    fn pristine_keeps_what_is_passed_through_and_resolves_it_too() {
        let written = Written { pristine: true, env: vec!["B".into(), "C".into()], ..Written::default() };
        let inherited = Inherited::read(&[c"A=1", c"C={{a.b}}", c"B=2"], &plan(written));
        assert_eq!(shown(&inherited), ["C <- {{a.b}}", "B=2"]);
    }

    #[test]
    fn references_are_left_alone_when_told_so_or_when_overridden() {
        let written = Written { no_resolve_env: true, ..Written::default() };
        assert_eq!(shown(&Inherited::read(&[c"A={{a.b}}"], &plan(written))), ["A={{a.b}}"]);
        let written = Written { env: vec!["A=1".into()], ..Written::default() };
        assert_eq!(shown(&Inherited::read(&[c"A={{a.b}}"], &plan(written))), ["A={{a.b}}"]);
    }

    #[test]
    fn a_set_variable_takes_the_first_place_and_leaves_no_second_one() {
        let mut block = Block::default();
        for entry in [c"A=1", c"B=2", c"A=3", c"C"] {
            block.keep(entry);
        }
        block.set(b"A", b"new");
        block.set(b"D", b"");
        let strings: Vec<_> = block.strings().iter().map(|entry| entry.to_bytes().to_vec()).collect();
        assert_eq!(strings, [b"A=new".to_vec(), b"B=2".to_vec(), b"C".to_vec(), b"D=".to_vec()]);
        assert_eq!((block.get(b"A"), block.get(b"D"), block.get(b"C")), (Some(&b"new"[..]), Some(&b""[..]), None));
        assert_eq!(block.inherited_size(), (2, 4));
        block.keep(c"A=again");
        block.remove(b"A");
        assert_eq!((block.get(b"A"), block.get(b"D")), (None, Some(&b""[..])));
    }
}
