//! What a sound configuration means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyside_config::settings::{BackendKind, OnIdentityFailure, Poll, ScopeOrder, SecretPattern, ZenmlSqlSettings};
use keyside_config::{Environment, client_level};
use keyside_protocol::level::ValidationLevel;

use crate::scene::{BACKEND, Scene, assert_holds};

fn sql(scene: &Scene) -> ZenmlSqlSettings {
    let BackendKind::ZenmlSql(sql) = scene.load().backends.remove(0).kind else { panic!("not zenml-sql") };
    *sql
}

#[test]
fn a_back_end_alone_gets_every_default() {
    let settings = Scene::with_config(BACKEND).load();
    assert!(settings.agent.listeners.is_empty());
    assert_eq!(settings.agent.socket_mode, 0o600);
    assert_eq!(settings.agent.validation_level, ValidationLevel::SecretAndKeyExists);
    assert_eq!(settings.agent.scope_order, ScopeOrder::PrivateFirst);
    assert_eq!(settings.agent.request_timeout, Duration::from_secs(10));
    assert_eq!(settings.cache.ttl, Duration::from_secs(300));
    assert_eq!(settings.cache.max_stale, Duration::from_secs(3600));
    assert_eq!(settings.cache.negative_ttl, Duration::from_secs(10));
    assert_eq!(settings.cache.max_bytes, 64 << 20);
    assert_eq!(settings.cache.poll, Poll::Auto);
    assert_eq!(settings.cache.poll_interval, Duration::from_secs(30));
    assert_eq!(settings.cache.on_identity_failure, OnIdentityFailure::Stale);
    assert_eq!(settings.limits.value, 1 << 20);
    assert_eq!(settings.limits.request, 1 << 20);
    assert_eq!(settings.limits.header, 16 << 10);
    assert_eq!(settings.limits.entries, 200_000);
    assert_eq!(settings.limits.connections_per_uid, 8192);
    assert_eq!(settings.limits.grace, Duration::from_secs(10));
    assert!(settings.grants.is_empty());
    assert_eq!(settings.audit.path, None);
    let backend = &settings.backends[0];
    assert_eq!((backend.name.as_str(), backend.kind.type_name()), ("store", "zenml-sql"));
    assert_eq!((backend.required, backend.writable, backend.denied_means_absent), (true, false, false));
    assert_eq!((backend.parallelism, backend.timeout, backend.ttl), (8, Duration::from_secs(8), None));
    let BackendKind::ZenmlSql(sql) = &backend.kind else { panic!("not zenml-sql") };
    assert_eq!(sql.database.file(), Some(Path::new("/srv/zenml.db")));
    assert!(sql.encryption_key.is_none() && sql.user.is_none() && sql.workspace.is_none() && !sql.user_required);
}

#[test]
fn grants_hold_ids_given_as_numbers_or_names() {
    let settings = Scene::with_backend_and(
        "[grant.a]\nuid = [1000, 1001]\nuser = \"root\"\ngid = 7\ngroup = [\"root\"]\nadmin = true\n\
         read = [\"mlflow_*\", { secret = \"db\", keys = [\"password\"] }]\nwrite = [\"x\"]\n",
    )
    .load();
    let grant = &settings.grants[0];
    assert_eq!((grant.uids.as_slice(), grant.gids.as_slice()), (&[1000, 1001, 0][..], &[7, 0][..]));
    let named = |secret: &str, keys: Option<&[&str]>| SecretPattern {
        secret: secret.to_owned(),
        keys: keys.map(|keys| keys.iter().map(|&key| key.to_owned()).collect()),
    };
    assert_eq!(grant.read, [named("mlflow_*", None), named("db", Some(&["password"]))]);
    assert_eq!(grant.write, [named("x", None)]);
    assert!(grant.admin);
}

#[test]
fn a_grant_may_go_by_program_and_cgroup_with_or_without_ids() {
    let settings = Scene::with_backend_and(
        "[grant.a]\nuid = 1000\nexe = \"/usr/bin/python3.12\"\n\
         [grant.b]\ncgroup = [\"/system.slice/train-*.service\", \"/user.slice/x\"]\n",
    )
    .variable("KEYSIDE_GRANT__B__EXE", "/opt/train")
    .load();
    let [a, b] = settings.grants.as_slice() else { panic!("two grants") };
    assert_eq!((a.uids.as_slice(), a.exes.as_slice()), (&[1000][..], &[PathBuf::from("/usr/bin/python3.12")][..]));
    assert!(a.cgroups.is_empty() && b.uids.is_empty() && b.gids.is_empty());
    assert_eq!(b.exes, [PathBuf::from("/opt/train")]);
    assert_eq!(b.cgroups, ["/system.slice/train-*.service", "/user.slice/x"]);
}

