//! The real agent on a real OpenBao.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::Home;
use keyside_tests::eventually::eventually;
use keyside_tests::openbao::OpenBao;
use keyside_tests::values_elsewhere::ValuesElsewhere;
use serde_json::json;

/// One scenario, for a server costs seconds to start: AppRole, layout `plain`, from the file to the step.
#[test]
fn a_step_gets_its_secret_from_vault_and_keeps_it_while_vault_is_sealed_on_real_openbao() {
    let home = Home::new();
    let Some(bao) = OpenBao::start(&home) else { return };
    bao.put("team/db", &json!({ "password": home.canary(), "port": 5432 }));
    bao.put("other/db", &json!({ "password": home.canary() }));
    let policy = r#"
        path "secret/data/team/*" { capabilities = ["read"] }
        path "secret/subkeys/team/*" { capabilities = ["read"] }
        path "secret/metadata/team/*" { capabilities = ["read", "list"] }
    "#;
    bao.write_to(&["policy", "write", "team", "-"], policy);
    bao.order(&["auth", "enable", "approle"]);
    bao.order(&["write", "auth/approle/role/agent", "token_policies=team", "token_ttl=1h"]);
    let role_id = bao.order(&["read", "-field=role_id", "auth/approle/role/agent/role-id"]);
    let secret_id = bao.order(&["write", "-f", "-field=secret_id", "auth/approle/role/agent/secret-id"]);
    // Our own login is as secret as what it opens.
    home.watch_for(&secret_id);
    let secret_id_file = home.write("secret-id", &secret_id);
    home.holds_values(&secret_id_file);
    let config = |prefix: &str| {
        format!(
            "[backend.store]\ntype = \"vault\"\nurl = \"{}\"\nca_file = \"{}\"\nlayout = \"plain\"\nprefix = \"{prefix}\"\n\
             auth = \"approle\"\nrole_id = \"{role_id}\"\nsecret_id_file = \"{}\"\n[cache]\nttl = \"1s\"\n",
            bao.url,
            bao.ca.display(),
            secret_id_file.display(),
        )
    };

    let other = home.agent().config(&config("other")).env("KEYSIDE_LOG", "trace").start_unready();
    other.client().secret("db").expect_problem(403, "backend_denied");
    other.stop();

    let agent = home.agent().config(&config("team")).env("KEYSIDE_LOG", "trace").start_unready();
    let mut client = agent.client();
    let check = client.post("/v1/check", &json!({ "references": ["{{db.password}}", "{{db.user}}", "{{no.k}}"] }));
    let check = check.expect(200).json();
    let statuses: Vec<_> = (0..3).map(|at| check["results"][at]["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(statuses, ["ok", "key_missing", "secret_missing"]);
    assert_eq!(client.value("db", "password").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("db", "port").expect(200).body, b"5432");
    let listed = client.get("/v1/secrets").expect(200).json();
    assert_eq!(listed["secrets"][0]["name"], "db");

    bao.put("team/db", &json!({ "password": home.canary(), "port": 6543 }));
    eventually("the new value is served", || (client.value("db", "port").body == b"6543").then_some(()));
    bao.seal();
    eventually("the value is served as stale", || {
        let reply = client.value("db", "port");
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"6543".as_slice()));
        (reply.header("keyside-stale") == Some("true")).then_some(())
    });
    let absent = client.secret("never-read").expect_problem(503, "backend_unavailable");
    assert!(absent.json()["detail"].as_str().unwrap().contains("sealed"), "{}", absent.json());
    bao.unseal();
    eventually("it is fresh again", || {
        (client.value("db", "port").header("keyside-stale") != Some("true")).then_some(())
    });
    agent.stop();
}

/// One scenario, for starting ZenML costs more than all of it.
#[test]
fn what_zenml_keeps_in_vault_is_read_with_its_own_settings_and_its_copies_when_vault_fails_on_real_openbao() {
    let home = Home::new();
    let Some(bao) = OpenBao::start(&home) else { return };
    home.watch_for(&bao.token);
    let place = bao.place().display().to_string();
    let store = ValuesElsewhere::new(
        &home,
        &["real_zenml.py", &place],
        &[
            ("ZENML_SECRETS_STORE_TYPE", "hashicorp".to_owned()),
            ("ZENML_SECRETS_STORE_VAULT_ADDR", bao.url.clone()),
            ("ZENML_SECRETS_STORE_VAULT_TOKEN", bao.token.clone()),
            ("VAULT_CACERT", bao.ca.display().to_string()),
        ],
    );
    if !store.is_written_and_read() {
        return;
    }
    // A login that may read another's secrets and not ZenML's.
    bao.write_to(&["policy", "write", "other", "-"], r#"path "secret/data/other/*" { capabilities = ["read"] }"#);
    let token = bao.order(&["token", "create", "-field=token", "-policy=other"]);
    home.watch_for(&token);
    let refused = store.agent(true).env("ZENML_SECRETS_STORE_VAULT_TOKEN", &token);
    store.copies_are_read_by(refused, 403, "backend_denied");
    bao.seal();
    store.copies_are_read(503, "backend_unavailable");
}
