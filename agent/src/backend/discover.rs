//! What only the store itself can tell of: a local secrets manager among ZenML's stack components, and where names are kept.

use std::path::PathBuf;
use std::time::Duration;

use keyside_config::settings::{BackendKind, BackendSettings, LocalSettings, ManagerSearch, NetworkSettings, Settings};

use super::zenml_sql::{self, SecretsManager};

/// How long the start of the agent waits for the store's answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The file in a local secrets manager's own directory.
const FILE: &str = "secrets.yaml";

/// Asks the store for a local secrets manager, where the settings say so, and adds it to the back-ends. What stands in
/// the way is said in the log, and the agent goes on without one; when the store cannot be asked, with the one that it
/// named `before`, among the back-ends that a reload replaces.
pub async fn add_manager(settings: &mut Settings, before: &[BackendSettings]) {
    let Some(search) = settings.manager.take() else { return };
    let Some(store) = settings.backends.iter_mut().find(|backend| backend.name == search.store) else { return };
    let local = find(store, &search, before).await;
    let (parallelism, timeout) = (store.parallelism, store.timeout);
    take_names_with_values(store).await;
    let Some(local) = local else { return };
    let backend = BackendSettings {
        name: search.name.clone(),
        kind: BackendKind::Local(local),
        // Nobody asked for it: whether the agent is ready is up to the store.
        required: false,
        parallelism,
        timeout,
        ttl: None,
        writable: false,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    };
    let place = if search.first { 0 } else { settings.backends.len() };
    settings.backends.insert(place, backend);
}

/// Makes the place of a store's values the store itself where the tables are of a ZenML that kept the names there too.
/// Nothing else tells: the version in ZenML's own configuration is the client's, and may not be there at all.
async fn take_names_with_values(store: &mut BackendSettings) {
    let BackendKind::ZenmlSql(sql) = &store.kind else { return };
    if sql.values.is_none()
        || !matches!(tokio::time::timeout(PATIENCE, zenml_sql::keeps_names_with_values(store, sql)).await, Ok(Ok(true)))
    {
        // What cannot be asked now says so at every read.
        return;
    }
    let BackendKind::ZenmlSql(sql) = &mut store.kind else { return };
    let Some(values) = sql.values.take() else { return };
    let kind = values.kind.type_name();
    tracing::info!(
        backend = store.name,
        kind,
        "names too are read from the secrets store, as ZenML before 0.55 kept them"
    );
    (store.kind, store.network) = (values.kind, values.network);
}

async fn find(store: &BackendSettings, search: &ManagerSearch, before: &[BackendSettings]) -> Option<LocalSettings> {
    let BackendKind::ZenmlSql(sql) = &store.kind else { return None };
    let known = before.iter().find_map(|backend| match &backend.kind {
        BackendKind::Local(local) if backend.name == search.name => Some(local.clone()),
        _ => None,
    });
    let managers = match tokio::time::timeout(PATIENCE, zenml_sql::secrets_managers(store, sql)).await {
        Ok(Ok(managers)) => managers,
        Ok(Err(error)) => {
            let hint = error.hint().unwrap_or_default();
            let kept = known.is_some();
            tracing::warn!(%error, hint, kept, "the store could not be asked for a secrets manager");
            return known;
        }
        Err(_) => {
            let (backend, kept) = (&store.name, known.is_some());
            tracing::warn!(backend, kept, "the store did not say in time whether there is a secrets manager");
            return known;
        }
    };
    unread(&managers, search.active_stack.as_deref()).for_each(tell_unread);
    let manager = match choose(&managers, search.active_stack.as_deref()) {
        Choice::None => return None,
        Choice::One(manager) => manager,
        Choice::Unclear(names) => {
            let hint = "make the stack active that uses the right one, or write a [backend.NAME] of type `local`";
            tracing::warn!(managers = names.join(", "), hint, "ZenML has several local secrets managers; none is read");
            return None;
        }
    };
    match place(manager, search) {
        Ok(local) => {
            let path = local.path.display();
            tracing::info!(
                backend = search.name,
                manager = manager.name,
                %path,
                "ZenML's local secrets manager is read as well"
            );
            Some(local)
        }
        Err(path) => {
            let hint = "write a [backend.NAME] of type `local` with the absolute path";
            let path = path.display();
            tracing::warn!(manager = manager.name, %path, hint, "the secrets manager's file has no absolute path");
            None
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice<'m> {
    None,
    One(&'m SecretsManager),
    /// Several, and nothing tells which; their names and ids.
    Unclear(Vec<String>),
}

/// The local one of the active stack; else the only one there is, or the only one that a stack uses. None where the
/// active stack has one of another flavor: that is the one that ZenML would ask.
fn choose<'m>(managers: &'m [SecretsManager], active_stack: Option<&str>) -> Choice<'m> {
    let active = |manager: &&SecretsManager| is_active(manager, active_stack);
    if managers.iter().filter(active).any(|manager| !is_local(manager)) {
        return Choice::None;
    }
    let local: Vec<_> = managers.iter().filter(|manager| is_local(manager)).collect();
    let active: Vec<_> = local.iter().copied().filter(active).collect();
    let used: Vec<_> = local.iter().copied().filter(|manager| !manager.stacks.is_empty()).collect();
    match (local.as_slice(), active.as_slice(), used.as_slice()) {
        ([], ..) => Choice::None,
        (_, [one], _) | (_, _, [one]) => Choice::One(one),
        ([one], ..) => Choice::One(one),
        _ => Choice::Unclear(local.iter().map(|manager| format!("{} ({})", manager.name, manager.id)).collect()),
    }
}

/// Those that a step would be given secrets of and that cannot be read by themselves: of the active stack, or of any
/// where none is known.
fn unread<'m>(managers: &'m [SecretsManager], active_stack: Option<&str>) -> impl Iterator<Item = &'m SecretsManager> {
    let is_used = move |manager: &SecretsManager| match active_stack {
        Some(_) => is_active(manager, active_stack),
        None => !manager.stacks.is_empty(),
    };
    managers.iter().filter(move |manager| !is_local(manager) && is_used(manager))
}

