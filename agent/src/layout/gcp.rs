//! How secrets lie in Google's Secret Manager: as ZenML's secrets store writes them, as its secrets manager did, and as
//! anybody else does.
//!
//! ```text
//! store            zenml-<uuid>                     labels zenml, zenml_secret_id; until 0.53 also name, scope, ...
//! manager, none    <name>_<key>, one for each key   labels zenml-group-key, zenml-schema-name
//! manager, scoped  zenml-<scope>-[<which>-]<name>   labels zenml_scope, zenml_secret_name, ...
//! plain            <prefix><name>
//! ```
//!
//! Labels are compared here, whatever a filter has sorted out before.

use std::collections::HashMap;

use keyside_config::settings::ManagerScope;
use keyside_protocol::value::{SecretValue, SecretValues};

use super::pairs::{self, PairsError};
use crate::backend::{Scope, ScopeLabel};

/// What a secret is labelled with.
pub type Labels = HashMap<String, String>;

/// The label that only what an unscoped secrets manager wrote has: the name.
pub const GROUP: &str = "zenml-group-key";

/// The label of everything in a scope of a secrets manager, and the name's in every layout but that of [`GROUP`].
const SCOPE: &str = "zenml_scope";
const NAME: &str = "zenml_secret_name";

const DEPLOYMENT: &str = "zenml";
const ID: &str = "zenml_secret_id";

/// What Google takes for an id.
pub fn is_id(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// What Google takes for a label that is not empty, and ZenML for a name. Nothing in it means anything in a filter.
fn is_label(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(is_fine)
}

/// Returns the id under which ZenML's secrets store keeps the values of the secret with this id; `None` where it is none.
pub fn stored_id(id: &str) -> Option<String> {
    let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uuid.then(|| format!("zenml-{}", id.to_ascii_lowercase()))
}

/// Tells whether the deployment of this id wrote it for the secret of this id; both are dashed UUIDs.
pub fn belongs_to(labels: &Labels, deployment: &str, id: &str) -> bool {
    let says = |key: &str, due: &str| labels.get(key).is_some_and(|value| value.eq_ignore_ascii_case(due));
    says(DEPLOYMENT, deployment) && says(ID, id)
}

/// What a secret of the versions that kept names in labels (0.35 to 0.53) says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub scope: Scope,
    /// What ZenML calls that.
    pub scope_label: ScopeLabel,
    /// Its own id, a dashed UUID.
    pub id: String,
    /// Deployment and workspace. Of users who have one name each ZenML takes the one who had it first.
    pub home: [Option<String>; 2],
    /// When it was made, in a form that sorts by time; empty where it does not say.
    pub created: String,
}

/// Returns what a secret with these labels says of itself; `None` where it has no name here.
pub fn named(labels: &Labels) -> Option<Named> {
    let get = |key: &str| labels.get(key).cloned();
    let (scope, scope_label) = match labels.get("zenml_secret_scope")?.as_str() {
        "workspace" => (Scope::Public, ScopeLabel::Workspace),
        "user" => (Scope::Private, ScopeLabel::User),
        _ => return None,
    };
    Some(Named {
        name: get(NAME)?,
        scope,
        scope_label,
        id: get(ID)?,
        home: [Some(get(DEPLOYMENT)?), get("zenml_secret_workspace")],
        created: get("zenml-secret-created").unwrap_or_default(),
    })
}

/// Tells whether ZenML's secrets store wrote it without a name, as it does since 0.55.
pub fn is_nameless(labels: &Labels) -> bool {
    labels.contains_key(DEPLOYMENT) && labels.contains_key(ID) && !labels.contains_key(NAME)
}

/// Returns the filter for everything that has a name in the store, or for what has this one; `None` where nothing can.
pub fn store_filter(name: Option<&str>) -> Option<String> {
    filter(NAME, name)
}

/// Returns the filter for everything that an unscoped secrets manager wrote, or for one name; `None` as above.
pub fn group_filter(name: Option<&str>) -> Option<String> {
    filter(GROUP, name)
}

