//! A tree against the schema: what is unknown or wrong becomes a mistake, the rest a layer for figment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::name;
use keyside_protocol::template::Template;
use keyside_protocol::units::{ByteSize, Span};

use crate::mistake::{Mistake, Place, shown};
use crate::schema::{self, Kind, Shape, TABLES, Table};
use crate::suggest;
use crate::tree::{Entry, Node, Placed};

/// How many unknown words in one load get the nearest known one.
const MAX_SUGGESTIONS: usize = 500;

/// The mistakes found so far, and where everything known was written.
pub(crate) struct Report {
    /// The configuration file, if there is one.
    file: Option<PathBuf>,
    /// In the order they were found.
    pub(crate) mistakes: Vec<Mistake>,
    places: BTreeMap<Vec<String>, Place>,
    /// The keys that were written with a wrong value, in whose place a default may stand.
    wrong: BTreeSet<Vec<String>>,
    /// How many more unknown words get the nearest known one.
    suggestions: usize,
    /// The files that were read or looked for, in that order.
    pub(crate) files: Vec<PathBuf>,
}

impl Report {
    pub(crate) fn new(file: Option<&Path>) -> Self {
        Self {
            file: file.map(Path::to_owned),
            mistakes: Vec::new(),
            places: BTreeMap::new(),
            wrong: BTreeSet::new(),
            suggestions: MAX_SUGGESTIONS,
            files: Vec::new(),
        }
    }

    /// Adds a mistake at a place.
    pub(crate) fn mistake(&mut self, place: &Place, what: impl std::fmt::Display) {
        self.mistakes.push(Mistake::at(place, self.file.as_deref(), what));
    }

    /// Adds a mistake where `path` was written, or the nearest table around it.
    pub(crate) fn mistake_at(&mut self, path: &[&str], what: impl std::fmt::Display) {
        let found = (1..=path.len()).rev().find_map(|length| self.place(&path[..length]).cloned());
        match found {
            Some(place) => self.mistake(&place, what),
            None => self.mistakes.push(Mistake { file: self.file.clone(), ..Mistake::plain(what.to_string()) }),
        }
    }

    /// Returns where `path` was written, rightly or wrongly.
    pub(crate) fn place(&self, path: &[&str]) -> Option<&Place> {
        self.places.get(&path.iter().map(|&part| part.to_owned()).collect::<Vec<_>>())
    }

    /// Tells whether `path` was written with a wrong value, which has been reported.
    pub(crate) fn is_wrong(&self, path: &[&str]) -> bool {
        self.wrong.contains(&path.iter().map(|&part| part.to_owned()).collect::<Vec<_>>())
    }

    /// Tells whether any `[table.NAME]` was written, rightly or wrongly.
    pub(crate) fn has_entry_of(&self, table: &str) -> bool {
        self.places.keys().any(|path| path.len() > 1 && path[0] == table)
    }

    /// Iterates over the keys written in `[table.name]`.
    pub(crate) fn keys_of(&self, table: &str, name: &str) -> impl Iterator<Item = &str> {
        let title = [table.to_owned(), name.to_owned()];
        self.places
            .range(title.to_vec()..)
            .map(|(path, _)| path)
            .take_while(move |path| path.starts_with(&title))
            .filter(|path| path.len() == 3)
            .map(|path| path[2].as_str())
    }

    /// Returns the known word that `wrong` was most likely meant to be. After very many of them no more: whoever has
    /// that many mistakes needs no suggestion, and a hostile file must not buy the time.
    pub(crate) fn nearest<'w>(&mut self, wrong: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
        self.suggestions = self.suggestions.checked_sub(1)?;
        suggest::nearest(wrong, known)
    }

    fn note(&mut self, path: &[&str], place: &Place) {
        self.places.insert(path.iter().map(|&part| part.to_owned()).collect(), place.clone());
    }

    /// Notes a table: the first place stays, a variable that adds a key to it does not move it.
    fn note_table(&mut self, path: &[&str], place: &Place) {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        self.places.entry(path).or_insert_with(|| place.clone());
    }
}