/// Says how a secrets manager's secrets can be read all the same: nothing in the store tells how to log in there.
fn tell_unread(unread: &SecretsManager) {
    let SecretsManager { name, flavor, .. } = unread;
    let hint = match flavor.as_str() {
        "github" => {
            "GitHub hands its secrets to GitHub Actions alone: create them in ZenML's store, with `keyside secret create`"
                .to_owned()
        }
        "aws" | "gcp" | "azure" | "vault" => {
            format!("write a [backend.NAME] with type = \"{flavor}\" and layout = \"manager\", after the store's")
        }
        _ => "write a [backend.NAME] with type = \"plugin\": a program of yours that reads it".to_owned(),
    };
    tracing::warn!(manager = name, flavor, hint, "a secrets manager of ZenML's is not read");
}

fn is_local(manager: &SecretsManager) -> bool {
    manager.flavor == "local"
}

fn is_active(manager: &SecretsManager, active_stack: Option<&str>) -> bool {
    active_stack.is_some_and(|active| manager.stacks.iter().any(|stack| same_id(stack, active)))
}

/// ZenML takes ids with and without dashes.
fn same_id(left: &str, right: &str) -> bool {
    let digits =
        |id: &str| id.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>();
    digits(left) == digits(right)
}

/// Where the file of a secrets manager lies; the configured path where that is not absolute.
fn place(manager: &SecretsManager, search: &ManagerSearch) -> Result<LocalSettings, PathBuf> {
    let file = &manager.secrets_file;
    if file.as_os_str().is_empty() {
        let path = search.local_stores.join(&manager.id).join(FILE);
        // ZenML makes the directory of the component with its first secret.
        return Ok(LocalSettings { path, base: search.local_stores.clone() });
    }
    match file.parent().filter(|_| file.is_absolute() && file.file_name().is_some()) {
        Some(directory) => Ok(LocalSettings { base: directory.to_owned(), path: file.clone() }),
        None => Err(file.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, stacks: &[&str]) -> SecretsManager {
        let stacks = stacks.iter().map(|stack| (*stack).to_owned()).collect();
        SecretsManager {
            id: format!("id-{name}"),
            name: name.to_owned(),
            flavor: "local".to_owned(),
            secrets_file: PathBuf::new(),
            stacks,
        }
    }

    #[test]
    fn the_active_stack_chooses_then_use_then_there_being_only_one() {
        let check = |managers: &[SecretsManager], active: Option<&str>, expected: Option<&str>| match (
            choose(managers, active),
            expected,
        ) {
            (Choice::One(manager), Some(name)) => assert_eq!(manager.name, name),
            (Choice::None | Choice::Unclear(_), None) => {}
            (choice, expected) => panic!("{choice:?} in place of {expected:?}"),
        };
        let (a, b, idle) = (manager("a", &["AAAA-1"]), manager("b", &["bbbb-1", "cccc-1"]), manager("idle", &[]));
        check(&[], Some("aaaa-1"), None);
        check(std::slice::from_ref(&idle), None, Some("idle"));
        check(&[a.clone(), idle.clone()], Some("zzzz"), Some("a"));
        check(&[a.clone(), b.clone()], Some("cccc1"), Some("b"));
        check(&[a.clone(), b.clone(), idle.clone()], Some("aaaa-1"), Some("a"));
        check(&[a.clone(), b.clone()], Some("zzzz"), None);
        check(&[a.clone(), b.clone()], None, None);
        check(&[idle.clone(), manager("other", &[])], None, None);
        let managers = [a, b];
        let Choice::Unclear(names) = choose(&managers, None) else { panic!("clear") };
        assert_eq!(names, ["a (id-a)", "b (id-b)"]);
    }

    #[test]
    fn a_secrets_manager_of_another_flavor_is_told_of_where_its_stack_counts_and_no_local_one_takes_its_place() {
        let of = |flavor: &str, name: &str, stacks: &[&str]| SecretsManager {
            flavor: flavor.to_owned(),
            ..manager(name, stacks)
        };
        let managers = [
            manager("a", &["aaaa"]),
            of("github", "hub", &["bbbb"]),
            of("aws", "cloud", &["cccc"]),
            of("own", "idle", &[]),
        ];
        let check = |active: Option<&str>, read: Option<&str>, told: &[&str]| {
            let chosen = match choose(&managers, active) {
                Choice::One(manager) => Some(manager.name.as_str()),
                Choice::None => None,
                Choice::Unclear(names) => panic!("{names:?}"),
            };
            let names: Vec<_> = unread(&managers, active).map(|manager| manager.name.as_str()).collect();
            assert_eq!((chosen, names.as_slice()), (read, told), "{active:?}");
        };
        check(Some("aaaa"), Some("a"), &[]);
        check(Some("bbbb"), None, &["hub"]);
        check(Some("cccc"), None, &["cloud"]);
        check(Some("dddd"), Some("a"), &[]);
        check(None, Some("a"), &["hub", "cloud"]);
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn tables_of_a_zenml_before_0_55_leave_names_to_the_secrets_store() {
        use keyside_config::settings::{AwsSettings, Layout, SqlDatabase, ZenmlSqlSettings};
        let settings = |kind| BackendSettings {
            name: "store".into(),
            kind,
            required: true,
            parallelism: 8,
            timeout: Duration::from_secs(8),
            ttl: None,
            writable: false,
            denied_means_absent: false,
            network: NetworkSettings::default(),
        };
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml/db");
        for (database, expected) in [("zenml-0.43.1-plain.db", "aws"), ("zenml-0.98.0-plain.db", "zenml-sql")] {
            let aws = AwsSettings {
                region: None,
                endpoint_url: None,
                profile: None,
                role_arn: None,
                keys: None,
                layout: Layout::Store,
            };
            let mut store = settings(BackendKind::ZenmlSql(Box::new(ZenmlSqlSettings {
                database: SqlDatabase::Sqlite(fixtures.join(database)),
                encryption_key: None,
                user: None,
                user_required: false,
                workspace: None,
                values: Some(settings(BackendKind::Aws(aws))),
                backup: None,
            })));
            take_names_with_values(&mut store).await;
            assert_eq!(store.kind.type_name(), expected, "{database}");
        }
    }

    #[test]
    fn the_file_lies_in_the_local_stores_unless_the_component_names_another() {
        let search = ManagerSearch {
            store: "store".into(),
            name: "manager".into(),
            first: false,
            local_stores: "/zen/local_stores".into(),
            active_stack: None,
        };
        let of = |file: &str| place(&SecretsManager { secrets_file: file.into(), ..manager("a", &[]) }, &search);
        let settings = |path: &str, base: &str| Ok(LocalSettings { path: path.into(), base: base.into() });
        assert_eq!(of(""), settings("/zen/local_stores/id-a/secrets.yaml", "/zen/local_stores"));
        assert_eq!(of("/srv/s.yaml"), settings("/srv/s.yaml", "/srv"));
        assert_eq!(of("s.yaml"), Err(PathBuf::from("s.yaml")));
        assert_eq!(of("/"), Err(PathBuf::from("/")));
    }
}
