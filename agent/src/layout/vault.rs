//! How secrets lie in Vault's key-value engine: as ZenML's secrets store writes them, as its secrets managers did, and as
//! anybody else does.
//!
//! ```text
//! store     zenml/<id>        {"zenml_secret_values": {key: text}, "zenml_secret_metadata": {"zenml": deployment, ...}}
//! manager   [scope/]<name>    {key: text, ..., "zenml_schema_name": schema}
//! plain     [prefix/]<name>   {key: anything}
//! ```
//!
//! Replies are taken apart where they lie: only texts that become values are copied, into memory that is wiped.

use std::collections::BTreeMap;
use std::fmt;

use keyside_config::settings::{Layout, ManagerScope};
use keyside_protocol::value::{SecretValue, SecretValues};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text;

/// Where ZenML's secrets store keeps its secrets below a mount, by id.
pub const STORE_FOLDER: &str = "zenml";

/// The mount that ZenML up to 0.80 writes to, whatever its configuration says (its pull request 4088).
pub const STORE_MOUNT_TO_0_80: &str = "secret";

const SCHEMA_NAME: &str = "zenml_schema_name";
const STORED_VALUES: &str = "zenml_secret_values";
const STORED_METADATA: &str = "zenml_secret_metadata";

/// Why what lies under a name is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Something else than this layout's; to this layout it is not there.
    #[error("it was not written by ZenML")]
    Foreign,
    /// A value is not what the layout promises.
    #[error("the value of key `{0}` is no text")]
    NotText(String),
    /// The values are no object.
    #[error("the values are no object of texts")]
    NotPairs,
}

/// Returns the folder below the mount that a layout's names lie in, in pieces; every piece is a valid one.
///
/// `None` where the settings name none, such as a prefix with `..` in it.
pub fn folder(layout: &Layout) -> Option<Vec<String>> {
    let pieces = |text: &str| -> Option<Vec<String>> {
        let path = text.trim_matches('/');
        let pieces: Vec<String> = path.split('/').filter(|_| !path.is_empty()).map(str::to_owned).collect();
        pieces.iter().all(|piece| is_piece(piece)).then_some(pieces)
    };
    match layout {
        Layout::Store => pieces(STORE_FOLDER),
        Layout::Plain { prefix } => pieces(prefix),
        Layout::Manager(ManagerScope::None) => Some(Vec::new()),
        Layout::Manager(ManagerScope::Global) => pieces("zenml/global"),
        Layout::Manager(ManagerScope::Component(id)) => pieces(&format!("zenml/component/{id}")),
        Layout::Manager(ManagerScope::Namespace(name)) => pieces(&format!("zenml/namespace/{name}")),
    }
}

/// Returns the pieces of the path below the layout's folder where a secret of this name lies; `None` when no secret of
/// the layout can have the name. Without this, `../` in a name would lead out of the folder.
pub fn pieces_of<'n>(layout: &Layout, name: &'n str) -> Option<Vec<&'n str>> {
    match layout {
        // By name there is nothing: ids are found by what the secrets themselves say.
        Layout::Store => None,
        Layout::Manager(_) => is_manager_name(name).then(|| vec![name]),
        Layout::Plain { .. } => {
            let pieces: Vec<&str> = name.split('/').collect();
            pieces.iter().all(|piece| is_piece(piece)).then_some(pieces)
        }
    }
}

/// What Vault takes between two slashes.
fn is_piece(piece: &str) -> bool {
    !matches!(piece, "" | "." | "..") && !piece.contains('/') && !piece.chars().any(char::is_control)
}

/// ZenML's own rule for the names of this secrets manager (0.43).
fn is_manager_name(name: &str) -> bool {
    is_piece(name) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=.@-".contains(&byte))
}

