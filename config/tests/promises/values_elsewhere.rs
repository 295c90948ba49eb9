//! `values` and `backup` of a `zenml-sql` back-end: the values of its secrets lie in another one.

use keyside_config::settings::{BackendKind, BackendSettings, Backup, ZenmlSqlSettings};

use crate::scene::{Scene, assert_holds};

/// A store with these lines, and two clouds after it.
fn text(lines: &str) -> String {
    format!(
        "[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\n{lines}\n\
         [backend.cloud]\ntype = \"aws\"\n[backend.spare]\ntype = \"gcp\"\nproject = \"p\"\n"
    )
}

fn sql(scene: &Scene) -> (Vec<String>, ZenmlSqlSettings) {
    let mut settings = scene.load();
    let names = settings.backends.iter().map(|backend| backend.name.clone()).collect();
    let at = settings.backends.iter().position(|backend| backend.name == "store").expect("the store");
    match settings.backends.remove(at).kind {
        BackendKind::ZenmlSql(sql) => (names, *sql),
        _ => panic!("another type"),
    }
}

/// The back-end that holds the copies.
fn spare(store: ZenmlSqlSettings) -> BackendSettings {
    match store.backup {
        Some(Backup::Backend(spare)) => *spare,
        _ => panic!("no back-end holds copies"),
    }
}

#[test]
fn a_back_end_that_holds_values_belongs_to_the_one_that_names_it() {
    let scene = Scene::with_config(&text("values = \"cloud\"\nbackup = \"spare\""));
    let (names, store) = sql(&scene);
    assert_eq!(names, ["store"], "no precedence is needed");
    let values = store.values.as_ref().expect("values");
    assert_eq!((values.name.as_str(), values.kind.type_name()), ("cloud", "aws"));
    let backup = spare(store);
    assert_eq!((backup.name.as_str(), backup.kind.type_name()), ("spare", "gcp"));
}

#[test]
fn a_backup_alone_leaves_the_other_in_the_precedence() {
    let text = format!("{}[agent]\nprecedence = [\"cloud\", \"store\"]\n", text("backup = \"spare\""));
    let (names, store) = sql(&Scene::with_config(&text));
    assert_eq!(names, ["cloud", "store"]);
    assert!(store.values.is_none() && spare(store).name == "spare");
    let mistake = Scene::with_config(&self::text("backup = \"spare\"")).mistake();
    assert_holds(&mistake, &["`precedence` in [agent] must say their order", "precedence = [\"cloud\", \"store\"]"]);
}

#[test]
fn copies_beside_the_names_are_a_backup_that_the_back_end_names_by_its_own_name() {
    let text =
        format!("{}[agent]\nprecedence = [\"store\", \"spare\"]\n", text("values = \"cloud\"\nbackup = \"store\""));
    let (names, store) = sql(&Scene::with_config(&text));
    assert_eq!(names, ["store", "spare"]);
    assert!(store.values.is_some() && store.backup == Some(Backup::Tables));
    // Its own tables hold the values where nothing else does.
    for (lines, part) in [
        ("backup = \"store\"", "`backup` in [backend.store] names itself, but its tables hold the values already"),
        ("values = \"store\"", "`values` in [backend.store] names itself; leave it out"),
    ] {
        let text = format!("{}[agent]\nprecedence = [\"store\", \"cloud\", \"spare\"]\n", self::text(lines));
        assert_holds(&Scene::with_config(&text).mistake(), &["keyside.toml:4:10: ", part]);
    }
}

#[test]
fn a_precedence_may_name_the_holder_of_values_and_nothing_changes() {
    for precedence in ["[\"store\"]", "[\"cloud\", \"store\", \"spare\"]"] {
        let text = text("values = \"cloud\"\nbackup = \"spare\"");
        let (names, store) = sql(&Scene::with_config(&format!("{text}[agent]\nprecedence = {precedence}\n")));
        assert_eq!(names, ["store"]);
        assert!(store.values.is_some() && store.backup.is_some());
    }
    let text = format!("{}[agent]\nprecedence = [\"cloud\"]\n", text("values = \"cloud\"\nbackup = \"spare\""));
    assert_holds(&Scene::with_config(&text).mistake(), &["keyside.toml:12:14: ", "leaves out `store`"]);
}

#[test]
fn only_a_cloud_or_vault_of_layout_store_can_hold_values() {
    for (lines, parts) in [
        ("values = \"clod\"", &["keyside.toml:4:10: `values` in [backend.store] names `clod`", "there is no"][..]),
        ("values = \"cloud\"\nbackup = \"cloud\"", &["keyside.toml:5:10: ", "holds another's values already"]),
    ] {
        assert_holds(&Scene::with_config(&text(lines)).mistakes().join("\n"), parts);
    }
    for kind in ["type = \"local\"\npath = \"/x\"", "type = \"plugin\"\ncommand = [\"/x\"]"] {
        let text = format!("{}[backend.other]\n{kind}\n", text("values = \"other\"\nbackup = \"spare\""));
        assert_holds(
            &Scene::with_config(&text).mistakes().join("\n"),
            &["keyside.toml:4:10: ", "cannot hold values by id"],
        );
    }
    for layout in ["manager", "plain"] {
        let lines = "values = \"other\"\nbackup = \"spare\"";
        let text = format!("{}[backend.other]\ntype = \"aws\"\nlayout = \"{layout}\"\n", text(lines));
        assert_holds(
            &Scene::with_config(&text).mistakes().join("\n"),
            &["names `other`, whose `layout` must be \"store\""],
        );
    }
}

#[test]
fn a_holder_that_is_wrong_in_itself_is_reported_once() {
    let text = "[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////a.db\"\nvalues = \"cloud\"\n\
                [backend.cloud]\ntype = \"gcp\"\n";
    assert_eq!(Scene::with_config(text).mistake(), "keyside.toml:5:10: [backend.cloud] has no `project`");
    let mistake = Scene::with_config(&text.replace("\"gcp\"", "\"gpc\"")).mistake();
    assert_holds(&mistake, &["keyside.toml:6:8: unknown `type` \"gpc\"", "did you mean \"gcp\"?"]);
}

#[test]
fn no_other_type_has_values_elsewhere() {
    let text = "[backend.x]\ntype = \"aws\"\nvalues = \"y\"\n";
    assert_holds(&Scene::with_config(text).mistake(), &["keyside.toml:3:10: `values` in [backend.x] has no meaning"]);
}
