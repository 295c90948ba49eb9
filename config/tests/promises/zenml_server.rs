//! A ZenML server found from ZenML's own environment.

use keyside_config::Settings;
use keyside_config::settings::{BackendKind, SecretText, ServerLogin, ZenmlServerSettings};

use crate::scene::{Scene, assert_holds};
use crate::zenml;

const URL: &str = "https://zenml.example.com";

fn server(settings: &Settings) -> &ZenmlServerSettings {
    assert_eq!(settings.backends.len(), 1);
    let backend = &settings.backends[0];
    assert_eq!((backend.name.as_str(), backend.required, backend.writable), ("store", true, false));
    let BackendKind::ZenmlServer(server) = &backend.kind else { panic!("another type") };
    server
}

fn with(variables: &[(&str, &str)]) -> Scene {
    variables.iter().fold(Scene::new(), |scene, (name, value)| scene.variable(name, *value))
}

/// The login in few words.
fn login(settings: &Settings) -> String {
    let shown = |secret: &SecretText| format!("{} of {}", secret.text.as_str(), secret.origin);
    match &server(settings).login {
        None => "none".to_owned(),
        Some(ServerLogin::ApiKey(key)) => format!("key {}", shown(key)),
        Some(ServerLogin::Password { username, password }) => format!("{username} {}", shown(password)),
        Some(ServerLogin::ApiToken(token)) => format!("token {}", shown(token)),
    }
}

/// A `credentials.yaml` in the layout of ZenML 0.98.
fn credentials(server: &str) -> String {
    format!("{server}:\n  url: {server}\n  server_name: s\n  version: 0.98.0\n  deployment_type: kubernetes\n")
}

#[test]
fn an_address_in_the_environment_is_asked_with_the_login_beside_it() {
    for (variables, expected) in [
        (&[][..], "none"),
        (&[("ZENML_STORE_API_KEY", "ZENKEY_a")], "key ZENKEY_a of variable ZENML_STORE_API_KEY"),
        (&[("ZENML_STORE_API_TOKEN", "jwt")], "token jwt of variable ZENML_STORE_API_TOKEN"),
        (&[("ZENML_STORE_USERNAME", "bob"), ("ZENML_STORE_PASSWORD", "pw")], "bob pw of variable ZENML_STORE_PASSWORD"),
        // The first user of a local server has an empty password.
        (
            &[("ZENML_STORE_USERNAME", "default"), ("ZENML_STORE_PASSWORD", "")],
            "default  of variable ZENML_STORE_PASSWORD",
        ),
        // In ZenML a key replaces a password, and a password a token.
        (
            &[("ZENML_STORE_API_KEY", "k"), ("ZENML_STORE_USERNAME", "bob"), ("ZENML_STORE_PASSWORD", "pw")],
            "key k of variable ZENML_STORE_API_KEY",
        ),
        (
            &[("ZENML_STORE_API_TOKEN", "t"), ("ZENML_STORE_USERNAME", "bob"), ("ZENML_STORE_PASSWORD", "pw")],
            "bob pw of variable ZENML_STORE_PASSWORD",
        ),
        (&[("ZENML_STORE_API_KEY", ""), ("ZENML_STORE_API_TOKEN", "t")], "token t of variable ZENML_STORE_API_TOKEN"),
        (&[("ZENML_STORE_TYPE", "rest"), ("ZENML_STORE_API_KEY", "k")], "key k of variable ZENML_STORE_API_KEY"),
    ] {
        let settings = with(variables).variable("ZENML_STORE_URL", format!("{URL}/")).load();
        assert_eq!(server(&settings).url, URL);
        assert_eq!(login(&settings), expected, "{variables:?}");
        assert_holds(&settings.sources.join("\n"), &["variable ZENML_STORE_URL"]);
    }
}

#[test]
fn half_a_login_names_the_other_half() {
    for (variable, missing, hint) in [
        ("ZENML_STORE_USERNAME", "ZenML's store has no `password`", "set ZENML_STORE_PASSWORD"),
        ("ZENML_STORE_PASSWORD", "ZenML's store has no `username`", "set ZENML_STORE_USERNAME"),
    ] {
        let scene = with(&[("ZENML_STORE_URL", URL), (variable, "canary")]);
        let Err(error) = scene.try_load() else { panic!("half a login") };
        assert_holds(&error.to_string(), &[missing]);
        assert_holds(error.mistakes[0].hint.as_deref().expect("a hint"), &[hint, "[backend.NAME]"]);
        assert!(!error.to_string().contains("canary"));
    }
}

