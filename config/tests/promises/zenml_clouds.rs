//! Secrets stores of type `aws`, `gcp` and `azure` from ZenML's own environment: every way to log in.

use keyside_config::Settings;
use keyside_config::settings::{AwsSettings, AzureLogin, AzureSettings, BackendKind, GcpLogin, GcpSettings};

use crate::scene::assert_holds;
use crate::zenml_secrets_stores::{holder, mistake, with};

fn aws(settings: &Settings) -> &AwsSettings {
    let BackendKind::Aws(aws) = &holder(settings).kind else { panic!("another type") };
    aws
}

fn gcp(settings: &Settings) -> &GcpSettings {
    let BackendKind::Gcp(gcp) = &holder(settings).kind else { panic!("another type") };
    gcp
}

fn azure(settings: &Settings) -> &AzureSettings {
    let BackendKind::Azure(azure) = &holder(settings).kind else { panic!("another type") };
    azure
}

/// Key, secret and token of AWS.
fn keys(aws: &AwsSettings) -> Option<(&str, &str, Option<&str>)> {
    let keys = aws.keys.as_ref()?;
    let token = keys.session_token.as_ref().map(|token| token.text.as_str());
    Some((&keys.access_key_id, keys.secret_access_key.text.as_str(), token))
}

#[test]
fn aws_by_every_way_of_zenmls_connector() {
    let pair = "\"region\": \"eu\", \"aws_access_key_id\": \"id\", \"aws_secret_access_key\": \"canary\"";
    let load = |method: &str, config: &str| {
        let config = format!("{{{config}}}");
        with(&[("TYPE", "aws"), ("AUTH_METHOD", method), ("AUTH_CONFIG", &config)]).load()
    };
    let settings = load("implicit", "\"region\": \"eu\"");
    assert_eq!((aws(&settings).region.as_deref(), keys(aws(&settings))), (Some("eu"), None));
    assert_eq!((&aws(&settings).role_arn, &aws(&settings).profile), (&None, &None));
    let settings = load("implicit", "\"region\": \"eu\", \"profile_name\": \"p\", \"role_arn\": \"arn:r\"");
    assert_eq!((aws(&settings).role_arn.as_deref(), aws(&settings).profile.as_deref()), (Some("arn:r"), Some("p")));
    for method in ["secret-key", "session-token", "federation-token"] {
        let settings = load(method, pair);
        assert_eq!(keys(aws(&settings)), Some(("id", "canary", None)), "{method}");
        assert_eq!(aws(&settings).role_arn, None);
    }
    let settings = load("sts-token", &format!("{pair}, \"aws_session_token\": \"t\""));
    assert_eq!(keys(aws(&settings)), Some(("id", "canary", Some("t"))));
    let settings =
        load("iam-role", &format!("{pair}, \"role_arn\": \"arn:r\", \"endpoint_url\": \"http://127.0.0.1:1/\""));
    assert_eq!(keys(aws(&settings)), Some(("id", "canary", None)));
    assert_eq!(aws(&settings).role_arn.as_deref(), Some("arn:r"));
    assert_eq!(aws(&settings).endpoint_url.as_deref(), Some("http://127.0.0.1:1"));
    let origin = &aws(&settings).keys.as_ref().expect("keys").secret_access_key.origin;
    assert_eq!(origin, "`aws_secret_access_key` in variable ZENML_SECRETS_STORE_AUTH_CONFIG");
}

#[test]
fn aws_by_the_keys_of_old() {
    let settings = with(&[("TYPE", "aws"), ("REGION_NAME", "eu"), ("LIST_PAGE_SIZE", "100")]).load();
    assert_eq!((aws(&settings).region.as_deref(), keys(aws(&settings))), (Some("eu"), None));
    let old =
        [("TYPE", "aws"), ("REGION_NAME", "eu"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "canary")];
    let settings = with(&[&old[..], &[("AWS_SESSION_TOKEN", "t")]].concat()).load();
    assert_eq!(keys(aws(&settings)), Some(("id", "canary", Some("t"))));
    // As in ZenML, they go before the newer ones.
    let newer = [("AUTH_METHOD", "implicit"), ("AUTH_CONFIG", "{\"region\": \"us\"}")];
    let settings = with(&[&old[..], &newer].concat()).load();
    assert_eq!(aws(&settings).region.as_deref(), Some("eu"));
    assert_holds(&mistake(&old[..3]), &["has no `aws_secret_access_key`"]);
}

