//! Back-ends of type `local`, and the search for the one that ZenML's store lists.

use std::path::Path;

use keyside_config::settings::BackendKind;

use crate::scene::{BACKEND, Scene, assert_holds};

const LOCAL: &str = "[backend.manager]\ntype = \"local\"\npath = \"/srv/manager/secrets.yaml\"\n";

#[test]
fn a_local_back_end_needs_nothing_but_the_absolute_path_of_its_file() {
    let settings = Scene::with_config(&format!("{LOCAL}writable = true\n")).load();
    let backend = &settings.backends[0];
    let BackendKind::Local(local) = &backend.kind else { panic!("not local") };
    assert_eq!(local.path, Path::new("/srv/manager/secrets.yaml"));
    assert_eq!(local.base, Path::new("/srv/manager"));
    assert_eq!((backend.kind.type_name(), backend.writable), ("local", true));
    assert_eq!(settings.manager, None, "nothing is searched for beside what is configured");
}

#[test]
fn a_path_that_is_missing_relative_or_no_file_is_a_mistake() {
    let mistake = Scene::with_config("[backend.x]\ntype = \"local\"\n").mistake();
    assert_eq!(mistake, "keyside.toml:1:10: [backend.x] has no `path`");
    let mistake = Scene::with_config("[backend.x]\ntype = \"local\"\npath = \"secrets.yaml\"\n").mistake();
    assert_holds(&mistake, &["keyside.toml:3:8: `path` in [backend.x] must be an absolute path"]);
    for path in ["/", "/srv/.."] {
        let mistake = Scene::with_config(&format!("[backend.x]\ntype = \"local\"\npath = \"{path}\"\n")).mistake();
        assert_eq!(mistake, "keyside.toml:3:8: `path` in [backend.x] names no file");
    }
}

#[test]
fn keys_of_one_type_have_no_meaning_for_the_other() {
    for key in ["url", "encryption_key_env", "user", "workspace", "region", "layout"] {
        let mistakes = Scene::with_config(&format!("{LOCAL}{key} = \"x\"\n")).mistakes().join("\n");
        let expected = format!("`{key}` in [backend.manager] has no meaning for a \"local\" back-end");
        assert_holds(&mistakes, &[&expected]);
    }
    let mistake = Scene::with_config(&format!("{BACKEND}path = \"/x\"\n")).mistake();
    assert_holds(&mistake, &["keyside.toml:4:8: `path` in [backend.store] has no meaning"]);
}

#[test]
fn store_and_manager_are_ordered_by_precedence() {
    let names = |precedence: &str| {
        let text = format!("[agent]\nprecedence = {precedence}\n{LOCAL}{BACKEND}");
        let settings = Scene::with_config(&text).load();
        settings.backends.iter().map(|backend| backend.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("[\"store\", \"manager\"]"), ["store", "manager"]);
    assert_eq!(names("[\"manager\", \"store\"]"), ["manager", "store"]);
}

/// ZenML's own configuration, and a store beside it.
fn zenml(config: &str) -> Scene {
    let scene = Scene::new();
    scene.write("zen/config.yaml", config);
    scene.write("zen/local_stores/default_zen_store/zenml.db", "");
    let directory = scene.path("zen").display().to_string();
    scene.variable("ZENML_CONFIG_PATH", directory)
}

#[test]
fn zenmls_own_store_is_asked_for_a_secrets_manager_that_comes_after_it() {
    let scene = zenml("active_stack_id: 703e5db7-47ee-43c1-9505-f40eb3f32179\n");
    let search = scene.load().manager.expect("a search");
    assert_eq!((search.store.as_str(), search.name.as_str(), search.first), ("store", "manager", false));
    assert_eq!(search.local_stores, scene.path("zen/local_stores"));
    assert_eq!(search.active_stack.as_deref(), Some("703e5db7-47ee-43c1-9505-f40eb3f32179"));
    let scene = scene.variable("ZENML_ACTIVE_STACK_ID", "other").variable("ZENML_LOCAL_STORES_PATH", "/elsewhere");
    let scene = scene.variable("ZENML_STORE_URL", "sqlite:////srv/zenml.db");
    let search = scene.load().manager.expect("a search");
    assert_eq!(search.active_stack.as_deref(), Some("other"));
    assert_eq!(search.local_stores, Path::new("/elsewhere"));
}

#[test]
fn a_precedence_turns_store_and_manager_round_or_leaves_the_manager_out() {
    let search = |precedence: &str| zenml("").variable("KEYSIDE_AGENT__PRECEDENCE", precedence).load().manager;
    assert_eq!(search("[\"store\", \"manager\"]").map(|search| search.first), Some(false));
    assert_eq!(search("[\"manager\", \"store\"]").map(|search| search.first), Some(true));
    assert_eq!(search("[\"store\"]"), None);
    let mistake = zenml("").variable("KEYSIDE_AGENT__PRECEDENCE", "[\"store\", \"managr\"]").mistakes().join("\n");
    assert_holds(&mistake, &["`managr`, which is no back-end"]);
}