#[test]
fn a_value_that_zenml_had_to_split_is_joined() {
    let scene = with(&[
        ("ZENML_STORE_URL", URL),
        ("ZENML_STORE_API_TOKEN_CHUNK_1", "second"),
        ("ZENML_STORE_API_TOKEN_CHUNK_0", "first-"),
        ("ZENML_STORE_API_TOKEN", "old"),
    ]);
    assert_eq!(login(&scene.load()), "token first-second of variable ZENML_STORE_API_TOKEN");
    let scene = with(&[("ZENML_STORE_URL_CHUNK_0", "https://zenml"), ("ZENML_STORE_URL_CHUNK_1", ".example.com")]);
    assert_eq!(server(&scene.load()).url, URL);
    let scene = with(&[("ZENML_STORE_URL", URL), ("ZENML_STORE_API_TOKEN_CHUNK_1", "canary")]);
    let mistake = scene.mistake();
    assert_holds(&mistake, &["variable ZENML_STORE_API_TOKEN_CHUNK_0: is not set, but later parts"]);
    assert!(!mistake.contains("canary"), "{mistake}");
    // What nobody here reads is nobody's business here.
    with(&[("ZENML_STORE_URL", URL), ("ZENML_LOGGING_X_CHUNK_1", "x"), ("OTHER_CHUNK_1", "x")]).load();
}

#[test]
fn an_address_without_tls_is_for_this_machine_alone() {
    for url in ["http://127.0.0.1:8237", "http://localhost:8237", "http://[::1]:8237"] {
        assert_eq!(server(&with(&[("ZENML_STORE_URL", url)]).load()).url, url);
    }
    for (url, parts) in [
        (
            "http://zenml.internal",
            &["without TLS only this machine", "a [backend.NAME] with `allow_plaintext = true`"][..],
        ),
        ("https://u:canary@zenml.example.com", &["holds a login"]),
        ("https://zenml.example.com/?canary", &["parameters"]),
        ("https://", &["no URL"]),
    ] {
        let mistake = with(&[("ZENML_STORE_URL", url)]).mistake();
        assert_holds(&mistake, &["variable ZENML_STORE_URL: "]);
        assert_holds(&mistake, parts);
        assert!(!mistake.contains("canary"), "{mistake}");
    }
    let mistake = zenml::scene("store:\n  type: rest\n  url: http://zenml.internal\n").mistake();
    assert_holds(&mistake, &["zen/config.yaml: `store.url`: without TLS"]);
}

#[test]
fn the_global_configuration_names_the_server_and_the_workspace() {
    let config =
        "active_workspace_name: team\nactive_stack_id: s\nstore:\n  type: rest\n  url: https://zenml.example.com\n";
    let settings = zenml::scene(config).load();
    assert_eq!((server(&settings).url.as_str(), server(&settings).workspace.as_deref()), (URL, Some("team")));
    assert_eq!(login(&settings), "none");
    assert_holds(&settings.sources.join("\n"), &["zen/config.yaml"]);
    let settings = zenml::scene(config).variable("ZENML_ACTIVE_WORKSPACE_NAME", "other").load();
    assert_eq!(server(&settings).workspace.as_deref(), Some("other"));
    // A variable beside the file's address lies over the file.
    let settings = zenml::scene(config).variable("ZENML_STORE_API_KEY", "k").load();
    assert_eq!(login(&settings), "key k of variable ZENML_STORE_API_KEY");
}

#[test]
fn the_token_in_the_global_configuration_of_old_is_taken() {
    // As ZenML 0.43 writes it.
    let config = "store:\n  api_token: canary.jwt\n  extra_fields: null\n  secrets_store:\n    type: rest\n  type: rest\n  \
                  url: https://zenml.example.com\n  username: default\n  verify_ssl: true\nversion: 0.43.1\n";
    let scene = zenml::scene(config);
    let path = scene.path("zen/config.yaml").display().to_string();
    assert_eq!(login(&scene.load()), format!("token canary.jwt of `store.api_token` in {path}"));
}

