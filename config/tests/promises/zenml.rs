//! The store found from ZenML's own environment when no back-end is configured.

use std::path::{Path, PathBuf};

use keyside_config::Settings;
use keyside_config::settings::{BackendKind, ZenmlSqlSettings};

use crate::scene::{Scene, assert_holds};

const DEFAULT: &str = "local_stores/default_zen_store/zenml.db";

/// A real `config.yaml`, written by ZenML itself on another machine.
fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml/config");
    std::fs::read_to_string(folder.join(name)).expect("a fixture")
}

/// A configuration directory `zen` with this `config.yaml`, named by ZENML_CONFIG_PATH.
pub(crate) fn scene(config: &str) -> Scene {
    let scene = Scene::new();
    scene.write("zen/config.yaml", config);
    let directory = scene.path("zen").display().to_string();
    scene.variable("ZENML_CONFIG_PATH", directory)
}

fn sql(settings: &Settings) -> &ZenmlSqlSettings {
    let BackendKind::ZenmlSql(sql) = &settings.backends[0].kind else { panic!("not zenml-sql") };
    sql
}

fn path(scene: &Scene) -> PathBuf {
    sql(&scene.load()).database.file().expect("a file").to_owned()
}

fn key(scene: &Scene) -> Option<String> {
    sql(&scene.load()).encryption_key.as_ref().map(|key| key.text.as_str().to_owned())
}

#[test]
fn a_real_configuration_directory_that_was_moved_serves_its_own_data_base() {
    for (name, key, workspace) in [
        ("zenml-0.43.1-plain.config.yaml", None, Some("default")),
        ("zenml-0.43.1-enc.config.yaml", Some("fixture-encryption-key-Ünïcode"), Some("default")),
        ("zenml-0.98.0-plain.config.yaml", None, None),
        ("zenml-0.98.0-enc.config.yaml", Some("fixture-encryption-key-Ünïcode"), None),
    ] {
        let scene = scene(&fixture(name));
        scene.write(&format!("zen/{DEFAULT}"), "");
        let settings = scene.load();
        assert_eq!(settings.backends.len(), 1);
        let backend = &settings.backends[0];
        assert_eq!((backend.name.as_str(), backend.required, backend.writable), ("store", true, false));
        let sql = sql(&settings);
        assert_eq!(sql.database.file(), Some(scene.path("zen").join(DEFAULT).as_path()), "{name}");
        assert_eq!(sql.encryption_key.as_ref().map(|key| key.text.as_str()), key, "{name}");
        assert_eq!((sql.user.as_deref(), sql.user_required), (Some("default"), false));
        assert_eq!(sql.workspace.as_deref(), workspace);
        assert_holds(&settings.sources.join("\n"), &["zen/config.yaml", "there is no /srv/zenml/"]);
    }
}

#[test]
fn the_origin_of_the_key_names_the_setting_and_the_file() {
    let scene = scene(&fixture("zenml-0.98.0-enc.config.yaml"));
    scene.write(&format!("zen/{DEFAULT}"), "");
    let settings = scene.load();
    let key = sql(&settings).encryption_key.as_ref().expect("a key");
    assert_holds(&key.origin, &["store.secrets_store.encryption_key", "zen/config.yaml"]);
}

#[test]
fn the_data_base_that_the_url_names_is_taken_where_it_exists() {
    let first = Scene::new();
    let named = first.write("elsewhere/zenml.db", "");
    let scene = scene(&format!("store:\n  type: sql\n  url: sqlite:///{}\n", named.display()));
    scene.write(&format!("zen/{DEFAULT}"), "");
    assert_eq!(path(&scene), named);
}

#[test]
fn the_default_data_base_never_takes_the_place_of_another_one_that_is_missing() {
    let scene = scene("store:\n  type: sql\n  url: sqlite:////nowhere/mine.db\n");
    scene.write(&format!("zen/{DEFAULT}"), "");
    assert_holds(&scene.mistake(), &["/nowhere/mine.db", "zen/config.yaml", "keyside quickstart"]);
}