/// An object as it lies in a reply: its keys, and what stands under them, still as JSON text.
pub struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Returns its keys in byte order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.0.iter().map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    fn get(&self, wanted: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == wanted).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut pairs: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some(pair) = map.next_entry::<String, &'de RawValue>()? {
                    pairs.push(pair);
                }
                // Two meanings for one key are refused rather than one of them chosen.
                let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
                keys.sort_unstable();
                if keys.windows(2).any(|two| two[0] == two[1]) {
                    return Err(de::Error::custom("a key stands twice"));
                }
                Ok(Object(pairs))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Returns the text that a JSON string stands for; `None` for anything else.
fn text_of(raw: &RawValue) -> Option<SecretValue> {
    // The type's own form for bytes begins with a brace: in a store that is somebody's object.
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// Returns the pairs of a secret that anybody wrote: texts as they are, anything else (`null` too) as its JSON text.
pub fn plain(object: &Object<'_>) -> SecretValues {
    let value = |raw: &RawValue| text_of(raw).unwrap_or_else(|| SecretValue::copy_of(raw.get().as_bytes()));
    object.0.iter().map(|(key, raw)| (key.clone(), value(raw))).collect()
}

/// Returns the pairs of a secret that a secrets manager wrote. Its schema's name is no pair, nor is a `null`, which ZenML
/// drops.
pub fn manager(object: &Object<'_>) -> Result<SecretValues, DecodeError> {
    object.get(SCHEMA_NAME).ok_or(DecodeError::Foreign)?;
    let mut values = SecretValues::new();
    for (key, raw) in object.0.iter().filter(|(key, _)| key != SCHEMA_NAME) {
        let value = text::managed(raw).map_err(|_| DecodeError::NotText(key.clone()))?;
        if let Some(value) = value {
            values.insert(key.clone(), value);
        }
    }
    Ok(values)
}

/// Returns the keys of a secret by what its subkeys say; `None` where it is not one of this layout's.
pub fn keys_of(layout: &Layout, subkeys: &Object<'_>) -> Option<Vec<String>> {
    let mut keys = subkeys.keys();
    if matches!(layout, Layout::Manager(_)) {
        let before = keys.len();
        keys.retain(|key| key != SCHEMA_NAME);
        if keys.len() == before {
            return None;
        }
    }
    Some(keys)
}

/// A secret of ZenML's secrets store as it lies under an id.
pub struct Stored<'a> {
    values: Object<'a>,
    metadata: BTreeMap<String, String>,
}

/// What a secret of the eras that kept names in Vault (0.35 to 0.53) says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub scope: StoredScope,
}

/// ZenML's scopes before 0.80.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredScope {
    /// `workspace`.
    Workspace,
    /// `user`.
    User,
}

impl<'a> Stored<'a> {
    /// Takes a secret apart.
    ///
    /// Errors: `Foreign` when ZenML did not write it, `NotPairs` when the values are no object.
    pub fn parse(object: &Object<'a>) -> Result<Self, DecodeError> {
        let (Some(values), Some(metadata)) = (object.get(STORED_VALUES), object.get(STORED_METADATA)) else {
            return Err(DecodeError::Foreign);
        };
        let metadata = serde_json::from_str(metadata.get()).map_err(|_| DecodeError::Foreign)?;
        let values = serde_json::from_str(values.get()).map_err(|_| DecodeError::NotPairs)?;
        Ok(Self { values, metadata })
    }

    /// Tells whether the deployment of this id wrote it for the secret of this id; both are dashed UUIDs.
    pub fn belongs_to(&self, deployment: &str, id: &str) -> bool {
        let says = |key: &str, due: &str| self.metadata.get(key).is_some_and(|value| value.eq_ignore_ascii_case(due));
        says("zenml", deployment) && says("zenml_secret_id", id)
    }

    /// Returns its name and scope, if it has them and lies under its own id.
    pub fn label(&self, id: &str) -> Option<Label> {
        let get = |key: &str| self.metadata.get(key).map(String::as_str);
        get("zenml")?;
        get("zenml_secret_id").filter(|own| own.eq_ignore_ascii_case(id))?;
        let scope = match get("zenml_secret_scope")? {
            "workspace" => StoredScope::Workspace,
            "user" => StoredScope::User,
            _ => return None,
        };
        Some(Label { name: get("zenml_secret_name")?.to_owned(), scope })
    }

