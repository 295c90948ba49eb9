//! How secrets lie in AWS Secrets Manager, in each layout.
//!
//! * `store`: the secret is called `zenml/<uuid>` and holds the pairs as a JSON object of strings. Until 0.53 ZenML wrote
//!   name, scope, workspace and user into tags; since 0.55 they are in its own data base, and the tags only say which
//!   deployment and which secret this is.
//! * `manager`: the secret is called by its own name, after the path of the component's scope, and holds a JSON object of
//!   strings in which `zenml_schema_name` is no key of the secret.
//! * `plain`: any secret. A JSON object has the keys; any other text, and any bytes, are one key `value`.

use keyside_config::settings::{Layout, ManagerScope};
use keyside_protocol::value::{SecretValue, SecretValues};

use super::pairs::{self, PairsError};
use crate::backend::{Scope, Scopes};

/// The tag that tells which deployment of ZenML wrote a secret.
pub const DEPLOYMENT_TAG: &str = "zenml";
/// The tag with ZenML's own id of a secret.
pub const ID_TAG: &str = "zenml_secret_id";
/// The tag with its name (until 0.53).
pub const NAME_TAG: &str = "zenml_secret_name";
const SCOPE_TAG: &str = "zenml_secret_scope";
const WORKSPACE_TAG: &str = "zenml_secret_workspace";

/// The one member of a secrets manager's object that is no key of the secret.
const SCHEMA_MEMBER: &str = "zenml_schema_name";

/// What every name begins with that ZenML itself thought of.
const ZENML: &str = "zenml/";

/// Longest name that AWS holds.
const MOST_CHARACTERS: usize = 512;

/// The key of a secret that is one value.
const WHOLE_VALUE: &str = "value";

/// Returns what the secret `name` is called in AWS. `None` where AWS can hold no such name, or where it would be a name
/// of another layout. In the layout `store` names are not in the place: [`Tagged`].
pub fn place_of(layout: &Layout, name: &str) -> Option<String> {
    let place = format!("{}{name}", prefix(layout)?);
    let is_held = !name.is_empty() && place.len() <= MOST_CHARACTERS && is_holdable(&place);
    (is_held && name_at(layout, &place) == Some(name)).then_some(place)
}

/// Returns the name of the secret that is called `place` in AWS; `None` where it is not of this layout.
pub fn name_at<'p>(layout: &Layout, place: &'p str) -> Option<&'p str> {
    let name = place.strip_prefix(prefix(layout)?.as_str()).filter(|name| !name.is_empty())?;
    // An unscoped component's own names; what begins so belongs to a scope or to the central store.
    let is_foreign = *layout == Layout::Manager(ManagerScope::None) && name.starts_with(ZENML);
    (!is_foreign).then_some(name)
}

/// Returns what every place of this layout begins with, for a list to be narrowed by; `None` in the layout `store`.
pub fn prefix(layout: &Layout) -> Option<String> {
    match layout {
        Layout::Store => None,
        Layout::Manager(ManagerScope::None) => Some(String::new()),
        Layout::Manager(ManagerScope::Global) => Some("zenml/global/".to_owned()),
        Layout::Manager(ManagerScope::Component(id)) => Some(format!("zenml/component/{id}/")),
        Layout::Manager(ManagerScope::Namespace(name)) => Some(format!("zenml/namespace/{name}/")),
        Layout::Plain { prefix } => Some(prefix.clone()),
    }
}

/// Returns what the central store calls the secret with this id, a dashed UUID.
pub fn place_of_id(id: &str) -> String {
    format!("{ZENML}{id}")
}

/// Tells whether AWS could hold a name of these characters; everything else it refuses, and a name with a colon it would
/// take for an ARN.
pub fn is_holdable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte))
}

/// What the tags of the central store say of a secret (until 0.53).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// Its name.
    pub name: String,
    /// Private is the scope of a user, public that of a workspace.
    pub scope: Scope,
    /// Its own id, a dashed UUID.
    pub id: String,
    deployment: String,
    workspace: String,
}