/// Checks a whole document; the result holds only what is right.
pub(crate) fn document(root: &[Entry], report: &mut Report) -> Dict {
    let mut layer = Dict::new();
    for entry in root {
        let Some(table) = schema::table(&entry.name) else {
            unknown_table(&entry.name, &entry.place, matches!(entry.value.node, Node::Table(_)), report);
            continue;
        };
        match table.shape {
            Shape::Later => later_table(table, &entry.place, report),
            Shape::Single => {
                report.note_table(&[table.name], &entry.place);
                let title = format!("[{}]", table.name);
                if let Some(content) = keys(table, &title, &[table.name], &entry.value, report) {
                    layer.insert(table.name.to_owned(), content.into());
                }
            }
            Shape::Keyed => {
                report.note_table(&[table.name], &entry.place);
                layer.insert(table.name.to_owned(), keyed(table, &entry.value, report).into());
            }
        }
    }
    layer
}

/// Reports a table or top-level key that does not exist.
pub(crate) fn unknown_table(wrong: &str, place: &Place, is_table: bool, report: &mut Report) {
    let home = TABLES.iter().find(|table| table.shape == Shape::Single && table.key(wrong).is_some());
    let near = report.nearest(wrong, TABLES.iter().map(|table| table.name));
    let wrong = shown(wrong);
    match (near, home) {
        (_, Some(home)) if !is_table => {
            report.mistake(place, format!("unknown key `{wrong}` outside of any table; it belongs in [{}]", home.name));
        }
        (Some(near), _) => report.mistake(place, format!("unknown table `{wrong}`; did you mean `{near}`?")),
        (None, _) => {
            let known: Vec<&str> =
                TABLES.iter().filter(|table| table.shape != Shape::Later).map(|table| table.name).collect();
            report.mistake(place, format!("unknown table `{wrong}`; there are {}", known.join(", ")));
        }
    }
}

/// Reports a table that this version does not have yet.
pub(crate) fn later_table(table: &Table, place: &Place, report: &mut Report) {
    report.mistake(place, format!("`[{}]` is not supported in this version yet", table.name));
}

fn keyed(table: &'static Table, value: &Placed, report: &mut Report) -> Dict {
    let mut layer = Dict::new();
    let what = format!("[{0}] holds only tables of its own: [{0}.NAME]", table.name);
    let Node::Table(entries) = &value.node else {
        // Something stands here, so that nothing else is taken instead.
        report.note_table(&[table.name, ""], &value.place);
        report.mistake(&value.place, what);
        return layer;
    };
    for entry in entries {
        let path = [table.name, entry.name.as_str()];
        report.note_table(&path, &entry.place);
        if !matches!(entry.value.node, Node::Table(_)) {
            report.mistake(
                &entry.place,
                format!("{what}, but `{}` is {}", shown(&entry.name), entry.value.node.described()),
            );
            continue;
        }
        if entry.name.is_empty() || entry.name.chars().any(char::is_control) || entry.name.chars().count() > 64 {
            let what = format!("the name of a [{}.NAME] has 1 to 64 characters, no control character", table.name);
            report.mistake(&entry.place, what);
            continue;
        }
        let title = format!("[{}.{}]", table.name, entry.name);
        if let Some(content) = keys(table, &title, &path, &entry.value, report) {
            layer.insert(entry.name.clone(), content.into());
        }
    }
    layer
}

fn keys(table: &'static Table, title: &str, path: &[&str], value: &Placed, report: &mut Report) -> Option<Dict> {
    let Node::Table(entries) = &value.node else {
        report.mistake(&value.place, format!("{title} must be a table, not {}", value.node.described()));
        return None;
    };
    let mut layer = Dict::new();
    for entry in entries {
        let Some(key) = table.key(&entry.name) else {
            unknown_key(table, title, entry, report);
            continue;
        };
        let path: Vec<&str> = path.iter().copied().chain([key.name]).collect();
        report.note(&path, &entry.value.place);
        let mut check = ValueCheck { title, key: key.name, path: &path, report };
        match key.kind {
            Kind::Inline(instead) => {
                let what = format!("`{}` in {title} is a secret and never stands here; use {instead}", key.name);
                check.report.mistake(&entry.place, what);
            }
            Kind::Later => {
                let what = format!("`{}` in {title} is not supported in this version yet", key.name);
                check.report.mistake(&entry.place, what);
            }
            kind => match check.value(kind, &entry.value) {
                Some(value) => drop(layer.insert(key.name.to_owned(), value)),
                None => drop(report.wrong.insert(path.iter().map(|&part| part.to_owned()).collect())),
            },
        }
    }
    Some(layer)
}

