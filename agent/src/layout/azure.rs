//! How ZenML names and tags secrets in Azure Key Vault, in its three layouts.
//!
//! `store`: one secret `zenml-<uuid>` each, a JSON object of strings. Up to 0.53 its tags have the ZenML name and scope;
//! since 0.55 only the ids of deployment and secret. `manager` without a scope: one secret for each key, called
//! `zenml-<hex of the base64 of NAME-KEY>` and found by its tags; with a scope: one secret each, whose name is the path of
//! the scope. `plain`: whatever somebody keeps there.

use std::collections::HashMap;

use keyside_config::settings::ManagerScope;
use keyside_protocol::value::{SecretValue, SecretValues};

use super::pairs::{self, PairsError};
use crate::backend::{Scope, ScopeLabel};

/// The tags of one secret.
pub type Tags = HashMap<String, String>;

/// Key Vault's longest name, in characters.
const LONGEST_NAME: usize = 127;

/// What a scoped secrets manager adds to the pairs.
const SCHEMA_KEY: &str = "zenml_schema_name";

/// A secret of ZenML's store, as its tags describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSecret {
    /// The ZenML name.
    pub name: String,
    /// The dashed UUID.
    pub id: String,
    /// The id of the deployment that wrote it.
    pub deployment: String,
    /// The id of the workspace.
    pub workspace: String,
    /// The id of the user who made it, and to whom it belongs where the scope is private.
    pub user: String,
    /// The scope.
    pub scope: Scope,
}

impl StoreSecret {
    /// Returns ZenML's word for the scope.
    pub fn scope_label(&self) -> ScopeLabel {
        match self.scope {
            Scope::Private => ScopeLabel::User,
            Scope::Public => ScopeLabel::Workspace,
        }
    }
}

/// Tells whether Key Vault can hold a secret of this name.
pub fn is_place(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(fits)
}

/// Returns where ZenML's store keeps the secret with this id.
pub fn store_place(id: &str) -> String {
    format!("zenml-{id}")
}

/// Reads the tags that ZenML's store wrote up to 0.53; `None` for a secret that has no name there.
pub fn store_secret(place: &str, tags: &Tags) -> Option<StoreSecret> {
    let tag = |key: &str| tags.get(key).cloned();
    let scope = match tags.get("zenml_secret_scope").map(String::as_str) {
        Some("user") => Scope::Private,
        Some("workspace") => Scope::Public,
        _ => return None,
    };
    let id = tag("zenml_secret_id")?;
    // Tags can be copied to another secret by hand; the place cannot.
    place.eq_ignore_ascii_case(&store_place(&id)).then_some(StoreSecret {
        name: tag("zenml_secret_name")?,
        deployment: tag("zenml")?,
        workspace: tag("zenml_secret_workspace").unwrap_or_default(),
        user: tag("zenml_secret_user").unwrap_or_default(),
        scope,
        id,
    })
}

/// Tells whether the secret with this id, of this deployment, is what the tags describe.
pub fn is_of_store(tags: &Tags, id: &str, deployment: &str) -> bool {
    let is = |key: &str, expected: &str| tags.get(key).is_some_and(|value| same_id(value, expected));
    is("zenml", deployment) && is("zenml_secret_id", id)
}

/// Tells whether ZenML's secrets store wrote it without a name, as it does since 0.55.
pub fn is_nameless(tags: &Tags) -> bool {
    tags.contains_key("zenml") && tags.contains_key("zenml_secret_id") && !tags.contains_key("zenml_secret_name")
}

/// Ids are written with and without dashes.
fn same_id(left: &str, right: &str) -> bool {
    let digits = |id: &str| id.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_lowercase()).collect();
    let (left, right): (Vec<u8>, Vec<u8>) = (digits(left), digits(right));
    left == right
}

/// Returns secret and key that a secrets manager without a scope keeps in the secret with these tags.
pub fn group_key(tags: &Tags) -> Option<(&str, &str)> {
    let tag = |key: &str| tags.get(key).map(String::as_str).filter(|value| !value.is_empty());
    Some((tag("zenml-group-key")?, tag("zenml-key-name")?))
}

/// Returns where a secrets manager keeps the secret of this name; `None` without a scope, or where Key Vault cannot hold
/// such a name.
pub fn manager_place(scope: &ManagerScope, name: &str) -> Option<String> {
    let place = match scope {
        ManagerScope::None => return None,
        ManagerScope::Global => format!("zenml-global-{name}"),
        ManagerScope::Component(id) => format!("zenml-component-{id}-{name}"),
        ManagerScope::Namespace(namespace) => format!("zenml-namespace-{namespace}-{name}"),
    };
    is_place(&place).then_some(place)
}

