//! ZenML's secrets store and its backup beside an SQL store: which of them holds the values.

use keyside_config::Settings;
use keyside_config::settings::{BackendKind, BackendSettings, Backup, Layout, ZenmlSqlSettings};

use crate::scene::{Scene, assert_holds};
use crate::zenml;

/// An SQLite store, and these variables with the prefix of the secrets store.
pub(crate) fn with(variables: &[(&str, &str)]) -> Scene {
    let scene = Scene::new().variable("ZENML_STORE_URL", "sqlite:////srv/zenml.db");
    variables.iter().fold(scene, |scene, (name, value)| scene.variable(&format!("ZENML_SECRETS_STORE_{name}"), *value))
}

fn sql(settings: &Settings) -> &ZenmlSqlSettings {
    assert_eq!(settings.backends.len(), 1, "the holder serves nothing by itself");
    let BackendKind::ZenmlSql(sql) = &settings.backends[0].kind else { panic!("another type") };
    sql
}

/// The holder of the values.
pub(crate) fn holder(settings: &Settings) -> &BackendSettings {
    let holder = sql(settings).values.as_ref().expect("values elsewhere");
    assert_eq!(holder.name, "store-values");
    assert_eq!(holder.kind.layout(), Some(&Layout::Store));
    holder
}

/// The back-end that holds the backup.
fn spare(settings: &Settings) -> &BackendSettings {
    match &sql(settings).backup {
        Some(Backup::Backend(spare)) => spare,
        _ => panic!("no back-end holds a backup"),
    }
}

/// The only mistake; it quotes no secret.
pub(crate) fn mistake(variables: &[(&str, &str)]) -> String {
    let mistake = with(variables).mistake();
    assert!(!mistake.contains("canary"), "{mistake}");
    mistake
}

const AWS: [(&str, &str); 3] = [("TYPE", "aws"), ("AUTH_METHOD", "implicit"), ("AUTH_CONFIG", "{\"region\": \"eu\"}")];

#[test]
fn without_a_type_or_with_sql_the_tables_hold_the_values() {
    for variables in [&[][..], &[("TYPE", "sql")], &[("TYPE", "")], &[("TYPE", "sql"), ("ENCRYPTION_KEY", "k")]] {
        let settings = with(variables).load();
        assert!(sql(&settings).values.is_none() && sql(&settings).backup.is_none());
        assert_eq!(sql(&settings).encryption_key.is_some(), variables.len() == 2);
    }
}

#[test]
fn a_cloud_holds_the_values_and_the_tables_the_names() {
    let settings = with(&AWS).load();
    assert_eq!(holder(&settings).kind.type_name(), "aws");
    assert_holds(&settings.sources.join("\n"), &["values from ZenML's secrets store of type \"aws\""]);
    let mysql = Scene::new().variable("ZENML_STORE_URL", "mysql://zen:pw@db/zenml");
    let mysql =
        AWS.iter().fold(mysql, |scene, (name, value)| scene.variable(&format!("ZENML_SECRETS_STORE_{name}"), *value));
    assert_eq!(holder(&mysql.load()).kind.type_name(), "aws");
}

#[test]
fn what_cannot_be_read_is_refused_by_name_and_points_at_plug_ins() {
    for (kind, part) in [("none", "switched off"), ("custom", "Python code inside of ZenML")] {
        let mistake = mistake(&[("TYPE", kind), ("CLASS_PATH", "canary.Store")]);
        assert_holds(&mistake, &["variable ZENML_SECRETS_STORE_TYPE: ", part, "[backend.NAME] of type \"plugin\""]);
    }
    let mistake = mistake(&[("TYPE", "canary")]);
    assert_holds(&mistake, &["unknown type", "\"sql\", \"aws\", \"gcp\", \"azure\", \"hashicorp\""]);
}

#[test]
fn the_global_configuration_has_the_secrets_store_as_tables() {
    let config = "version: 0.98.0\nstore:\n  type: sql\n  url: sqlite:////srv/zenml.db\n  secrets_store:\n    type: aws\n    \
                  auth_method: secret-key\n    auth_config:\n      region: eu\n      aws_access_key_id: id\n      \
                  aws_secret_access_key: canary\n  backup_secrets_store:\n    type: hashicorp\n    vault_addr: \
                  https://vault.example.com\n    vault_token: canary\n";
    let scene = zenml::scene(config);
    scene.write("zen/local_stores/default_zen_store/zenml.db", "");
    let scene = scene.variable("ZENML_LOCAL_STORES_PATH", "/nowhere");
    // The data base itself is not there; what is wrong with it is said, and nothing else.
    assert_holds(&scene.mistake(), &["/srv/zenml.db", "keyside quickstart"]);

    let first = Scene::new();
    let data_base = first.write("zenml.db", "");
    let config = config.replace("/srv/zenml.db", data_base.to_str().expect("UTF-8"));
    let scene = zenml::scene(&config);
    let settings = scene.load();
    let BackendKind::Aws(aws) = &holder(&settings).kind else { panic!("another type") };
    let keys = aws.keys.as_ref().expect("keys");
    assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.text.as_str()), ("id", "canary"));
    let expected = "`store.secrets_store.auth_config.aws_secret_access_key` in ";
    assert_holds(&keys.secret_access_key.origin, &[expected, "zen/config.yaml"]);
    assert_eq!((spare(&settings).name.as_str(), spare(&settings).kind.type_name()), ("store-backup", "vault"));

    // A field in the environment lies over the file; a type replaces it whole.
    let scene = zenml::scene(&config).variable("ZENML_SECRETS_STORE_AUTH_CONFIG", "{\"region\": \"us\"}");
    assert_holds(&scene.mistakes().join("\n"), &["has no `aws_access_key_id`", "has no `aws_secret_access_key`"]);
    let scene = zenml::scene(&config).variable("ZENML_SECRETS_STORE_TYPE", "sql");
    assert!(sql(&scene.load()).values.is_none());
    let scene = zenml::scene(&config).variable("ZENML_BACKUP_SECRETS_STORE_TYPE", "none");
    assert!(sql(&scene.load()).backup.is_none());
}