    /// Returns its keys in byte order.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.values.0.iter().filter(|(_, raw)| raw.get() != "null").map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Returns its pairs; a `null` is none, as ZenML drops it.
    pub fn pairs(&self) -> Result<SecretValues, DecodeError> {
        let pairs = self.values.0.iter().filter(|(_, raw)| raw.get() != "null");
        pairs
            .map(|(key, raw)| Ok((key.clone(), text_of(raw).ok_or_else(|| DecodeError::NotText(key.clone()))?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object<'_> {
        serde_json::from_str(text).expect("an object")
    }

    fn shown(values: &SecretValues) -> Vec<(String, String)> {
        let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
        values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
    }

    fn check_pairs(values: &SecretValues, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(shown(values), expected);
    }

    fn stored(values: &str, metadata: &str) -> String {
        format!(r#"{{"zenml_secret_values": {values}, "zenml_secret_metadata": {metadata}}}"#)
    }

    #[test]
    fn each_scope_of_a_secrets_manager_has_its_folder() {
        let check = |scope, expected: &[&str]| {
            assert_eq!(folder(&Layout::Manager(scope)).expect("a folder"), expected);
        };
        check(ManagerScope::None, &[]);
        check(ManagerScope::Global, &["zenml", "global"]);
        check(ManagerScope::Component("1b4e".into()), &["zenml", "component", "1b4e"]);
        check(ManagerScope::Namespace("team-a".into()), &["zenml", "namespace", "team-a"]);
        assert_eq!(folder(&Layout::Store).expect("a folder"), ["zenml"]);
    }

    #[test]
    fn a_prefix_is_a_path_whatever_slashes_stand_around_it() {
        for prefix in ["app/prod", "/app/prod", "app/prod/"] {
            assert_eq!(folder(&Layout::Plain { prefix: prefix.into() }).expect("a folder"), ["app", "prod"]);
        }
        assert_eq!(folder(&Layout::Plain { prefix: String::new() }).expect("the mount"), [""; 0]);
        for prefix in ["..", "a/../b", "a//b", "./a"] {
            assert_eq!(folder(&Layout::Plain { prefix: prefix.into() }), None, "{prefix}");
        }
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        let plain = Layout::Plain { prefix: "app".into() };
        assert_eq!(pieces_of(&plain, "db"), Some(vec!["db"]));
        assert_eq!(pieces_of(&plain, "team/db 1"), Some(vec!["team", "db 1"]));
        for name in ["", "..", ".", "../x", "a/../../x", "a//b", "/a", "a/", "a/.", "a\0b"] {
            assert_eq!(pieces_of(&plain, name), None, "{name:?}");
        }
        let manager = Layout::Manager(ManagerScope::None);
        assert_eq!(pieces_of(&manager, "a_b+c=d.e@f-1"), Some(vec!["a_b+c=d.e@f-1"]));
        for name in ["", "..", "zenml/global/x", "a b", "ключ", "a%2fb"] {
            assert_eq!(pieces_of(&manager, name), None, "{name:?}");
        }
        assert_eq!(pieces_of(&Layout::Store, "db"), None);
    }

    #[test]
    fn what_anybody_wrote_becomes_text_or_its_json() {
        let text = r#"{"s": "a\nb", "q": "1", "n": 1.50, "b": true, "z": null, "o": {"x": [1, "y"]}, "e": ""}"#;
        check_pairs(
            &plain(&object(text)),
            &[
                ("b", "true"),
                ("e", ""),
                ("n", "1.50"),
                ("o", r#"{"x": [1, "y"]}"#),
                ("q", "1"),
                ("s", "a\nb"),
                ("z", "null"),
            ],
        );
        // The marker that values bear on the agent's own socket means nothing here.
        check_pairs(&plain(&object(r#"{"k": {"base64": "eA=="}}"#)), &[("k", r#"{"base64": "eA=="}"#)]);
        check_pairs(&plain(&object("{}")), &[]);
    }

    #[test]
    fn a_managers_secret_is_read_as_zenml_reads_it() {
        let values = manager(&object(
            r#"{"user": "me", "zenml_schema_name": "arbitrary", "zero": null, "no": false, "n": -12}"#,
        ));
        check_pairs(&values.expect("pairs"), &[("n", "-12"), ("no", "False"), ("user", "me")]);
        assert_eq!(manager(&object(r#"{"user": "me"}"#)).err(), Some(DecodeError::Foreign));
        let nested = manager(&object(r#"{"zenml_schema_name": "arbitrary", "k": {"a": "b"}}"#));
        assert_eq!(nested.err(), Some(DecodeError::NotText("k".into())));
        let layout = Layout::Manager(ManagerScope::Global);
        let keys = |text| keys_of(&layout, &object(text));
        assert_eq!(keys(r#"{"b": null, "zenml_schema_name": null, "a": null}"#), Some(vec!["a".into(), "b".into()]));
        assert_eq!(keys(r#"{"b": null}"#), None);
    }

    #[test]
    fn a_stored_secret_belongs_to_one_deployment_and_one_id() {
        let text = stored(r#"{"k": "v", "gone": null}"#, r#"{"zenml": "d-1", "zenml_secret_id": "u-1"}"#);
        let object = object(&text);
        let stored = Stored::parse(&object).expect("ZenML's");
        assert!(stored.belongs_to("d-1", "U-1"));
        assert!(!stored.belongs_to("d-2", "u-1") && !stored.belongs_to("d-1", "u-2"));
        check_pairs(&stored.pairs().expect("pairs"), &[("k", "v")]);
        assert_eq!(stored.keys(), ["k"]);
        assert_eq!(stored.label("u-1"), None, "since 0.55 the name lies elsewhere");
    }

    #[test]
    fn a_stored_secret_of_0_43_tells_its_name_and_scope() {
        let metadata = |scope: &str| {
            format!(
                r#"{{"zenml": "d", "zenml_secret_id": "u", "zenml_secret_name": "db", "zenml_secret_scope": "{scope}",
                "zenml_secret_workspace": "w", "zenml_secret_user": "p"}}"#
            )
        };
        let check = |scope: &str, id: &str, expected: Option<StoredScope>| {
            let text = stored("{}", &metadata(scope));
            let object = object(&text);
            let label = Stored::parse(&object).expect("ZenML's").label(id);
            let expected = expected.map(|scope| Label { name: "db".into(), scope });
            assert_eq!(label, expected);
        };
        check("workspace", "u", Some(StoredScope::Workspace));
        check("user", "u", Some(StoredScope::User));
        check("planet", "u", None);
        check("user", "another", None);
    }

    #[test]
    fn what_zenml_did_not_write_is_not_there_and_what_it_could_not_write_is_refused() {
        let check = |text: &str, expected| assert_eq!(Stored::parse(&object(text)).err(), Some(expected), "{text}");
        check("{}", DecodeError::Foreign);
        check(r#"{"zenml_secret_values": {}}"#, DecodeError::Foreign);
        check(&stored("{}", "1"), DecodeError::Foreign);
        check(&stored("{}", r#"{"zenml": 1}"#), DecodeError::Foreign);
        check(&stored("[]", "{}"), DecodeError::NotPairs);
        check(&stored(r#"{"a": "1", "a": "2"}"#, "{}"), DecodeError::NotPairs);
        let text = stored(r#"{"a": 1}"#, "{}");
        let object = object(&text);
        let pairs = Stored::parse(&object).expect("ZenML's").pairs();
        assert_eq!(pairs.err(), Some(DecodeError::NotText("a".into())));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_decoders_panic(text in "\\PC{0,60}|\\{\"(k|zenml_schema_name)\": \\PC{0,20}\\}") {
            if let Ok(object) = serde_json::from_str::<Object<'_>>(&text) {
                let _ = plain(&object);
                let _ = manager(&object);
                let _ = Stored::parse(&object).map(|stored| (stored.keys(), stored.pairs().is_ok()));
            }
        }
    }
}