/// Returns the name of the secret with these tags, if it belongs to the scope: two scopes can have the same place
/// (namespace `a`, secret `b-c`; namespace `a-b`, secret `c`), and only the tags tell.
pub fn name_in_scope<'t>(scope: &ManagerScope, tags: &'t Tags) -> Option<&'t str> {
    let is = |key: &str, expected: &str| tags.get(key).is_some_and(|value| value == expected);
    let belongs = match scope {
        ManagerScope::None => false,
        ManagerScope::Global => is("zenml_scope", "global"),
        ManagerScope::Component(id) => {
            is("zenml_scope", "component") && tags.get("zenml_component_uuid").is_some_and(|uuid| same_id(uuid, id))
        }
        ManagerScope::Namespace(namespace) => is("zenml_scope", "namespace") && is("zenml_namespace", namespace),
    };
    tags.get("zenml_secret_name").filter(|_| belongs).map(String::as_str)
}

/// Reads what ZenML's store wrote: an object of strings; nothing at all is no pairs, as ZenML reads it.
pub fn store_values(text: &[u8]) -> Result<SecretValues, &'static str> {
    if text.is_empty() {
        return Ok(SecretValues::new());
    }
    pairs::strings(text).map_err(in_words)
}

/// Reads what a secrets manager with a scope wrote: an object with the name of its schema among the pairs.
pub fn manager_values(text: &[u8]) -> Result<SecretValues, &'static str> {
    let mut values = pairs::managed(text).map_err(in_words)?;
    values.remove(SCHEMA_KEY);
    Ok(values)
}

/// Reads what somebody keeps: the members of a JSON object (what is no string is its JSON text), and any other text as it
/// stands under the key `value`.
pub fn plain_values(value: SecretValue) -> SecretValues {
    // expose: parsed into values that are wiped.
    match pairs::anything(value.expose()) {
        Ok(values) => values,
        Err(_) => [("value".to_owned(), value)].into_iter().collect(),
    }
}