#[test]
fn an_installation_without_a_store_in_its_configuration_uses_the_default_data_base() {
    for config in ["", "# nothing\n", "active_stack_id: x\n", "store: null\n"] {
        let scene = scene(config);
        let default = scene.write(&format!("zen/{DEFAULT}"), "");
        assert_eq!(path(&scene), default);
    }
    let scene = Scene::new();
    let default = scene.write(&format!(".config/zenml/{DEFAULT}"), "");
    assert_eq!(path(&scene), default, "without a config.yaml, in the home directory");
    let scene = Scene::new();
    let default = scene.write(&format!("xdg/zenml/{DEFAULT}"), "");
    let xdg = scene.path("xdg").display().to_string();
    assert_eq!(path(&scene.variable("XDG_CONFIG_HOME", xdg)), default);
}

#[test]
fn zenml_local_stores_path_moves_the_default_data_base() {
    let scene = scene(&fixture("zenml-0.98.0-plain.config.yaml"));
    let moved = scene.write("stores/default_zen_store/zenml.db", "");
    let stores = scene.path("stores").display().to_string();
    assert_eq!(path(&scene.variable("ZENML_LOCAL_STORES_PATH", stores)), moved);
}

#[test]
fn a_store_url_in_the_environment_replaces_the_files_store_with_its_key() {
    let scene = scene(&fixture("zenml-0.98.0-enc.config.yaml")).variable("ZENML_STORE_URL", "sqlite:////srv/other.db");
    assert_eq!(path(&scene), PathBuf::from("/srv/other.db"));
    assert_eq!(key(&scene), None);
    let scene = scene.variable("ZENML_SECRETS_STORE_ENCRYPTION_KEY", "from the environment");
    assert_eq!(key(&scene).as_deref(), Some("from the environment"));
}

#[test]
fn a_key_in_the_environment_lies_over_the_files() {
    let scene = scene(&fixture("zenml-0.98.0-enc.config.yaml"));
    scene.write(&format!("zen/{DEFAULT}"), "");
    let scene = scene.variable("ZENML_SECRETS_STORE_ENCRYPTION_KEY", "another");
    assert_eq!(key(&scene).as_deref(), Some("another"));
    let settings = scene.load();
    let origin = &sql(&settings).encryption_key.as_ref().expect("a key").origin;
    assert_holds(origin, &["variable ZENML_SECRETS_STORE_ENCRYPTION_KEY"]);
    let scene = scene.variable("ZENML_SECRETS_STORE_ENCRYPTION_KEY", "");
    assert_eq!(key(&scene), None, "an empty key is none, as in ZenML");
}

#[test]
fn a_secrets_store_type_in_the_environment_replaces_the_files_secrets_store() {
    let scene = scene(&fixture("zenml-0.98.0-enc.config.yaml")).variable("ZENML_SECRETS_STORE_TYPE", "sql");
    scene.write(&format!("zen/{DEFAULT}"), "");
    assert_eq!(key(&scene), None);
}

#[test]
fn the_default_user_and_the_workspace_may_be_named_by_variables() {
    let scene = scene(&fixture("zenml-0.43.1-plain.config.yaml"))
        .variable("ZENML_DEFAULT_USER_NAME", "alice")
        .variable("ZENML_ACTIVE_WORKSPACE_NAME", "team");
    scene.write(&format!("zen/{DEFAULT}"), "");
    let settings = scene.load();
    let sql = sql(&settings);
    assert_eq!((sql.user.as_deref(), sql.user_required, sql.workspace.as_deref()), (Some("alice"), true, Some("team")));
}

