//! Secrets stores of type `hashicorp` from ZenML's own environment.

use keyside_config::Settings;
use keyside_config::settings::{BackendKind, VaultLogin, VaultSettings};

use crate::scene::assert_holds;
use crate::zenml_secrets_stores::{holder, mistake, with};

const VAULT: [(&str, &str); 2] = [("TYPE", "hashicorp"), ("VAULT_ADDR", "https://vault.example.com:8200/")];

fn vault(settings: &Settings) -> &VaultSettings {
    let BackendKind::Vault(vault) = &holder(settings).kind else { panic!("another type") };
    vault
}

fn load(more: &[(&str, &str)]) -> Settings {
    with(&[&VAULT[..], more].concat()).load()
}

#[test]
fn vault_by_token_with_its_mount_and_name_space() {
    let settings = load(&[("VAULT_TOKEN", "canary"), ("MAX_VERSIONS", "5")]);
    let plain = vault(&settings);
    assert_eq!((plain.url.as_str(), plain.mount.as_str(), plain.kv), ("https://vault.example.com:8200", "secret", 2));
    assert_eq!((&plain.namespace, &plain.auth_mount), (&None, &None));
    assert!(matches!(&plain.login, VaultLogin::Token(token) if token.text.as_str() == "canary"));
    let more = [("AUTH_METHOD", "token"), ("MOUNT_POINT", "team/kv/"), ("VAULT_NAMESPACE", "admin/ml")];
    let settings = load(&[&[("VAULT_TOKEN", "t")][..], &more].concat());
    assert_eq!((vault(&settings).mount.as_str(), vault(&settings).namespace.as_deref()), ("team/kv", Some("admin/ml")));
}

#[test]
fn vault_by_app_role_and_by_aws() {
    let role =
        [("AUTH_METHOD", "app_role"), ("APP_ROLE_ID", "r"), ("APP_SECRET_ID", "canary"), ("AUTH_MOUNT_POINT", "a")];
    let settings = load(&role);
    match &vault(&settings).login {
        VaultLogin::AppRole { role_id, secret_id: Some(secret_id) } => {
            assert_eq!((role_id.as_str(), secret_id.text.as_str()), ("r", "canary"));
        }
        _ => panic!("another login"),
    }
    assert_eq!(vault(&settings).auth_mount.as_deref(), Some("a"));
    let settings = load(&[("AUTH_METHOD", "aws"), ("AWS_ROLE", "r")]);
    assert!(matches!(&vault(&settings).login, VaultLogin::Aws { role: Some(role), header_value: None } if role == "r"));
    let settings = load(&[("AUTH_METHOD", "aws"), ("AWS_HEADER_VALUE", "vault.example.com")]);
    let login = &vault(&settings).login;
    assert!(matches!(login, VaultLogin::Aws { header_value: Some(value), .. } if value == "vault.example.com"));
    let mistake = mistake(&[&VAULT[..], &[("AUTH_METHOD", "aws"), ("AWS_HEADER_VALUE", "a\ncanary")]].concat());
    assert_holds(&mistake, &["variable ZENML_SECRETS_STORE_AWS_HEADER_VALUE: must be printable ASCII"]);
}

#[test]
fn vaults_own_variables_and_token_file_stand_in() {
    let scene = with(&[("TYPE", "hashicorp")]).variable("VAULT_ADDR", "http://127.0.0.1:8200");
    let file = scene.write(".vault-token", "from the file\n");
    let settings = scene.load();
    assert_eq!(vault(&settings).url, "http://127.0.0.1:8200");
    let VaultLogin::Token(token) = &vault(&settings).login else { panic!("another login") };
    assert_eq!((token.text.as_str(), token.file.as_deref()), ("from the file", Some(file.as_path())));
    let scene = scene
        .variable("VAULT_TOKEN", "from the variable")
        .variable("VAULT_NAMESPACE", "ns")
        .variable("VAULT_CACERT", "/ca.pem");
    let settings = scene.load();
    let VaultLogin::Token(token) = &vault(&settings).login else { panic!("another login") };
    assert_eq!((token.text.as_str(), token.origin.as_str()), ("from the variable", "variable VAULT_TOKEN"));
    assert_eq!(vault(&settings).namespace.as_deref(), Some("ns"));
    assert_eq!(holder(&settings).network.ca_file.as_deref(), Some("/ca.pem".as_ref()));
    // ZenML's own go first.
    let scene =
        scene.variable("ZENML_SECRETS_STORE_VAULT_ADDR", "https://v").variable("ZENML_SECRETS_STORE_VAULT_TOKEN", "t");
    let settings = scene.load();
    assert_eq!(vault(&settings).url, "https://v");
    assert!(matches!(&vault(&settings).login, VaultLogin::Token(token) if token.text.as_str() == "t"));
}

#[test]
fn what_vault_lacks_is_named() {
    for (more, part) in [
        (&[][..], "has no `vault_token`"),
        (&[("AUTH_METHOD", "app_role"), ("APP_SECRET_ID", "canary")], "has no `app_role_id`"),
        (&[("AUTH_METHOD", "app_role"), ("APP_ROLE_ID", "r")], "has no `app_secret_id`"),
        (&[("AUTH_METHOD", "canary")], "known are \"token\", \"app_role\", \"aws\""),
        (
            &[("VAULT_TOKEN", "canary"), ("MOUNT_POINT", "../x")],
            "ZENML_SECRETS_STORE_MOUNT_POINT: is no path of a mount",
        ),
    ] {
        assert_holds(&mistake(&[&VAULT[..], more].concat()), &[part]);
    }
    assert_holds(&mistake(&[("TYPE", "hashicorp"), ("VAULT_TOKEN", "canary")]), &["has no `vault_addr`"]);
    let plain = [("TYPE", "hashicorp"), ("VAULT_ADDR", "http://vault.internal:8200"), ("VAULT_TOKEN", "canary")];
    assert_holds(&mistake(&plain), &["variable ZENML_SECRETS_STORE_VAULT_ADDR: without TLS only this machine"]);
}
