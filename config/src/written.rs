//! The layers, merged by figment: defaults, file, environment. Checked one by one, not yet together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::settings::ExecSettings;
use keyside_protocol::units::Span;
use serde::Deserialize;

use crate::check::{self, Report};
use crate::mistake::{Mistake, Place};
use crate::schema::{Shape, TABLES, Table};
use crate::tree::{self, Entry, Node, Placed};

/// All tables as written; a field without an `Option` has a default.
#[derive(Deserialize)]
pub(crate) struct Written {
    pub(crate) agent: WrittenAgent,
    #[serde(default)]
    pub(crate) listener: BTreeMap<String, WrittenListener>,
    pub(crate) cache: WrittenCache,
    #[serde(default)]
    pub(crate) backend: BTreeMap<String, WrittenBackend>,
    #[serde(default)]
    pub(crate) grant: BTreeMap<String, WrittenGrant>,
    pub(crate) limits: WrittenLimits,
    pub(crate) metrics: WrittenMetrics,
    pub(crate) audit: WrittenAudit,
    #[serde(default)]
    pub(crate) exec: ExecSettings,
    #[serde(default)]
    pub(crate) profile: BTreeMap<String, ExecSettings>,
}

#[derive(Deserialize)]
pub(crate) struct WrittenAgent {
    pub(crate) socket: Option<String>,
    pub(crate) socket_mode: u32,
    pub(crate) socket_group: Option<String>,
    pub(crate) validation_level: ValidationLevel,
    pub(crate) scope_order: String,
    pub(crate) precedence: Option<Vec<String>>,
    pub(crate) request_timeout: Span,
}

#[derive(Deserialize)]
pub(crate) struct WrittenListener {
    pub(crate) path: Option<String>,
    pub(crate) mode: u32,
    pub(crate) group: Option<String>,
    pub(crate) grants: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct WrittenCache {
    pub(crate) ttl: Span,
    pub(crate) max_stale: Span,
    pub(crate) negative_ttl: Span,
    pub(crate) max_bytes: u64,
    pub(crate) poll: String,
    pub(crate) poll_interval: Span,
    pub(crate) jitter: f64,
    pub(crate) on_identity_failure: String,
}

#[derive(Deserialize)]
pub(crate) struct WrittenBackend {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) required: bool,
    pub(crate) parallelism: usize,
    pub(crate) timeout: Span,
    pub(crate) ttl: Option<Span>,
    pub(crate) writable: bool,
    pub(crate) denied_means_absent: bool,
    pub(crate) allow_plaintext: bool,
    pub(crate) ca_file: Option<String>,
    pub(crate) proxy: Option<String>,
    pub(crate) no_proxy: Option<String>,
    /// What belongs to single types.
    #[serde(flatten)]
    pub(crate) own: BTreeMap<String, OwnValue>,
}

/// The value of a key that belongs to single types of back-end.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OwnValue {
    Count(u64),
    Text(String),
    Texts(Vec<String>),
    Table(BTreeMap<String, String>),
}