fn filter(label: &str, name: Option<&str>) -> Option<String> {
    match name {
        None => Some(format!("labels.{label}:*")),
        Some(name) => is_label(name).then(|| format!("labels.{label}={name}")),
    }
}

/// Returns the name, and the key that this one holds the value of, of what an unscoped secrets manager wrote.
pub fn group_and_key<'a>(id: &'a str, labels: &'a Labels) -> Option<(&'a str, &'a str)> {
    let name = labels.get(GROUP)?;
    let key = id.strip_prefix(name.as_str())?.strip_prefix('_')?;
    (!name.is_empty() && !key.is_empty()).then_some((name, key))
}

/// A scope of a secrets manager: what its ids begin with, and what all labels in it say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    prefix: String,
    labels: Vec<(&'static str, String)>,
}

impl Scoped {
    /// Returns what `scope` means here; `None` for the one that has neither.
    ///
    /// Errors: what cannot be the name of a name space, or the id of a component.
    pub fn new(scope: &ManagerScope) -> Result<Option<Self>, &'static str> {
        let (word, which) = match scope {
            ManagerScope::None => return Ok(None),
            ManagerScope::Global => ("global", None),
            ManagerScope::Component(id) => ("component", Some(("zenml_component_uuid", id))),
            ManagerScope::Namespace(name) => ("namespace", Some(("zenml_namespace", name))),
        };
        let mut scoped = Self { prefix: format!("zenml-{word}-"), labels: vec![(SCOPE, word.to_owned())] };
        if let Some((label, value)) = which {
            if !is_label(value) {
                return Err("only lower case letters, digits, `_` and `-` can stand there, 63 at most");
            }
            scoped.prefix.push_str(value);
            scoped.prefix.push('-');
            scoped.labels.push((label, value.clone()));
        }
        Ok(Some(scoped))
    }

    /// Returns the id that a secret of this name has; `None` where none can have it.
    pub fn id_of(&self, name: &str) -> Option<String> {
        let id = format!("{}{name}", self.prefix);
        (is_label(name) && is_id(&id)).then_some(id)
    }

    /// Returns the name of a secret in this scope. Its labels decide: the id of one scope may look like another's.
    pub fn name_of<'a>(&self, id: &str, labels: &'a Labels) -> Option<&'a str> {
        let says = |(key, value): &(&str, String)| labels.get(*key) == Some(value);
        let name = labels.get(NAME)?;
        (self.labels.iter().all(says) && self.id_of(name).as_deref() == Some(id)).then_some(name)
    }

    /// Returns the filter for everything in this scope.
    pub fn filter(&self) -> String {
        let terms: Vec<_> = self.labels.iter().map(|(key, value)| format!("labels.{key}={value}")).collect();
        terms.join(" AND ")
    }
}

/// Returns the id of a secret that anybody wrote; `None` where Google takes no such id.
pub fn plain_id(prefix: &str, name: &str) -> Option<String> {
    let id = format!("{prefix}{name}");
    (!name.is_empty() && is_id(&id)).then_some(id)
}

/// Returns the name that an id has behind the prefix.
pub fn plain_name<'a>(prefix: &str, id: &'a str) -> Option<&'a str> {
    id.strip_prefix(prefix).filter(|name| !name.is_empty())
}

/// Returns the filter for ids that have the prefix, and perhaps some more; empty for all.
pub fn plain_filter(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("name:{prefix}") }
}

/// The key of a payload that is no JSON object.
const WHOLE_VALUE: &str = "value";

/// The member of what a secrets manager wrote that is no pair.
const SCHEMA_MEMBER: &str = "zenml_schema_name";

/// Returns the pairs that ZenML's secrets store wrote.
pub(crate) fn stored(payload: &[u8]) -> Result<SecretValues, PairsError> {
    pairs::strings(payload)
}

/// Returns the pairs that a scoped secrets manager wrote.
pub(crate) fn managed(payload: &[u8]) -> Result<SecretValues, PairsError> {
    let mut values = pairs::managed(payload)?;
    drop(values.remove(SCHEMA_MEMBER));
    Ok(values)
}