#[test]
fn what_aws_lacks_is_named() {
    for (method, config, part) in [
        ("implicit", "{}", "has no `region`"),
        ("secret-key", "{\"region\": \"eu\", \"aws_access_key_id\": \"canary\"}", "has no `aws_secret_access_key`"),
        (
            "sts-token",
            "{\"region\": \"eu\", \"aws_access_key_id\": \"i\", \"aws_secret_access_key\": \"canary\"}",
            "has no `aws_session_token`",
        ),
        (
            "iam-role",
            "{\"region\": \"eu\", \"aws_access_key_id\": \"i\", \"aws_secret_access_key\": \"canary\"}",
            "has no `role_arn`",
        ),
        ("implicit", "canary", "variable ZENML_SECRETS_STORE_AUTH_CONFIG: must be a JSON object"),
        ("implicit", "[\"canary\"]", "variable ZENML_SECRETS_STORE_AUTH_CONFIG: must be a JSON object"),
        ("implicit", "{\"region\": \"canary\", \"region\": \"canary\"}", "must be a JSON object"),
        ("implicit", "{\"region\": 1}", "variable ZENML_SECRETS_STORE_AUTH_CONFIG: `region`: must be a text"),
        (
            "implicit",
            "{\"region\": \"eu\", \"endpoint_url\": \"http://canary.example.com\"}",
            "variable ZENML_SECRETS_STORE_AUTH_CONFIG: `endpoint_url`: without TLS only this machine",
        ),
        ("canary", "{\"region\": \"eu\"}", "variable ZENML_SECRETS_STORE_AUTH_METHOD: unknown way to log in"),
    ] {
        let mistake = mistake(&[("TYPE", "aws"), ("AUTH_METHOD", method), ("AUTH_CONFIG", config)]);
        assert_holds(&mistake, &[part]);
    }
    assert_holds(&mistake(&[("TYPE", "aws")]), &["ZenML's secrets store (type \"aws\") has no `auth_method`"]);
    let scene = with(&[("TYPE", "aws"), ("AUTH_METHOD", "implicit")]);
    let Err(error) = scene.try_load() else { panic!("no region") };
    let hint = error.mistakes[0].hint.as_deref().expect("a hint");
    assert_holds(hint, &["set `region` in ZENML_SECRETS_STORE_AUTH_CONFIG", "[backend.NAME]"]);
}

/// A service account of project `own`, as one line.
const ACCOUNT: &str = r#"{"type":"service_account","project_id":"own","private_key":"canary"}"#;

#[test]
fn gcp_by_every_way_of_zenmls_connector() {
    let load = |method: &str, config: serde_json::Value| {
        with(&[("TYPE", "gcp"), ("AUTH_METHOD", method), ("AUTH_CONFIG", &config.to_string())]).load()
    };
    let json = |settings: &Settings| match &gcp(settings).login {
        GcpLogin::Json(text) => text.text.as_str().to_owned(),
        _ => panic!("another login"),
    };
    let settings = load("implicit", serde_json::json!({ "project_id": "p" }));
    assert!(matches!(gcp(&settings).login, GcpLogin::Default));
    assert_eq!((gcp(&settings).project.as_str(), &gcp(&settings).impersonate), ("p", &None));

    // As text, as a table, in base64; the project may stand in it alone.
    let table: serde_json::Value = serde_json::from_str(ACCOUNT).expect("JSON");
    let base64 = "eyJ0eXBlIjoic2VydmljZV9hY2NvdW50IiwicHJvamVjdF9pZCI6Im93biIsInByaXZhdGVfa2V5IjoiY2FuYXJ5In0=";
    for account in [serde_json::json!(ACCOUNT), table.clone(), serde_json::json!(base64)] {
        let settings = load("service-account", serde_json::json!({ "service_account_json": account }));
        assert_eq!(gcp(&settings).project, "own");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(&settings)).expect("JSON"), table);
    }
    let settings = load("service-account", serde_json::json!({ "project_id": "p", "service_account_json": ACCOUNT }));
    assert_eq!((gcp(&settings).project.as_str(), json(&settings).as_str()), ("p", ACCOUNT));
    let settings = load(
        "impersonation",
        serde_json::json!({ "service_account_json": ACCOUNT, "target_principal": "t@p.iam.gserviceaccount.com" }),
    );
    assert_eq!(gcp(&settings).impersonate.as_deref(), Some("t@p.iam.gserviceaccount.com"));
    assert_eq!(json(&settings), ACCOUNT);
    for (method, key, kind) in [
        ("user-account", "user_account_json", "authorized_user"),
        ("external-account", "external_account_json", "external_account"),
    ] {
        let text = format!("{{\"type\":\"{kind}\",\"x\":\"canary\"}}");
        let settings = load(method, serde_json::json!({ "project_id": "p", key: text }));
        assert_eq!(json(&settings), text);
    }
    let settings = load("oauth2-token", serde_json::json!({ "project_id": "p", "token": "canary" }));
    assert!(matches!(&gcp(&settings).login, GcpLogin::Token(token) if token.text.as_str() == "canary"));
}

#[test]
fn gcp_by_the_key_of_old() {
    let settings =
        with(&[("TYPE", "gcp"), ("PROJECT_ID", "p")]).variable("GOOGLE_APPLICATION_CREDENTIALS", "/c.json").load();
    assert_eq!(gcp(&settings).project, "p");
    assert!(matches!(gcp(&settings).login, GcpLogin::Default), "the file is Google's own chain's to find");
}