#[test]
fn the_credentials_of_zenml_login_are_taken_by_the_servers_address() {
    let config = "store:\n  type: rest\n  url: https://zenml.example.com\n";
    for (lines, expected) in [
        ("  api_key: ZENKEY_k\n  api_token:\n    access_token: t\n", "key ZENKEY_k"),
        ("  username: bob\n  password: pw\n", "bob pw"),
        ("  api_token:\n    access_token: t\n    expires_in: 60\n    expires_at: '2030-01-01T00:00:00Z'\n", "token t"),
        ("", "none"),
    ] {
        let scene = zenml::scene(config);
        let other = credentials("https://other.example.com");
        let text = format!("{other}  api_key: not-this\n{}{lines}", credentials(URL));
        let path = scene.write("zen/credentials.yaml", text);
        let settings = scene.load();
        assert_holds(&login(&settings), &[expected]);
        assert!(settings.files.contains(&path), "a new login counts at once");
        if expected != "none" {
            assert_holds(&login(&settings), &[&format!("in {}", path.display())]);
            assert_holds(&settings.sources.join("\n"), &["zen/credentials.yaml"]);
        }
    }
    let scene = zenml::scene(config).variable("ZENML_DISABLE_CREDENTIALS_DISK_CACHING", "true");
    scene.write("zen/credentials.yaml", format!("{}  api_key: k\n", credentials(URL)));
    assert_eq!(login(&scene.load()), "none", "as ZenML, which does not read the file then");
    let scene = zenml::scene("").variable("ZENML_STORE_URL", URL).variable("ZENML_STORE_API_KEY", "own");
    scene.write("zen/credentials.yaml", "[canary\n");
    assert_eq!(login(&scene.load()), "key own of variable ZENML_STORE_API_KEY", "the file is not even read");
}

#[test]
fn credentials_that_are_broken_are_placed_and_never_quoted() {
    for text in ["[canary\n", "canary\n", "https://zenml.example.com:\n  api_key: [canary]\n", "a: 1\na: canary\n"] {
        let scene = zenml::scene("").variable("ZENML_STORE_URL", URL);
        scene.write("zen/credentials.yaml", text);
        let mistake = scene.mistake();
        assert_holds(&mistake, &["zen/credentials.yaml:"]);
        assert!(!mistake.contains("canary"), "{text}: {mistake}");
    }
}

#[test]
fn the_servers_certificate_is_checked_by_the_authority_that_zenml_names() {
    let scene = with(&[("ZENML_STORE_URL", URL)]);
    let file = scene.write("ca.pem", "x");
    let settings = scene.variable("ZENML_STORE_VERIFY_SSL", file.display().to_string()).load();
    assert_eq!(settings.backends[0].network.ca_file.as_deref(), Some(file.as_path()));
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let settings = with(&[("ZENML_STORE_URL", URL), ("ZENML_STORE_VERIFY_SSL", pem)]).load();
    assert_eq!(settings.backends[0].network.ca_text.as_deref(), Some(pem));
    for word in ["true", "True", "1", "yes"] {
        let settings = with(&[("ZENML_STORE_URL", URL), ("ZENML_STORE_VERIFY_SSL", word)]).load();
        assert!(settings.backends[0].network.ca_file.is_none());
    }
    for word in ["false", "False", "0", "no", "off"] {
        let mistake = with(&[("ZENML_STORE_URL", URL), ("ZENML_STORE_VERIFY_SSL", word)]).mistake();
        assert_holds(&mistake, &["variable ZENML_STORE_VERIFY_SSL: the server's certificate is always checked"]);
    }
    let mistake =
        zenml::scene("store:\n  type: rest\n  url: https://zenml.example.com\n  verify_ssl: false\n").mistake();
    assert_holds(&mistake, &["zen/config.yaml: `store.verify_ssl`: the server's certificate is always checked"]);
    let settings = with(&[("ZENML_STORE_URL", "http://127.0.0.1:1"), ("ZENML_STORE_VERIFY_SSL", "false")]).load();
    assert_eq!(server(&settings).url, "http://127.0.0.1:1", "there is nothing to check");
    let mistake = with(&[("ZENML_STORE_URL", URL), ("ZENML_STORE_VERIFY_SSL", "/no/such/canary")]).mistake();
    assert_holds(&mistake, &["variable ZENML_STORE_VERIFY_SSL: is neither a file that is there nor PEM text"]);
}

#[test]
fn a_server_has_no_use_for_the_variables_of_a_secrets_store() {
    let scene = with(&[("ZENML_STORE_URL", URL), ("ZENML_SECRETS_STORE_TYPE", "custom")]);
    assert_eq!(login(&scene.load()), "none", "a client of a server ignores them, as ZenML's does");
}

#[test]
fn a_manager_is_looked_for_beside_a_server_too() {
    let settings = with(&[("ZENML_STORE_URL", URL), ("ZENML_ACTIVE_STACK_ID", "s")]).load();
    let search = settings.manager.expect("a search");
    assert_eq!((search.store.as_str(), search.active_stack.as_deref()), ("store", Some("s")));
}