#[test]
fn metrics_are_off_on_tcp_until_an_address_is_given() {
    assert_eq!(Scene::with_backend_and("").load().metrics.listen, None);
    for address in ["127.0.0.1:9464", "[::1]:9464", "0.0.0.0:1"] {
        let settings = Scene::with_backend_and("").variable("KEYSIDE_METRICS__LISTEN", address).load();
        assert_eq!(settings.metrics.listen, Some(address.parse().expect("an address")));
    }
}

#[test]
fn two_loads_can_be_compared_part_by_part_and_a_changed_key_shows() {
    let with_key = |key: &str| {
        let text = format!("{BACKEND}encryption_key_env = \"STORE_KEY\"\n");
        Scene::with_config(&text).variable("STORE_KEY", key).load()
    };
    let (old, same, other) = (with_key("canary-1"), with_key("canary-1"), with_key("canary-2"));
    assert!(old.backends == same.backends && old.agent == same.agent && old.cache == same.cache);
    assert!(old.grants == same.grants && old.limits == same.limits && old.audit == same.audit);
    assert!(old.metrics == same.metrics);
    assert!(old.backends != other.backends && with_key("canary-11").backends != old.backends);
}

#[test]
fn the_agents_socket_comes_first_and_the_flag_takes_its_place() {
    let text = "[agent]\nsocket = \"/run/own.sock\"\nsocket_mode = \"0660\"\nsocket_group = \"0\"\n\
                [listener.a-team]\npath = \"/run/a.sock\"\nmode = \"0666\"\ngrants = []\n";
    let mut scene = Scene::with_backend_and(text);
    let listeners = scene.load().agent.listeners;
    assert_eq!((listeners[0].name.as_str(), listeners[0].mode), ("agent", 0o660));
    assert_eq!((listeners[0].group.as_deref(), &listeners[0].grants), (Some("0"), &None));
    assert_eq!((listeners[1].name.as_str(), listeners[1].mode, &listeners[1].grants), ("a-team", 0o666, &Some(vec![])));
    scene.socket = Some("/run/flag.sock".into());
    let listeners = scene.load().agent.listeners;
    assert_eq!((listeners[0].path.as_path(), listeners[0].mode), ("/run/flag.sock".as_ref(), 0o660));
    assert_eq!(listeners.len(), 2);
}

#[test]
fn the_wrappers_tables_are_read_too() {
    let settings = Scene::with_backend_and(
        "[exec]\nenv = { A = \"{{db.user}}\" }\nwait = \"30s\"\non_change = [\"rewrite\", \"signal:HUP\"]\n\
         user = \"1000:1000\"\n[profile.ci]\npristine = true\nunavailable_exit = 75\n",
    )
    .load();
    assert_eq!(settings.exec.env.expect("a table")["A"], "{{db.user}}");
    assert_eq!(settings.exec.wait.expect("a span").0, Duration::from_secs(30));
    assert_eq!(settings.profiles["ci"].pristine, Some(true));
    assert_eq!(settings.profiles["ci"].unavailable_exit, Some(75));
}

#[test]
fn general_keys_of_a_back_end_are_taken() {
    let settings = Scene::with_config(&format!(
        "{BACKEND}required = false\nparallelism = 2\ntimeout = \"1s\"\nttl = \"0\"\nwritable = true\n\
         denied_means_absent = true\nallow_plaintext = true\nca_file = \"/etc/ca.pem\"\nproxy = \"http://p:1\"\n\
         no_proxy = \"localhost\"\nuser = \"alice\"\nworkspace = \"team\"\n"
    ))
    .load();
    let backend = &settings.backends[0];
    assert_eq!((backend.required, backend.writable, backend.denied_means_absent), (false, true, true));
    assert_eq!((backend.parallelism, backend.timeout), (2, Duration::from_secs(1)));
    assert_eq!(backend.ttl, Some(Duration::ZERO));
    let BackendKind::ZenmlSql(sql) = &backend.kind else { panic!("not zenml-sql") };
    assert_eq!((sql.user.as_deref(), sql.user_required, sql.workspace.as_deref()), (Some("alice"), true, Some("team")));
}

#[test]
fn an_encryption_key_comes_from_a_variable_that_must_be_set() {
    let scene = Scene::with_config(&format!("{BACKEND}encryption_key_env = \"STORE_KEY\"\n"));
    assert_holds(&scene.mistake(), &["keyside.toml:4:22: ", "the variable STORE_KEY is not set"]);
    let scene = scene.variable("STORE_KEY", "");
    assert_holds(&scene.mistake(), &["the variable STORE_KEY is empty"]);
    let scene = scene.variable("STORE_KEY", " canary ");
    let key = sql(&scene).encryption_key.expect("a key");
    assert_eq!(key.text.as_str(), " canary ");
    assert_holds(&key.origin, &["encryption_key_env", "STORE_KEY"]);
}