#[test]
fn what_gcp_lacks_is_named() {
    for (method, config, part) in [
        ("implicit", "{}", "has no `project_id`"),
        ("oauth2-token", "{\"project_id\": \"p\"}", "has no `token`"),
        ("service-account", "{\"project_id\": \"p\"}", "has no `service_account_json`"),
        (
            "service-account",
            "{\"service_account_json\": \"canary\"}",
            "`service_account_json`: must be credentials as JSON with \"type\": \"service_account\"",
        ),
        (
            "service-account",
            "{\"service_account_json\": {\"type\": \"authorized_user\", \"x\": \"canary\"}}",
            "with \"type\": \"service_account\"",
        ),
        (
            "external-account",
            "{\"external_account_json\": {\"type\": \"external_account\", \"project_id\": \"canary\"}}",
            "has no `project_id`",
        ),
        (
            "impersonation",
            "{\"service_account_json\": {\"type\": \"service_account\", \"project_id\": \"canary\"}}",
            "has no `target_principal`",
        ),
        ("workload", "{\"project_id\": \"canary\"}", "unknown way to log in"),
    ] {
        assert_holds(&mistake(&[("TYPE", "gcp"), ("AUTH_METHOD", method), ("AUTH_CONFIG", config)]), &[part]);
    }
}

#[test]
fn azure_by_every_way_of_zenmls_connector() {
    let load = |method: &str, config: &str| {
        with(&[("TYPE", "azure"), ("KEY_VAULT_NAME", "my-vault"), ("AUTH_METHOD", method), ("AUTH_CONFIG", config)])
    };
    let settings = load("implicit", "{}").load();
    assert_eq!(
        (azure(&settings).vault_url.as_str(), &azure(&settings).authority),
        ("https://my-vault.vault.azure.net", &None)
    );
    assert!(matches!(azure(&settings).login, AzureLogin::Default { client_id: None, tenant_id: None }));
    let config = "{\"client_id\": \"c\", \"client_secret\": \"canary\", \"tenant_id\": \"t\"}";
    match &azure(&load("service-principal", config).load()).login {
        AzureLogin::ServicePrincipal { client_id, tenant_id, client_secret } => {
            assert_eq!((client_id.as_str(), tenant_id.as_str(), client_secret.text.as_str()), ("c", "t", "canary"));
        }
        _ => panic!("another login"),
    }
    let settings = load("access-token", "{\"token\": \"canary\"}").load();
    assert!(matches!(&azure(&settings).login, AzureLogin::Token(token) if token.text.as_str() == "canary"));

    // Azure's own chain begins with its variables.
    let scene = load("implicit", "").variable("AZURE_CLIENT_ID", "c").variable("AZURE_TENANT_ID", "t");
    assert!(matches!(&azure(&scene.load()).login, AzureLogin::Default { client_id: Some(id), .. } if id == "c"));
    let settings = scene.variable("AZURE_CLIENT_SECRET", "canary").load();
    match &azure(&settings).login {
        AzureLogin::ServicePrincipal { client_secret, .. } => {
            assert_eq!(client_secret.origin, "variable AZURE_CLIENT_SECRET");
        }
        _ => panic!("another login"),
    }
}

#[test]
fn azure_by_the_keys_of_old() {
    let old = [("TYPE", "azure"), ("KEY_VAULT_NAME", "v")];
    assert!(matches!(azure(&with(&old).load()).login, AzureLogin::Default { .. }));
    let all = [("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "canary"), ("AZURE_TENANT_ID", "t")];
    let settings = with(&[&old[..], &all].concat()).load();
    assert!(matches!(&azure(&settings).login, AzureLogin::ServicePrincipal { client_id, .. } if client_id == "c"));
}

#[test]
fn what_azure_lacks_is_named() {
    assert_holds(&mistake(&[("TYPE", "azure"), ("AUTH_METHOD", "implicit")]), &["has no `key_vault_name`"]);
    let name = ("KEY_VAULT_NAME", "canary.example.com/x");
    assert_holds(&mistake(&[("TYPE", "azure"), name]), &["variable ZENML_SECRETS_STORE_KEY_VAULT_NAME: is no name"]);
    for (method, config, part) in [
        ("service-principal", "{\"client_id\": \"c\", \"tenant_id\": \"t\"}", "has no `client_secret`"),
        ("service-principal", "{\"client_secret\": \"canary\", \"tenant_id\": \"t\"}", "has no `client_id`"),
        ("access-token", "{}", "has no `token`"),
        ("certificate", "{}", "known are \"implicit\", \"service-principal\", \"access-token\""),
    ] {
        let variables = [("TYPE", "azure"), ("KEY_VAULT_NAME", "v"), ("AUTH_METHOD", method), ("AUTH_CONFIG", config)];
        assert_holds(&mistake(&variables), &[part]);
    }
}
