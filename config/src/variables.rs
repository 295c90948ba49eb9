//! `KEYSIDE_TABLE__KEY` variables as a tree like that of the file.

use std::collections::BTreeMap;

use crate::check::{self, Report};
use crate::environment::Environment;
use crate::mistake::{Mistake, Place};
use crate::schema::{self, Kind, Shape, Table};
use crate::tree::{self, Entry, Node, Placed};

const PREFIX: &str = "KEYSIDE_";

/// What the variables say: table, then name (empty for a table without one), then key.
type Found = BTreeMap<String, BTreeMap<String, Vec<Entry>>>;

/// The configuration in the environment.
pub(crate) struct Variables {
    /// A document like the file's.
    pub(crate) root: Vec<Entry>,
    /// The variables that are part of it, in the order of their names.
    pub(crate) names: Vec<String>,
}

/// Reads all variables; `known_names` returns the `NAME`s of the file's `[table.NAME]`.
pub(crate) fn read(
    environment: &Environment,
    known_names: &dyn Fn(&str) -> Vec<String>,
    report: &mut Report,
) -> Variables {
    let mut found = Found::new();
    let mut names = Vec::new();
    for (variable, value) in environment.iter() {
        // A name that is no UTF-8 is no name of ours, and one with replacements in it is not known.
        let variable = variable.to_string_lossy();
        let Some((table, rest)) = variable.strip_prefix(PREFIX).and_then(|name| name.split_once("__")) else {
            continue;
        };
        if table.is_empty() {
            continue;
        }
        names.push(variable.clone().into_owned());
        let place = Place::Variable(variable.clone().into_owned());
        let table_name = matched(table);
        let Some(table) = schema::table(&table_name) else {
            check::unknown_table(&table_name, &place, true, report);
            continue;
        };
        if table.shape == Shape::Later {
            check::later_table(table, &place, report);
            continue;
        }
        let Some(text) = value.to_str() else {
            report.mistakes.push(Mistake::of_variable(&variable, "is not UTF-8"));
            continue;
        };
        let (rest, inner) = split_inner(table, rest);
        let rest = matched(rest);
        let (name, key) = match (table.shape, rest.rsplit_once("__")) {
            (Shape::Keyed, Some((name, key))) => match resolved(name, &known_names(table.name)) {
                Ok(name) => (name, Some(key)),
                Err(what) => {
                    report.mistake(&place, what);
                    continue;
                }
            },
            (Shape::Keyed, None) => match resolved(&rest, &known_names(table.name)) {
                Ok(name) => (name, None),
                Err(what) => {
                    report.mistake(&place, what);
                    continue;
                }
            },
            _ => (String::new(), Some(rest.as_str())),
        };
        let entries = match key {
            Some(key) if let Some(inner) = inner => vec![one_inner(key, inner, text, &place)],
            Some(key) => single(table, key, text, &place, report).into_iter().collect(),
            None => whole_table(table, text, &place, report),
        };
        let target = found.entry(table.name.to_owned()).or_default().entry(name).or_default();
        for entry in entries {
            add(entry, target, &place, report);
        }
    }
    Variables { root: document(found), names }
}

/// Adds a variable's entry to those of the other variables: each key once, but tables under a key together.
fn add(entry: Entry, target: &mut Vec<Entry>, place: &Place, report: &mut Report) {
    let Some(index) = target.iter().position(|other| other.name == entry.name) else {
        target.push(entry);
        return;
    };
    match (&mut target[index], entry) {
        (Entry { value: Placed { node: Node::Table(before), .. }, .. }, Entry { value, .. })
            if matches!(value.node, Node::Table(_)) =>
        {
            let Node::Table(entries) = value.node else { return };
            for entry in entries {
                add(entry, before, place, report);
            }
        }
        (other, entry) => {
            let Place::Variable(other) = &other.place else { return };
            let what = format!("sets `{}` a second time, after variable {other}; keep one of them", entry.name);
            report.mistake(place, what);
        }
    }
}