fn unknown_key(table: &'static Table, title: &str, entry: &Entry, report: &mut Report) {
    let own = table.keys.iter().filter(|key| !matches!(key.kind, Kind::Inline(_) | Kind::Later));
    let near = report.nearest(&entry.name, own.clone().map(|key| key.name));
    let near = near.or_else(|| report.nearest(&entry.name, table.keys.iter().map(|key| key.name)));
    let advice = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => match TABLES.iter().find(|other| other.shape == Shape::Single && other.key(&entry.name).is_some()) {
            Some(other) => format!("it belongs in [{}]", other.name),
            None => format!("there are {}", own.map(|key| key.name).collect::<Vec<_>>().join(", ")),
        },
    };
    report.mistake(&entry.place, format!("unknown key `{}` in {title}; {advice}", shown(&entry.name)));
}

/// One value under check.
struct ValueCheck<'r> {
    title: &'r str,
    key: &'static str,
    path: &'r [&'r str],
    report: &'r mut Report,
}

impl ValueCheck<'_> {
    fn wrong(&mut self, place: &Place, what: impl std::fmt::Display) {
        let what = format!("`{}` in {} {what}", self.key, self.title);
        self.report.mistake(place, what);
    }

    /// Reports a value of the wrong type, or a text that does not fit: neither is quoted.
    fn unfit(&mut self, kind: Kind, placed: &Placed) {
        let what = match placed.node {
            Node::Text(_) | Node::Integer(_) | Node::Float(_) => format!("must be {}", kind.expected()),
            _ => format!("must be {}, not {}", kind.expected(), placed.node.described()),
        };
        self.wrong(&placed.place, what);
    }

    /// Checks a value and returns it in the shape that the written settings take.
    fn value(&mut self, kind: Kind, placed: &Placed) -> Option<Value> {
        match (kind, &placed.node) {
            (Kind::Switch, Node::Switch(switch)) => Some((*switch).into()),
            (Kind::Share, Node::Integer(number @ (0 | 1))) => Some((if *number == 1 { 1.0 } else { 0.0_f64 }).into()),
            (Kind::Share, Node::Float(number)) if (0.0..=1.0).contains(number) => Some((*number).into()),
            (Kind::Count { least, most }, Node::Integer(number)) => match u64::try_from(*number) {
                Ok(number) if (least..=most).contains(&number) => Some(number.into()),
                _ => self.refused(kind, placed),
            },
            (Kind::Size, Node::Integer(number)) => self.size(kind, placed, &number.to_string()),
            (Kind::TextTable | Kind::TemplateTable, Node::Table(entries)) => self.text_table(kind, entries),
            (Kind::Texts | Kind::Forms { .. } | Kind::Accounts | Kind::Ids | Kind::Patterns, Node::List(items)) => {
                self.list(kind, items)
            }
            (Kind::OneOrMore { .. }, Node::List(items)) if items.is_empty() => {
                self.wrong(&placed.place, "is an empty list; leave it out, or name at least one");
                None
            }
            (Kind::OneOrMore { .. }, Node::List(items)) => self.list(kind, items),
            (Kind::Accounts | Kind::OneOrMore { .. }, Node::Text(_)) | (Kind::Ids, Node::Integer(_)) => {
                self.list(kind, std::slice::from_ref(placed))
            }
            (_, Node::Text(text)) if kind.is_text() => self.text(kind, placed, text),
            (_, node) => {
                let what = format!("must be {}, not {}", kind.expected(), node.described());
                self.wrong(&placed.place, what);
                None
            }
        }
    }

    fn refused(&mut self, kind: Kind, placed: &Placed) -> Option<Value> {
        self.unfit(kind, placed);
        None
    }

    fn text(&mut self, kind: Kind, placed: &Placed, text: &str) -> Option<Value> {
        match kind {
            Kind::Duration { zero } => match text.parse::<Span>() {
                Ok(span) if !zero && span.0.is_zero() => {
                    self.wrong(&placed.place, "must be longer than 0");
                    None
                }
                Ok(_) => Some(text.into()),
                Err(_) => {
                    let what = format!("must be {}, `{}` is none", kind.expected(), shown(text));
                    self.wrong(&placed.place, what);
                    None
                }
            },
            Kind::Size => self.size(kind, placed, text),
            Kind::Level => match text.parse::<ValidationLevel>() {
                Ok(level) => Some(level.as_str().into()),
                Err(error) => {
                    self.report.mistake(&placed.place, format!("`{}` in {}: {error}", self.key, self.title));
                    None
                }
            },
            Kind::Word { due, later, never } => self.word(due, later, never, placed, text),
            Kind::Mode => match u32::from_str_radix(text, 8) {
                // `from_str_radix` takes a sign.
                Ok(mode) if mode <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Some(mode.into()),
                _ => {
                    let what = format!("must be {}, `{}` is none", kind.expected(), shown(text));
                    self.wrong(&placed.place, what);
                    None
                }
            },
            Kind::Socket => match crate::socket::refusal(Path::new(text)) {
                None => Some(text.into()),
                Some(refusal) => {
                    self.report.mistake(&placed.place, format!("`{}` in {}: {refusal}", self.key, self.title));
                    None
                }
            },
            // Not quoted: where the path of a key file is due, people paste the key.
            Kind::Path if !text.starts_with('/') || text.contains('\0') => self.refused(kind, placed),
            Kind::Form { fits, .. } if !fits(text) => self.refused(kind, placed),
            _ if text.is_empty() => {
                self.wrong(&placed.place, "is empty");
                None
            }
            _ => Some(text.into()),
        }
    }

    fn size(&mut self, kind: Kind, placed: &Placed, text: &str) -> Option<Value> {
        match text.parse::<ByteSize>() {
            Ok(ByteSize(0)) => {
                self.wrong(&placed.place, "must be larger than 0");
                None
            }
            Ok(ByteSize(bytes)) => Some(bytes.into()),
            Err(_) => {
                let what = format!("must be {}, `{}` is none", kind.expected(), shown(text));
                self.wrong(&placed.place, what);
                None
            }
        }
    }

    fn word(
        &mut self,
        due: &[&str],
        later: &[&str],
        never: &[(&str, &str)],
        placed: &Placed,
        text: &str,
    ) -> Option<Value> {
        if due.contains(&text) {
            return Some(text.into());
        }
        let known = || due.iter().chain(later).copied();
        let list = known().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let what = if let Some((word, why)) = never.iter().find(|(word, _)| *word == text) {
            format!("`{}` = \"{word}\" in {} has no meaning here: {why}", self.key, self.title)
        } else if later.contains(&text) {
            format!("`{}` = \"{text}\" in {} is not supported in this version yet", self.key, self.title)
        } else {
            let near = self.report.nearest(text, known());
            let near = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            // A word is quoted only where it looks like one.
            let is_word = text.len() <= 32
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            let wrong = if is_word { format!(" \"{text}\"") } else { String::new() };
            format!("unknown `{}`{wrong} in {}; known are {list}{near}", self.key, self.title)
        };
        self.report.mistake(&placed.place, what);
        None
    }

    fn text_table(&mut self, kind: Kind, entries: &[Entry]) -> Option<Value> {
        let mut table = Dict::new();
        for entry in entries {
            if entry.name.is_empty() || entry.name.contains(['=', '\0']) {
                self.wrong(&entry.place, "holds a name that is empty or has a `=` or NUL in it");
                continue;
            }
            let Node::Text(text) = &entry.value.node else {
                let what = format!(
                    "holds `{}`, which must be a text, not {}",
                    shown(&entry.name),
                    entry.value.node.described()
                );
                self.wrong(&entry.value.place, what);
                continue;
            };
            if matches!(kind, Kind::TemplateTable)
                && let Err(error) = Template::parse(text)
            {
                let what = format!(
                    "holds a malformed template under `{}`, at its line {}, column {}: {}",
                    shown(&entry.name),
                    error.line,
                    error.column,
                    error.what
                );
                self.wrong(&entry.value.place, what);
                continue;
            }
            table.insert(entry.name.clone(), text.as_str().into());
        }
        Some(table.into())
    }

    fn list(&mut self, kind: Kind, items: &[Placed]) -> Option<Value> {
        let before = self.report.mistakes.len();
        let mut values: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let index = index.to_string();
            let path: Vec<&str> = self.path.iter().copied().chain([index.as_str()]).collect();
            self.report.note(&path, &item.place);
            let value = match (kind, &item.node) {
                (Kind::Patterns, _) => self.pattern(item),
                (Kind::Ids, Node::Integer(id)) => match u32::try_from(*id) {
                    // The highest means "no id" to the kernel.
                    Ok(id) if id < u32::MAX => Some(id.into()),
                    _ => self.refused(kind, item),
                },
                (Kind::Texts | Kind::Accounts, Node::Text(text)) if !text.is_empty() => Some(text.as_str().into()),
                (Kind::Forms { fits, .. } | Kind::OneOrMore { fits, .. }, Node::Text(text)) if fits(text) => {
                    Some(text.as_str().into())
                }
                _ => self.refused(kind, item),
            };
            values.extend(value);
        }
        // Half a list would mean something else.
        (self.report.mistakes.len() == before).then(|| values.into())
    }

    fn pattern(&mut self, item: &Placed) -> Option<Value> {
        let (secret, place, keys) = match &item.node {
            Node::Text(secret) => (secret, &item.place, None),
            Node::Table(entries) => {
                let mut secret = None;
                let mut keys = None;
                for entry in entries {
                    match (entry.name.as_str(), &entry.value.node) {
                        ("secret", Node::Text(text)) => secret = Some((text, &entry.value.place)),
                        ("keys", Node::List(items)) => keys = Some(self.pattern_keys(items, &entry.value.place)?),
                        ("secret", _) => return self.refused(Kind::Text, &entry.value),
                        ("keys", _) => return self.refused(Kind::Texts, &entry.value),
                        (wrong, _) => {
                            let near = self.report.nearest(wrong, ["secret", "keys"]);
                            let advice = near.map_or_else(
                                || "there are secret, keys".to_owned(),
                                |near| format!("did you mean `{near}`?"),
                            );
                            let what = format!("holds a pattern with the unknown key `{}`; {advice}", shown(wrong));
                            self.wrong(&entry.place, what);
                            return None;
                        }
                    }
                }
                let Some((secret, place)) = secret else {
                    self.wrong(&item.place, "holds a pattern without `secret`");
                    return None;
                };
                (secret, place, keys)
            }
            _ => return self.refused(Kind::Patterns, item),
        };
        if let Err(error) = name::check_name(secret) {
            self.wrong(place, format!("holds a pattern that no secret fits: {error}"));
            return None;
        }
        let mut pattern = Dict::new();
        pattern.insert("secret".to_owned(), secret.as_str().into());
        if let Some(keys) = keys {
            pattern.insert("keys".to_owned(), keys.into());
        }
        Some(pattern.into())
    }

    fn pattern_keys(&mut self, items: &[Placed], place: &Place) -> Option<Vec<Value>> {
        if items.is_empty() {
            self.wrong(place, "holds a pattern with no `keys`; leave `keys` out for all of them");
            return None;
        }
        let mut keys = Vec::new();
        for item in items {
            match &item.node {
                Node::Text(text) if name::check_key(text).is_ok() => keys.push(text.as_str().into()),
                _ => {
                    self.refused(Kind::Texts, item);
                    return None;
                }
            }
        }
        Some(keys)
    }
}