impl WrittenBackend {
    /// Returns a text under a key of single types.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.own.get(key) {
            Some(OwnValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns a number, likewise.
    pub(crate) fn count(&self, key: &str) -> Option<u64> {
        match self.own.get(key) {
            Some(OwnValue::Count(count)) => Some(*count),
            _ => None,
        }
    }

    /// Returns a list, likewise; empty where there is none.
    pub(crate) fn texts(&self, key: &str) -> &[String] {
        match self.own.get(key) {
            Some(OwnValue::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// Returns a table, likewise.
    pub(crate) fn table(&self, key: &str) -> BTreeMap<String, String> {
        match self.own.get(key) {
            Some(OwnValue::Table(table)) => table.clone(),
            _ => BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct WrittenGrant {
    pub(crate) uid: Option<Vec<u32>>,
    pub(crate) user: Option<Vec<String>>,
    pub(crate) gid: Option<Vec<u32>>,
    pub(crate) group: Option<Vec<String>>,
    pub(crate) exe: Option<Vec<String>>,
    pub(crate) cgroup: Option<Vec<String>>,
    pub(crate) read: Vec<WrittenPattern>,
    pub(crate) write: Vec<WrittenPattern>,
    pub(crate) admin: bool,
}

#[derive(Deserialize)]
pub(crate) struct WrittenPattern {
    pub(crate) secret: String,
    pub(crate) keys: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct WrittenLimits {
    pub(crate) value: u64,
    pub(crate) request: u64,
    pub(crate) header: u64,
    pub(crate) entries: usize,
    pub(crate) connections_per_uid: usize,
    pub(crate) watchers_per_uid: usize,
    pub(crate) grace: Span,
}

#[derive(Deserialize)]
pub(crate) struct WrittenMetrics {
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Deserialize)]
pub(crate) struct WrittenAudit {
    pub(crate) path: Option<String>,
    pub(crate) required: bool,
}

/// One layer: a name for figment's own messages, and what is in it.
struct Layer {
    name: &'static str,
    content: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.content.clone()))
    }
}

/// Merges the layers over the defaults: tables key by key, anything else whole.
pub(crate) fn merge(file: Dict, variables: Dict) -> Result<Written, Mistake> {
    let defaults = defaults(&[&file, &variables]);
    Figment::new()
        .merge(Layer { name: "defaults", content: defaults })
        .merge(Layer { name: "file", content: file })
        .merge(Layer { name: "environment", content: variables })
        .extract()
        // The layers fit the schema, so only a schema that does not fit `Written` comes here; the text could quote.
        .map_err(|error| Mistake::plain(format!("the configuration does not fit at `{}`", error.path.join("."))))
}

/// The defaults of all tables, those with names included: each `[table.NAME]` in a layer gets its own.
fn defaults(layers: &[&Dict]) -> Dict {
    let place = Place::Variable(String::new());
    let default_table = |name: &str, table: &Table| {
        let entries = table.keys.iter().filter_map(|key| {
            let value = tree::parse_value(key.default?, &place)?;
            Some(Entry { name: key.name.to_owned(), place: place.clone(), value })
        });
        let value = Placed { place: place.clone(), node: Node::Table(entries.collect()) };
        Entry { name: name.to_owned(), place: place.clone(), value }
    };
    // Under one name for a table with names: each of its own gets a copy, however many there are.
    const MODEL: &str = "model";
    let root: Vec<Entry> = TABLES
        .iter()
        .filter_map(|table| match table.shape {
            Shape::Single => Some(default_table(table.name, table)),
            Shape::Keyed => {
                let value = Placed { place: place.clone(), node: Node::Table(vec![default_table(MODEL, table)]) };
                Some(Entry { name: table.name.to_owned(), place: place.clone(), value })
            }
            Shape::Later => None,
        })
        .collect();
    let mut report = Report::new(None);
    let mut content = check::document(&root, &mut report);
    debug_assert!(report.mistakes.is_empty(), "a default is wrong: {:?}", report.mistakes);
    for table in TABLES.iter().filter(|table| table.shape == Shape::Keyed) {
        let model = content.get(table.name).and_then(|models| models.as_dict()?.get(MODEL)).cloned();
        let names: BTreeSet<&String> =
            layers.iter().filter_map(|layer| layer.get(table.name)?.as_dict()).flat_map(|named| named.keys()).collect();
        let copies = names.into_iter().filter_map(|name| Some((name.clone(), model.clone()?)));
        content.insert(table.name.to_owned(), copies.collect::<Dict>().into());
    }
    content
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::MapDeserializer;

    use super::*;

    #[test]
    fn the_defaults_alone_are_a_whole_configuration() {
        let written = merge(Dict::new(), Dict::new()).expect("defaults");
        assert_eq!(written.agent.socket_mode, 0o600);
        assert_eq!(written.cache.max_bytes, 64 << 20);
        assert!((written.cache.jitter - 0.1).abs() < f64::EPSILON);
        assert_eq!(written.exec, ExecSettings::default());
    }

    #[test]
    fn every_default_is_a_toml_value() {
        let place = Place::Variable(String::new());
        for key in TABLES.iter().flat_map(|table| table.keys) {
            if let Some(default) = key.default {
                assert!(tree::parse_value(default, &place).is_some(), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_wrappers_settings_have_exactly_the_keys_of_the_schema() {
        let wrong = MapDeserializer::<_, serde::de::value::Error>::new(
            [("no_such_key", "x")].into_iter().map(|(key, value)| (key, value.into_deserializer())),
        );
        let error = ExecSettings::deserialize(wrong).expect_err("denies unknown fields").to_string();
        let exec = crate::schema::table("exec").expect("a table");
        let listed: BTreeSet<&str> = error.split('`').skip(3).step_by(2).collect();
        let known: BTreeSet<&str> = exec.keys.iter().map(|key| key.name).collect();
        assert_eq!(listed, known);
    }
}