#[test]
fn a_backup_is_a_cloud_beside_tables_or_cloud() {
    let backed = |scene: Scene| {
        let variables = [("TYPE", "gcp"), ("AUTH_METHOD", "implicit"), ("AUTH_CONFIG", "{\"project_id\": \"p\"}")];
        variables
            .iter()
            .fold(scene, |scene, (name, value)| scene.variable(&format!("ZENML_BACKUP_SECRETS_STORE_{name}"), *value))
    };
    let settings = backed(with(&[])).load();
    assert!(sql(&settings).values.is_none());
    assert_eq!((spare(&settings).name.as_str(), spare(&settings).kind.type_name()), ("store-backup", "gcp"));
    let settings = backed(with(&AWS)).load();
    assert_eq!(holder(&settings).kind.type_name(), "aws");
    assert!(sql(&settings).backup.is_some());
    let mistake = backed(with(&[])).variable("ZENML_BACKUP_SECRETS_STORE_AUTH_METHOD", "canary").mistake();
    assert_holds(&mistake, &["variable ZENML_BACKUP_SECRETS_STORE_AUTH_METHOD: unknown way to log in"]);
    assert!(!mistake.contains("canary"), "{mistake}");
}

#[test]
fn copies_in_the_tables_are_a_backup_with_the_key_of_the_backup_store() {
    let backed = |scene: Scene| {
        scene
            .variable("ZENML_BACKUP_SECRETS_STORE_TYPE", "sql")
            .variable("ZENML_BACKUP_SECRETS_STORE_ENCRYPTION_KEY", "canary of the backup")
    };
    let settings = backed(with(&AWS)).load();
    assert_eq!(holder(&settings).kind.type_name(), "aws");
    assert!(sql(&settings).backup == Some(Backup::Tables));
    let key = sql(&settings).encryption_key.as_ref().expect("a key");
    assert_eq!(key.text.as_str(), "canary of the backup");
    assert_eq!(key.origin, "variable ZENML_BACKUP_SECRETS_STORE_ENCRYPTION_KEY");
    assert_holds(&settings.sources.join("\n"), &["a backup of type \"sql\", in the tables themselves"]);
    let config = "version: 0.98.0\nstore:\n  type: sql\n  url: mysql://zen:pw@db/zenml\n  secrets_store:\n    type: aws\n    \
                  auth_method: implicit\n    auth_config:\n      region: eu\n  backup_secrets_store:\n    type: sql\n    \
                  encryption_key: canary\n";
    let settings = zenml::scene(config).load();
    assert!(sql(&settings).backup == Some(Backup::Tables));
    assert_eq!(sql(&settings).encryption_key.as_ref().map(|key| key.text.as_str()), Some("canary"));
    // Where the tables hold the values, it is the same column again, and the first store's key counts.
    let settings = backed(with(&[("TYPE", "sql"), ("ENCRYPTION_KEY", "first")])).load();
    assert!(sql(&settings).values.is_none() && sql(&settings).backup.is_none());
    assert_eq!(sql(&settings).encryption_key.as_ref().map(|key| key.text.as_str()), Some("first"));
}

#[test]
fn a_zenml_that_kept_names_in_the_secrets_store_is_read_there_alone() {
    let config = |version: &str| {
        format!(
            "version: {version}\nstore:\n  type: sql\n  url: mysql://zen:pw@db/zenml\n  secrets_store:\n    type: aws\n    \
             region_name: eu\n"
        )
    };
    for version in ["0.35.1", "0.43.1", "0.53.1"] {
        let settings = zenml::scene(&config(version)).load();
        let backend = &settings.backends[0];
        assert_eq!((backend.name.as_str(), backend.kind.type_name()), ("store", "aws"), "{version}");
        assert_eq!(backend.kind.layout(), Some(&Layout::Store));
        assert_holds(&settings.sources.join("\n"), &[&format!("as ZenML {version} kept them")]);
    }
    for version in ["0.55.0", "0.98.0", "1.2.0", "'latest'"] {
        assert_eq!(holder(&zenml::scene(&config(version)).load()).kind.type_name(), "aws", "{version}");
    }
}