/// Returns the pairs that anybody wrote: the members of a JSON object; any other payload is one value, byte for byte.
pub fn anything(payload: &[u8]) -> SecretValues {
    let whole = || SecretValues::from_iter([(WHOLE_VALUE.to_owned(), SecretValue::copy_of(payload))]);
    pairs::anything(payload).unwrap_or_else(|_| whole())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYED: &str = "5a2ee0b8-4e73-4b79-a0b4-3f9f0ce1bd5c";
    const UUID: &str = "0c5a9b6e-8f2d-4b57-9a53-1f6f3f0a7a10";

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_zenml_stored_by_id_belongs_to_one_deployment_and_one_secret() {
        assert_eq!(stored_id(UUID).as_deref(), Some("zenml-0c5a9b6e-8f2d-4b57-9a53-1f6f3f0a7a10"));
        for wrong in ["", "zenml", "../0c5a9b6e-8f2d-4b57-9a53-1f6f3f0a7a1", "0c5a9b6e8f2d4b579a531f6f3f0a7a10"] {
            assert_eq!(stored_id(wrong), None, "{wrong}");
        }
        let own = labels(&[("zenml", DEPLOYED), ("zenml_secret_id", UUID)]);
        assert!(belongs_to(&own, DEPLOYED, UUID));
        assert!(!belongs_to(&own, UUID, UUID) && !belongs_to(&own, DEPLOYED, DEPLOYED));
        assert!(!belongs_to(&labels(&[]), DEPLOYED, UUID));
        assert!(is_nameless(&own) && named(&own).is_none());
        assert!(!is_nameless(&labels(&[("team", "a")])));
    }

    #[test]
    fn labels_of_0_43_tell_name_and_scope() {
        let check = |scope: &str, expected: Option<Scope>| {
            let found = named(&labels(&[
                ("zenml", DEPLOYED),
                ("zenml_secret_id", UUID),
                ("zenml_secret_name", "db"),
                ("zenml_secret_scope", scope),
                ("zenml_secret_workspace", "w"),
                ("zenml_secret_user", "u"),
                ("zenml-secret-created", "2023-05-01-10-00-00"),
            ]));
            assert_eq!(found.as_ref().map(|named| named.scope), expected, "{scope}");
            assert!(found.is_none_or(|named| named.name == "db" && named.created == "2023-05-01-10-00-00"));
        };
        check("workspace", Some(Scope::Public));
        check("user", Some(Scope::Private));
        check("planet", None);
        assert_eq!(named(&labels(&[("zenml_secret_name", "db"), ("zenml_secret_scope", "user")])), None);
    }

    #[test]
    fn only_what_can_be_a_label_gets_into_a_filter() {
        assert_eq!(store_filter(Some("a_b-1")).as_deref(), Some("labels.zenml_secret_name=a_b-1"));
        assert_eq!(store_filter(None).as_deref(), Some("labels.zenml_secret_name:*"));
        assert_eq!(group_filter(Some("db")).as_deref(), Some("labels.zenml-group-key=db"));
        for wrong in ["", "A", "*", "a b", "a\" OR name:x", "a:b", "a.b", "ключ", &"a".repeat(64)] {
            assert_eq!(store_filter(Some(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn an_unscoped_managers_id_is_name_and_key() {
        let group = labels(&[("zenml-group-key", "db_main"), ("zenml-schema-name", "arbitrary")]);
        assert_eq!(group_and_key("db_main_user_name", &group), Some(("db_main", "user_name")));
        for foreign in ["db_main", "db_main_", "db_maine_user", "other_user"] {
            assert_eq!(group_and_key(foreign, &group), None, "{foreign}");
        }
        assert_eq!(group_and_key("db_main_user", &labels(&[])), None);
    }

    #[test]
    fn each_scope_of_a_manager_has_ids_and_labels_of_its_own() {
        let scoped = |scope| Scoped::new(&scope).expect("a scope").expect("scoped");
        let global = scoped(ManagerScope::Global);
        assert_eq!(global.id_of("db").as_deref(), Some("zenml-global-db"));
        assert_eq!(global.filter(), "labels.zenml_scope=global");
        let component = scoped(ManagerScope::Component(UUID.into()));
        assert_eq!(component.id_of("db"), Some(format!("zenml-component-{UUID}-db")));
        let namespace = scoped(ManagerScope::Namespace("team-a".into()));
        assert_eq!(namespace.id_of("db").as_deref(), Some("zenml-namespace-team-a-db"));
        assert_eq!(namespace.filter(), "labels.zenml_scope=namespace AND labels.zenml_namespace=team-a");
        for wrong in ["", "Db", "d.b", "d/b", "..", "d b"] {
            assert_eq!(namespace.id_of(wrong), None, "{wrong}");
        }
        assert_eq!(Scoped::new(&ManagerScope::None), Ok(None));
        assert!(Scoped::new(&ManagerScope::Namespace("a b".into())).is_err());
    }

    #[test]
    fn the_id_of_one_name_space_is_not_taken_for_anothers() {
        // `a` and `b-c`, or `a-b` and `c`: only the labels tell.
        let id = "zenml-namespace-a-b-c";
        let own = labels(&[("zenml_scope", "namespace"), ("zenml_namespace", "a"), ("zenml_secret_name", "b-c")]);
        let scoped = |name: &str| Scoped::new(&ManagerScope::Namespace(name.into())).expect("a scope").expect("scoped");
        assert_eq!(scoped("a").name_of(id, &own), Some("b-c"));
        assert_eq!(scoped("a-b").id_of("c").as_deref(), Some(id));
        assert_eq!(scoped("a-b").name_of(id, &own), None);
        assert_eq!(scoped("a").name_of(id, &labels(&[])), None);
    }

    #[test]
    fn a_plain_name_is_the_id_behind_its_prefix() {
        assert_eq!(plain_id("prod-", "DB_main").as_deref(), Some("prod-DB_main"));
        assert_eq!(plain_name("prod-", "prod-DB_main"), Some("DB_main"));
        assert_eq!(plain_name("prod-", "prod-"), None);
        assert_eq!(plain_name("prod-", "test-db"), None);
        for wrong in ["", "a.b", "a/b", "..", "a b", "ключ", "a%2fb", &"a".repeat(251)] {
            assert_eq!(plain_id("prod-", wrong), None, "{wrong}");
        }
        assert_eq!((plain_filter("").as_str(), plain_filter("prod-").as_str()), ("", "name:prod-"));
    }

    #[test]
    fn each_layout_reads_its_own_payloads() {
        let check = |values: Result<SecretValues, PairsError>, expected: Option<&[(&str, &str)]>| {
            let text = |value: &SecretValue| String::from_utf8_lossy(value.expose()).into_owned();
            let shown =
                values.ok().map(|values| values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect());
            let owned =
                |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(shown, expected.map(owned) as Option<Vec<(String, String)>>);
        };
        let object = br#"{"user": "me", "zenml_schema_name": "arbitrary", "gone": null}"#;
        check(managed(object), Some(&[("user", "me")]));
        check(stored(object), Some(&[("user", "me"), ("zenml_schema_name", "arbitrary")]));
        let truth = br#"{"on": true, "zenml_schema_name": "seldon_s3"}"#;
        check(managed(truth), Some(&[("on", "True")]));
        check(stored(truth), None);
        for wrong in [b"text".as_slice(), b"[]", br#"{"a": [1]}"#, b""] {
            check(managed(wrong), None);
            check(stored(wrong), None);
        }
        check(Ok(anything(br#"{"n": 1.50, "s": "a"}"#)), Some(&[("n", "1.50"), ("s", "a")]));
        for whole in ["", "text\n", "[1]", "{\"a\": ", "12"] {
            check(Ok(anything(whole.as_bytes())), Some(&[("value", whole)]));
        }
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(anything(&bytes).get("value").map(SecretValue::expose), Some(bytes.as_slice()));
    }
}