fn in_words(error: PairsError) -> &'static str {
    match error {
        PairsError::NotJson => "its value is not JSON",
        PairsError::NotStrings => "its value is not a JSON object of strings",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn shown(values: &SecretValues) -> String {
        let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
        values.iter().map(|(key, value)| format!("{key}={};", text(value))).collect()
    }

    const ID: &str = "5f2b0e52-7e4e-4f0b-9c5a-0d1f6a3f1c11";
    const DEPLOYMENT: &str = "0a0a0a0a-1111-2222-3333-444444444444";

    #[test]
    fn a_secret_of_the_store_is_known_by_its_tags_up_to_0_53() {
        let full = [
            ("zenml", DEPLOYMENT),
            ("zenml_secret_id", ID),
            ("zenml_secret_name", "db"),
            ("zenml_secret_scope", "user"),
            ("zenml_secret_workspace", "w"),
            ("zenml_secret_user", "u"),
            ("zenml_secret_created", "2023-05-01T10:00:00"),
        ];
        let place = format!("zenml-{ID}");
        let found = store_secret(&place, &tags(&full)).expect("complete");
        assert_eq!((found.name.as_str(), found.id.as_str(), found.scope), ("db", ID, Scope::Private));
        assert_eq!(found.scope_label().as_str(), "user");
        assert_eq!(store_secret("another", &tags(&full)), None, "the tags of another secret");
        for missing in 0..4 {
            let mut fewer = full.to_vec();
            fewer.remove(missing);
            assert_eq!(store_secret(&place, &tags(&fewer)), None, "without {}", full[missing].0);
        }
        assert_eq!(store_secret(&place, &tags(&full[..2])), None, "as 0.55 and later tag it");
    }

    #[test]
    fn values_by_id_belong_to_one_deployment_and_one_secret() {
        let written = tags(&[("zenml", DEPLOYMENT), ("zenml_secret_id", ID)]);
        assert!(is_of_store(&written, ID, DEPLOYMENT));
        assert!(is_of_store(&written, ID, &DEPLOYMENT.replace('-', "")));
        assert!(!is_of_store(&written, ID, ID));
        assert!(!is_of_store(&written, DEPLOYMENT, DEPLOYMENT));
        assert!(!is_of_store(&tags(&[("zenml", DEPLOYMENT)]), ID, DEPLOYMENT));
        assert!(!is_of_store(&Tags::new(), ID, DEPLOYMENT));
    }

    #[test]
    fn the_place_of_a_scoped_manager_is_its_path() {
        let check = |scope: ManagerScope, name: &str, expected: Option<&str>| {
            assert_eq!(manager_place(&scope, name).as_deref(), expected);
        };
        check(ManagerScope::Global, "db", Some("zenml-global-db"));
        check(ManagerScope::Component(ID.into()), "db", Some(&format!("zenml-component-{ID}-db")));
        check(ManagerScope::Namespace("team-a".into()), "db", Some("zenml-namespace-team-a-db"));
        check(ManagerScope::Global, "d_b", None);
        check(ManagerScope::Global, "d/../b", None);
        check(ManagerScope::Global, &"x".repeat(114), Some(&format!("zenml-global-{}", "x".repeat(114))));
        check(ManagerScope::Global, &"x".repeat(115), None);
        check(ManagerScope::None, "db", None);
    }

    #[test]
    fn only_the_tags_tell_two_scopes_of_one_place_apart() {
        let scope = |name: &str| ManagerScope::Namespace(name.into());
        assert_eq!(manager_place(&scope("a"), "b-c"), manager_place(&scope("a-b"), "c"));
        let written = tags(&[("zenml_scope", "namespace"), ("zenml_namespace", "a-b"), ("zenml_secret_name", "c")]);
        assert_eq!(name_in_scope(&scope("a-b"), &written), Some("c"));
        assert_eq!(name_in_scope(&scope("a"), &written), None);
        assert_eq!(name_in_scope(&ManagerScope::Global, &written), None);
        let component = tags(&[
            ("zenml_scope", "component"),
            ("zenml_component_uuid", ID),
            ("zenml_component_name", "manager"),
            ("zenml_secret_name", "c"),
        ]);
        assert_eq!(name_in_scope(&ManagerScope::Component(ID.replace('-', "")), &component), Some("c"));
        assert_eq!(name_in_scope(&ManagerScope::Component(DEPLOYMENT.into()), &component), None);
    }

    #[test]
    fn a_key_of_an_unscoped_manager_is_known_by_its_tags() {
        let full =
            tags(&[("zenml-group-key", "db"), ("zenml-key-name", "password"), ("zenml-schema-name", "arbitrary")]);
        assert_eq!(group_key(&full), Some(("db", "password")));
        assert_eq!(group_key(&tags(&[("zenml-group-key", "db")])), None);
        assert_eq!(group_key(&tags(&[("zenml-group-key", ""), ("zenml-key-name", "k")])), None);
    }

    #[test]
    fn each_layout_reads_its_own_values() {
        assert_eq!(store_values(br#"{"a": "1", "b": "\u00e9"}"#).map(|values| shown(&values)), Ok("a=1;b=é;".into()));
        assert_eq!(store_values(b"").map(|values| shown(&values)), Ok(String::new()));
        assert!(store_values(br#"{"a": 1}"#).is_err());
        assert!(store_values(b"a=1").is_err());
        let text = br#"{"a": "1", "none": null, "zenml_schema_name": "arbitrary"}"#;
        assert_eq!(manager_values(text).map(|values| shown(&values)), Ok("a=1;".into()));
        let truth = br#"{"flag": false, "zenml_schema_name": "seldon_s3"}"#;
        assert_eq!(manager_values(truth).map(|values| shown(&values)), Ok("flag=False;".into()));
        assert!(manager_values(br#"{"list": [], "zenml_schema_name": "arbitrary"}"#).is_err());
        assert!(manager_values(b"secret").is_err());
        let plain = |text: &str| shown(&plain_values(SecretValue::copy_of(text.as_bytes())));
        assert_eq!(plain(r#"{"user": "u", "port": 5432, "opts": {"a": [1]}, "none": null}"#), {
            "none=null;opts={\"a\": [1]};port=5432;user=u;"
        });
        assert_eq!(plain("hunter2\n"), "value=hunter2\n;");
        assert_eq!(plain("[1, 2]"), "value=[1, 2];");
        assert_eq!(plain("{\"a\": "), "value={\"a\": ;");
        assert_eq!(plain("12"), "value=12;");
        assert_eq!(plain(""), "value=;");
    }
}