/// Why no one secret can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name lies in {0} workspaces or deployments")]
pub struct Ambiguous(usize);

impl Tagged {
    /// Reads the tags of one secret; `None` where ZenML's central store did not write them, or not with a name.
    pub fn read<'t>(tags: impl Iterator<Item = (&'t str, &'t str)> + Clone) -> Option<Self> {
        let tag = |wanted: &str| tags.clone().find(|(key, _)| *key == wanted).map(|(_, value)| value.to_owned());
        Some(Self {
            name: tag(NAME_TAG)?,
            scope: match tag(SCOPE_TAG)?.as_str() {
                "user" => Scope::Private,
                "workspace" => Scope::Public,
                _ => return None,
            },
            id: tag(ID_TAG)?,
            deployment: tag(DEPLOYMENT_TAG)?,
            workspace: tag(WORKSPACE_TAG).unwrap_or_default(),
        })
    }

    /// Chooses among secrets of one name: the first scope that has it, and there the oldest, as ZenML's own client does
    /// when several users have one each. `None` where no wanted scope has it.
    ///
    /// Errors: it lies in more than one workspace, and nothing says which is meant.
    pub fn choose<S>(
        candidates: &[S],
        scopes: Scopes,
        tags: impl Fn(&S) -> &Self,
        created: impl Fn(&S) -> i64,
    ) -> Result<Option<&S>, Ambiguous> {
        for scope in scopes.order() {
            let here = || candidates.iter().filter(|candidate| tags(candidate).scope == *scope);
            let Some(oldest) = here().min_by_key(|candidate| (created(candidate), tags(candidate).id.clone())) else {
                continue;
            };
            let home = |candidate: &S| (tags(candidate).deployment.clone(), tags(candidate).workspace.clone());
            let homes: std::collections::BTreeSet<_> = here().map(home).collect();
            return if homes.len() > 1 { Err(Ambiguous(homes.len())) } else { Ok(Some(oldest)) };
        }
        Ok(None)
    }
}

/// Tells whether `deployment` wrote the secret with these tags as its own with this id.
pub fn is_kept<'t>(tags: impl Iterator<Item = (&'t str, &'t str)> + Clone, deployment: &str, id: &str) -> bool {
    let has = |wanted: &str, right: &str| tags.clone().any(|(key, value)| key == wanted && value == right);
    has(DEPLOYMENT_TAG, deployment) && has(ID_TAG, id)
}

/// What AWS keeps of a secret.
pub enum Payload {
    /// A text.
    Text(SecretValue),
    /// Bytes.
    Bytes(SecretValue),
}

/// Why a payload is no pairs of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Bytes where ZenML writes text.
    #[error("it is binary, and ZenML writes text")]
    Binary,
    /// Not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// Not an object, or not one of strings.
    #[error("it is not a JSON object of strings")]
    NotStrings,
}

impl From<PairsError> for PayloadError {
    fn from(error: PairsError) -> Self {
        match error {
            PairsError::NotJson => Self::NotJson,
            PairsError::NotStrings => Self::NotStrings,
        }
    }
}