#[test]
fn a_store_that_cannot_be_one_is_refused_with_the_name_of_the_setting() {
    for (variable, value, part) in [
        ("ZENML_STORE_URL", "sqlite:///canary.db", "relative"),
        ("ZENML_STORE_URL", "postgres://u:canary@db/x", "scheme"),
        ("ZENML_STORE_URL", "", "no URL"),
        ("ZENML_SECRETS_STORE_TYPE", "none", "switched off"),
        ("ZENML_SECRETS_STORE_TYPE", "custom", "type \"plugin\""),
        ("ZENML_SECRETS_STORE_TYPE", "SQL", "unknown type"),
        ("ZENML_BACKUP_SECRETS_STORE_TYPE", "canary", "unknown type"),
        ("ZENML_STORE_TYPE", "sql", "ZENML_STORE_URL is not"),
        ("ZENML_STORE_TYPE", "canary", "unknown type of store"),
        ("ZENML_STORE_USERNAME", "canary", "ZENML_STORE_URL names a server"),
        ("ZENML_STORE_PASSWORD", "canary", "ZENML_STORE_URL names a server"),
        ("ZENML_STORE_API_KEY", "canary", "ZENML_STORE_URL names a server"),
    ] {
        let scene = Scene::new();
        scene.write(&format!(".config/zenml/{DEFAULT}"), "");
        let mistake = scene.variable(variable, value).mistake();
        assert_holds(&mistake, &[&format!("variable {variable}: "), part]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
    for (config, part) in [
        ("store:\n  type: sql\n  url: https://canary.example.com\n", "`store.url`: is the address of a server"),
        ("store:\n  type: rest\n  url: sqlite:////canary.db\n", "`store.url`: is no address of a server"),
        ("store:\n  type: sql\n  secrets_store:\n    type: custom\n", "`store.secrets_store.type`: a secrets store"),
        ("store:\n  type: sql\n  secrets_store:\n    type: [canary]\n", "`store.secrets_store.type`: must be a text"),
    ] {
        let scene = scene(config);
        scene.write(&format!("zen/{DEFAULT}"), "");
        let mistake = scene.mistake();
        assert_holds(&mistake, &["zen/config.yaml: ", part]);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
}

#[test]
fn nothing_found_says_what_was_looked_for_and_names_quickstart() {
    let mistake = Scene::new().mistake();
    assert_holds(
        &mistake,
        &[
            "no back-end is configured",
            "ZENML_STORE_URL",
            ".config/zenml/config.yaml",
            &format!(".config/zenml/{DEFAULT}"),
            "`keyside quickstart`",
        ],
    );
    let scene = scene(&fixture("zenml-0.98.0-plain.config.yaml"));
    assert_holds(&scene.mistake(), &["/srv/zenml/home98/cfg_plain/", "zen/config.yaml", "keyside quickstart"]);
}

#[test]
fn a_broken_global_configuration_is_placed_and_never_quoted() {
    let bomb = format!(
        "a0: &a0 [x, x]\n{}",
        (1..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect::<String>()
    );
    for config in [
        "store:\n  secrets_store:\n    encryption_key: \"canary\n",
        "store:\n  secrets_store:\n    encryption_key: [canary]\n",
        "store:\n  secrets_store: canary\n",
        "store: [canary]\n",
        "canary\n",
        "a: *canary\n",
        "store:\n  url: x\n  url: canary\n",
        &bomb,
    ] {
        let scene = scene(config);
        scene.write(&format!("zen/{DEFAULT}"), "");
        let mistake = scene.mistake();
        assert_holds(&mistake, &["zen/config.yaml:"]);
        assert!(!mistake.contains("canary"), "{config}: {mistake}");
    }
}

#[test]
fn a_configuration_directory_in_place_of_its_file_is_a_mistake() {
    let scene = Scene::new();
    std::fs::create_dir_all(scene.path("zen/config.yaml")).expect("made");
    let directory = scene.path("zen").display().to_string();
    let mistake = scene.variable("ZENML_CONFIG_PATH", directory).mistake();
    assert_eq!(mistake, "zen/config.yaml: this is a directory, not a file");
}

#[test]
fn a_configured_back_end_leaves_zenmls_environment_alone() {
    let settings = Scene::with_backend_and("").variable("ZENML_STORE_URL", "https://zenml.example.com").load();
    assert_eq!(sql(&settings).database.file(), Some(Path::new("/srv/zenml.db")));
}

#[test]
fn a_file_without_back_ends_adds_its_tables_to_the_store_that_was_found() {
    let scene = Scene::with_config("[agent]\nprecedence = [\"store\"]\n[cache]\nttl = \"1m\"\n");
    scene.write(&format!(".config/zenml/{DEFAULT}"), "");
    let settings = scene.load();
    assert_eq!((settings.backends.len(), settings.cache.ttl.as_secs()), (1, 60));
}
