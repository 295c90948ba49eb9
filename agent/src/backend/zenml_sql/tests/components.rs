//! The secrets managers among the stack components of real data bases.

use super::super::SecretsManager;
use super::*;

async fn managers(store: &Store) -> Vec<SecretsManager> {
    open_store(store).secrets_managers().await.expect("an answer")
}

fn open_store(store: &Store) -> super::super::ZenmlSql {
    let options = Options { user: None, user_required: false, ..Options::default() };
    let settings = settings_of(SqlDatabase::Sqlite(store.path.clone()), &options);
    let BackendKind::ZenmlSql(sql) = &settings.kind else { unreachable!("as made above") };
    let elsewhere = super::super::Elsewhere::new(None, None, settings.timeout);
    super::super::ZenmlSql::new(&settings, sql, MIB, elsewhere).expect("settings that can work")
}

const REAL: &str = "zenml-0.43.1-with-local-secrets-manager";

#[tokio::test]
async fn the_component_of_a_real_data_base_is_found_with_its_stack() {
    let store = Store::fixture(REAL);
    let expected = SecretsManager {
        id: "dcfe206f-0939-4b8a-91c5-4ccc53d8acf8".into(),
        name: "local_sm".into(),
        flavor: "local".into(),
        secrets_file: PathBuf::new(),
        stacks: vec!["e5de51df-0d30-4cfc-8929-7ce1e6bac9af".into()],
    };
    assert_eq!(managers(&store).await, [expected]);
}

#[tokio::test]
async fn a_configured_file_is_found_as_text_or_blob_and_nonsense_is_no_configuration() {
    let store = Store::fixture(REAL);
    // {"secrets_file": "/srv/s.yaml"}
    let encoded = "eyJzZWNyZXRzX2ZpbGUiOiAiL3Nydi9zLnlhbWwifQ==";
    for (value, file) in [
        (format!("'{encoded}'"), "/srv/s.yaml"),
        (format!("CAST('{encoded}' AS BLOB)"), "/srv/s.yaml"),
        ("'nonsense'".into(), ""),
        ("X'ff'".into(), ""),
    ] {
        store.sql(&format!("UPDATE stack_component SET configuration = {value} WHERE name = 'local_sm'")).await;
        assert_eq!(managers(&store).await[0].secrets_file, PathBuf::from(file), "{value}");
    }
}

#[tokio::test]
async fn a_store_without_components_of_that_kind_has_none() {
    for name in ["zenml-0.43.1-plain", "zenml-0.98.0-plain"] {
        assert_eq!(managers(&Store::fixture(name)).await, [], "{name}");
    }
    assert_eq!(managers(&Store::new().await).await, [], "no such tables");
    let store = Store::fixture(REAL);
    store.sql("UPDATE stack_component SET flavor = 'aws' WHERE name = 'local_sm'").await;
    assert_eq!(managers(&store).await[0].flavor, "aws");
    store.sql("UPDATE stack_component SET type = 'artifact_store' WHERE name = 'local_sm'").await;
    assert_eq!(managers(&store).await, []);
    let nowhere = open_store(&Store::nowhere()).secrets_managers().await.expect_err("no data base");
    check_error(&nowhere, "transient", "does not exist", "url");
}