/// Returns the pairs that a payload holds.
pub fn decode(layout: &Layout, payload: Payload) -> Result<SecretValues, PayloadError> {
    let whole = |value| SecretValues::from_iter([(WHOLE_VALUE.to_owned(), value)]);
    // expose: read into other wiped values.
    match (layout, payload) {
        (Layout::Plain { .. }, Payload::Bytes(bytes)) => Ok(whole(bytes)),
        (Layout::Plain { .. }, Payload::Text(text)) => {
            Ok(pairs::anything(text.expose()).unwrap_or_else(|_| whole(text)))
        }
        (_, Payload::Bytes(_)) => Err(PayloadError::Binary),
        (Layout::Manager(_), Payload::Text(text)) => {
            let mut values = pairs::managed(text.expose())?;
            drop(values.remove(SCHEMA_MEMBER));
            Ok(values)
        }
        (Layout::Store, Payload::Text(text)) => Ok(pairs::strings(text.expose())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(prefix: &str) -> Layout {
        Layout::Plain { prefix: prefix.to_owned() }
    }

    #[test]
    fn a_name_has_one_place_in_each_layout() {
        let check = |layout: &Layout, name: &str, place: Option<&str>| {
            assert_eq!(place_of(layout, name).as_deref(), place, "{name}");
            if let Some(place) = place {
                assert_eq!(name_at(layout, place), Some(name));
            }
        };
        let id = "4a7ac0d4-1b2a-4c5e-9f55-0c4a4e4b8d11";
        check(&Layout::Manager(ManagerScope::None), "db", Some("db"));
        check(&Layout::Manager(ManagerScope::Global), "db", Some("zenml/global/db"));
        let component = Layout::Manager(ManagerScope::Component(id.to_owned()));
        check(&component, "db", Some(&format!("zenml/component/{id}/db")));
        check(&Layout::Manager(ManagerScope::Namespace("team-a".to_owned())), "db", Some("zenml/namespace/team-a/db"));
        check(&plain(""), "prod/db", Some("prod/db"));
        check(&plain("prod/"), "db", Some("prod/db"));
        check(&plain("prod/"), "", None);
        // What AWS cannot hold, what it would read as an ARN, and what belongs to another layout.
        check(&plain(""), "arn:aws:secretsmanager:eu-central-1:123456789012:secret:db-AbCdEf", None);
        for name in ["a b", "a*", "ä", "a'", "a%", "a\n"] {
            check(&plain(""), name, None);
        }
        check(&plain("p/"), &"x".repeat(510), Some(&format!("p/{}", "x".repeat(510))));
        check(&plain("p/"), &"x".repeat(511), None);
        check(&Layout::Manager(ManagerScope::None), &format!("zenml/{id}"), None);
        check(&Layout::Store, "db", None);
    }

    #[test]
    fn a_place_of_another_scope_has_no_name() {
        assert_eq!(name_at(&Layout::Manager(ManagerScope::None), "zenml/global/db"), None);
        assert_eq!(name_at(&Layout::Manager(ManagerScope::Global), "zenml/namespace/a/db"), None);
        assert_eq!(name_at(&Layout::Manager(ManagerScope::Global), "zenml/global/"), None);
        assert_eq!(name_at(&plain("prod/"), "test/db"), None);
        assert_eq!(name_at(&Layout::Store, "zenml/x"), None);
    }

    fn tagged(name: &str, scope: &str, workspace: &str, id: &str) -> Tagged {
        let tags = [
            (NAME_TAG, name),
            (SCOPE_TAG, scope),
            (WORKSPACE_TAG, workspace),
            ("zenml_secret_user", "u"),
            (ID_TAG, id),
            (DEPLOYMENT_TAG, "d"),
            ("env", "prod"),
        ];
        Tagged::read(tags.into_iter()).expect("all tags")
    }

    #[test]
    fn tags_of_the_central_store_are_read_and_others_are_not() {
        let read = tagged("db", "workspace", "w", "i");
        assert_eq!((read.name.as_str(), read.scope, read.id.as_str()), ("db", Scope::Public, "i"));
        assert_eq!(tagged("db", "user", "w", "i").scope, Scope::Private);
        let later = [(DEPLOYMENT_TAG, "d"), (ID_TAG, "i")];
        assert_eq!(Tagged::read(later.into_iter()), None, "since 0.55 there is no name");
        let strange = [(DEPLOYMENT_TAG, "d"), (ID_TAG, "i"), (NAME_TAG, "db"), (SCOPE_TAG, "galaxy")];
        assert_eq!(Tagged::read(strange.into_iter()), None);
        assert!(is_kept(later.into_iter(), "d", "i"));
        assert!(!is_kept(later.into_iter(), "other", "i"));
        assert!(!is_kept(later.into_iter(), "d", "j"));
        assert!(!is_kept(std::iter::empty(), "d", "i"));
    }

    #[test]
    fn of_several_secrets_of_one_name_the_scope_and_then_the_age_decide() {
        let secrets = [
            (tagged("db", "user", "w", "young"), 20),
            (tagged("db", "user", "w", "old"), 10),
            (tagged("db", "workspace", "w", "public"), 5),
        ];
        let chosen = |scopes| {
            let chosen = Tagged::choose(&secrets, scopes, |(tags, _)| tags, |(_, created)| *created);
            chosen.map(|chosen| chosen.map(|(tags, _)| tags.id.as_str()))
        };
        assert_eq!(chosen(Scopes::PrivateFirst), Ok(Some("old")));
        assert_eq!(chosen(Scopes::PublicFirst), Ok(Some("public")));
        let none = Tagged::choose(&secrets[2..], Scopes::PrivateOnly, |(tags, _)| tags, |(_, created)| *created);
        assert_eq!(none.map(|found| found.is_none()), Ok(true));
        let two = [(tagged("db", "workspace", "v", "a"), 1), (tagged("db", "workspace", "w", "b"), 2)];
        let error = Tagged::choose(&two, Scopes::PrivateFirst, |(tags, _)| tags, |(_, created)| *created).err();
        assert_eq!(error, Some(Ambiguous(2)), "nothing says which workspace is meant");
    }

    #[test]
    fn each_layout_reads_its_own_payloads() {
        let text = |text: &str| Payload::Text(SecretValue::copy_of(text.as_bytes()));
        let shown = |layout: &Layout, payload: Payload| {
            let text = |value: &SecretValue| String::from_utf8_lossy(value.expose()).into_owned();
            let values = decode(layout, payload);
            values.map(|values| values.iter().map(|(key, value)| format!("{key}={};", text(value))).collect::<String>())
        };
        let manager = Layout::Manager(ManagerScope::Global);
        let ok = |text: &str| Ok(text.to_owned());
        let schema = r#"{"user": "a", "zenml_schema_name": "aws"}"#;
        assert_eq!(shown(&manager, text(schema)), ok("user=a;"));
        assert_eq!(shown(&Layout::Store, text(schema)), ok("user=a;zenml_schema_name=aws;"));
        assert_eq!(shown(&plain(""), text(schema)), ok("user=a;zenml_schema_name=aws;"));
        for layout in [&manager, &Layout::Store] {
            assert_eq!(shown(layout, text("{}")), ok(""));
            assert_eq!(shown(layout, text(r#"{"a": [1]}"#)), Err(PayloadError::NotStrings));
            assert_eq!(shown(layout, text("[]")), Err(PayloadError::NotStrings));
            assert_eq!(shown(layout, text("hunter2")), Err(PayloadError::NotJson));
            assert_eq!(shown(layout, Payload::Bytes(SecretValue::new(b"{}".to_vec()))), Err(PayloadError::Binary));
        }
        assert_eq!(shown(&manager, text(r#"{"a": 1, "b": false}"#)), ok("a=1;b=False;"));
        assert_eq!(shown(&Layout::Store, text(r#"{"a": 1}"#)), Err(PayloadError::NotStrings));
        assert_eq!(shown(&plain(""), text(r#"{"a": 1, "b": [true], "c": null}"#)), ok("a=1;b=[true];c=null;"));
        for whole in ["hunter2", "", "[1]", "\"x\"", "null", "{\"a\": ", " line\n"] {
            assert_eq!(shown(&plain(""), text(whole)), Ok(format!("value={whole};")));
        }
        let bytes = decode(&plain(""), Payload::Bytes(SecretValue::new(vec![0, 0xff]))).expect("any bytes");
        assert_eq!(bytes.get("value").map(SecretValue::expose), Some(&[0, 0xff][..]));
    }
}