/// Cuts `KEY__NAME` behind the key where the key holds a table of texts: `ENV__PGUSER` sets one of `env`. The name keeps
/// its case, which means something to whoever reads the variable in the step.
fn split_inner<'t>(table: &Table, rest: &'t str) -> (&'t str, Option<&'t str>) {
    let holds_texts = |key: &str| {
        let kind = table.key(&matched(key)).map(|key| key.kind);
        matches!(kind, Some(Kind::TextTable | Kind::TemplateTable))
    };
    // Before the key of a table with names stands the name.
    let mut start = match table.shape {
        Shape::Keyed => rest.find("__").map_or(rest.len(), |at| at + 2),
        _ => 0,
    };
    while let Some(length) = rest[start..].find("__") {
        let end = start + length;
        if holds_texts(&rest[start..end]) && end + 2 < rest.len() {
            return (&rest[..end], Some(&rest[end + 2..]));
        }
        start = end + 2;
    }
    (rest, None)
}

/// The entry of a key that holds a table, with one text in it.
fn one_inner(key: &str, name: &str, text: &str, place: &Place) -> Entry {
    let placed = |node: Node| Placed { place: place.clone(), node };
    let inner = Entry { name: name.to_owned(), place: place.clone(), value: placed(Node::Text(text.to_owned())) };
    Entry { name: key.to_owned(), place: place.clone(), value: placed(Node::Table(vec![inner])) }
}

/// The entry of one key; its value is taken by the key's type.
fn single(table: &Table, key: &str, text: &str, place: &Place, report: &mut Report) -> Option<Entry> {
    let as_text = || Some(Placed { place: place.clone(), node: Node::Text(text.to_owned()) });
    let value = match table.key(key).map(|known| known.kind) {
        // The check of the whole reports a key that does not exist.
        None => as_text(),
        Some(kind) if kind.is_text() => as_text(),
        Some(kind) => match (tree::parse_value(text, place), kind) {
            (Some(value), _) => Some(value),
            (None, Kind::Accounts | Kind::OneOrMore { .. }) if !text.trim_start().starts_with('[') => as_text(),
            (None, _) => {
                let what = format!("`{key}` must be {}, written as a TOML value", kind.expected());
                report.mistake(place, what);
                None
            }
        },
    };
    value.map(|value| Entry { name: key.to_owned(), place: place.clone(), value })
}

/// The entries of `KEYSIDE_TABLE__NAME`, which holds all of `[table.NAME]`.
fn whole_table(table: &Table, text: &str, place: &Place, report: &mut Report) -> Vec<Entry> {
    match tree::parse_value(text, place).map(|value| value.node) {
        Some(Node::Table(entries)) => entries,
        _ => {
            let prefix = format!("{PREFIX}{}__NAME__KEY", table.name.to_uppercase());
            report.mistake(place, format!("must be a table as a TOML value; one key of it is {prefix}"));
            Vec::new()
        }
    }
}

fn document(found: Found) -> Vec<Entry> {
    let entry = |name: String, entries: Vec<Entry>| {
        // A table stands where its first key stands; a table without keys came from no variable that was right.
        let place = entries.first().map(|entry| entry.place.clone())?;
        Some(Entry { name, place: place.clone(), value: Placed { place, node: Node::Table(entries) } })
    };
    found
        .into_iter()
        .filter_map(|(table, names)| {
            let is_keyed = schema::table(&table).is_some_and(|table| table.shape == Shape::Keyed);
            if is_keyed {
                entry(table, names.into_iter().filter_map(|(name, entries)| entry(name, entries)).collect())
            } else {
                entry(table, names.into_values().flatten().collect())
            }
        })
        .collect()
}

/// Returns the file's spelling of a name, or the name as it stands if the file has none; an error if it has two.
fn resolved(name: &str, known: &[String]) -> Result<String, String> {
    let mut candidates = known.iter().filter(|known| matched(known) == name);
    match (candidates.next(), candidates.next()) {
        (None, _) => Ok(name.to_owned()),
        (Some(one), None) => Ok(one.clone()),
        (Some(one), Some(other)) => Err(format!("may mean `{one}` and `{other}`; rename one of them")),
    }
}

/// The form in which names are compared: lower case, with `_` for `-`.
fn matched(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}