#[test]
fn a_key_pasted_in_place_of_a_variables_name_or_a_path_is_not_quoted() {
    for pasted in ["c4nary7f3a99b1e2d4", "Canary_with+base64/==", "canary"] {
        let mistake = Scene::with_config(&format!("{BACKEND}encryption_key_env = \"{pasted}\"\n")).mistake();
        assert_holds(&mistake, &["keyside.toml:4:22: ", "`encryption_key_env` holds the name of a variable"]);
        assert!(!mistake.contains(pasted), "{mistake}");
    }
    let mistake = Scene::with_config(&format!("{BACKEND}encryption_key_file = \"canary\"\n")).mistake();
    assert_holds(&mistake, &["`encryption_key_file` in [backend.store] must be an absolute path"]);
    assert!(!mistake.contains("canary"), "{mistake}");
}

#[test]
fn an_encryption_key_file_loses_one_newline_and_nothing_else() {
    for (content, key) in [("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k ", " k "), ("ü", "ü")] {
        let scene = Scene::new();
        let file = scene.write("key", content);
        let config = scene.write("c.toml", format!("{BACKEND}encryption_key_file = \"{}\"\n", file.display()));
        assert_eq!(sql(&scene.config(&config)).encryption_key.expect("a key").text.as_str(), key);
    }
}

#[test]
fn an_encryption_key_file_that_cannot_be_one_is_a_mistake() {
    for (content, part) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8"),
        (&[b'k'; (64 << 10) + 1], "larger than 65536 bytes"),
    ] {
        let scene = Scene::new();
        let file = scene.write("key", content);
        let config = scene.write("c.toml", format!("{BACKEND}encryption_key_file = \"{}\"\n", file.display()));
        assert_holds(&scene.config(&config).mistake(), &["c.toml:4:23: ", part]);
    }
    let scene = Scene::new();
    let missing = scene.path("missing").display().to_string();
    let config = scene.write("c.toml", format!("{BACKEND}encryption_key_file = \"{missing}\"\n"));
    assert_holds(&scene.config(&config).mistake(), &["there is no file missing"]);
}

#[test]
fn an_encryption_key_may_be_a_systemd_credential() {
    let scene = Scene::with_config(&format!("{BACKEND}encryption_key_credential = \"store-key\"\n"));
    assert_holds(&scene.mistake(), &["keyside.toml:4:29: ", "CREDENTIALS_DIRECTORY is not set"]);
    scene.write("credentials/store-key", "k\n");
    let directory = scene.path("credentials").display().to_string();
    let scene = scene.variable("CREDENTIALS_DIRECTORY", directory);
    assert_eq!(sql(&scene).encryption_key.expect("a key").text.as_str(), "k");
    let scene = Scene::with_config(&format!("{BACKEND}encryption_key_credential = \"../x\"\n"));
    assert_holds(&scene.mistake(), &["without a slash"]);
}

#[test]
fn two_encryption_keys_are_one_too_many() {
    let scene = Scene::with_config(&format!("{BACKEND}encryption_key_env = \"K\"\nencryption_key_file = \"/k\"\n"))
        .variable("K", "k");
    assert_holds(&scene.mistake(), &["keyside.toml:5:23: ", "second encryption key", "`encryption_key_env`"]);
}

#[test]
fn zenmls_variable_of_the_level_wins_over_ours_and_the_file() {
    let scene = Scene::with_backend_and("[agent]\nvalidation_level = \"SECRET_EXISTS\"\n");
    assert_eq!(scene.load().agent.validation_level, ValidationLevel::SecretExists);
    let scene = scene.variable("KEYSIDE_AGENT__VALIDATION_LEVEL", "SECRET_AND_KEY_EXISTS");
    assert_eq!(scene.load().agent.validation_level, ValidationLevel::SecretAndKeyExists);
    let scene = scene.variable("ZENML_SECRET_VALIDATION_LEVEL", "NONE");
    assert_eq!(scene.load().agent.validation_level, ValidationLevel::None);
}

#[test]
fn a_variable_that_is_no_level_is_a_mistake_that_lists_the_three() {
    for level in ["", "none"] {
        for variable in ["ZENML_SECRET_VALIDATION_LEVEL", "KEYSIDE_AGENT__VALIDATION_LEVEL"] {
            let mistake = Scene::with_backend_and("").variable(variable, level).mistake();
            assert_holds(&mistake, &[&format!("variable {variable}: "), "NONE, SECRET_EXISTS, SECRET_AND_KEY_EXISTS"]);
        }
    }
}

#[test]
fn a_client_takes_its_level_from_zenmls_variable_alone() {
    let level = |pairs: &[(&str, &str)]| client_level(&Environment::from_pairs(pairs.iter().copied()));
    assert_eq!(level(&[("KEYSIDE_AGENT__VALIDATION_LEVEL", "NONE")]), Ok(None));
    assert_eq!(level(&[("ZENML_SECRET_VALIDATION_LEVEL", "NONE")]), Ok(Some(ValidationLevel::None)));
    assert!(level(&[("ZENML_SECRET_VALIDATION_LEVEL", "")]).is_err());
}
