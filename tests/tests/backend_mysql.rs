//! The agent on ZenML's tables in a real MariaDB, which the real ZenML made and writes.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::aws::Cloud;
use keyside_tests::eventually::eventually;
use keyside_tests::mariadb::MariaDb;
use keyside_tests::values_elsewhere::ValuesElsewhere;
use keyside_tests::zenml::Zenml;
use keyside_tests::{Client, Home};
use serde_json::{Value, json};

const KEY: &str = "ein Schlüssel";

/// One scenario, for ZenML takes half a minute to make its tables there.
#[test]
fn what_zenml_and_keyside_write_is_read_by_both_on_real_mariadb() {
    let home = Home::new();
    let Some(mut server) = MariaDb::start() else { return };
    let url = server.url("zenml:pw");
    let Some(mut zenml) = Zenml::start_with(&home, &[("ZENML_STORE_URL", &url)]) else { return };
    zenml.create("canary", &json!({ "value": home.canary(), "unicode": "значение 🔐", "empty": "" }));
    zenml.create_private("mine", &json!({ "value": home.canary(), "kind": "private" }));

    let password = home.write("password", "pw\n");
    let named = server.url("zenml");
    let backend = |more: &str| {
        format!(
            "[cache]\npoll_interval = \"1s\"\nttl = \"5s\"\n[backend.store]\ntype = \"zenml-sql\"\nurl = \"{}\"\n\
             password_file = \"{}\"\nuser = \"default\"\nwritable = true\ntimeout = \"2s\"\n{more}",
            named,
            password.display()
        )
    };
    let agent = home.agent_with(&backend(""));
    let mut client = agent.client();
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("canary", "unicode").expect(200).body, "значение 🔐".as_bytes());
    assert_eq!(client.value("mine", "kind").expect(200).body, b"private");
    // To the server this is the same name; to a reader it is not.
    client.secret("CANARY").expect_problem(404, "secret_not_found");

    // Changes are noticed by the poll, although timestamps have whole seconds there.
    zenml.update("canary", &json!({ "more": "1" }), &[]);
    eventually("what ZenML changed is served", || (client.value("canary", "more").body == b"1").then_some(()));
    zenml.update("canary", &json!({ "more": "2" }), &[]);
    eventually("and changed again", || (client.value("canary", "more").body == b"2").then_some(()));

    let values = json!({ "value": home.canary(), "unicode": "🔐", "lines": "a\r\nb\n" });
    client.post("/v1/secrets", &json!({ "name": "ours", "values": values })).expect(201);
    assert_eq!(zenml.get("ours", false), values, "ZenML reads what Keyside created");
    let change = json!({ "values": { "lines": null, "new": "1" } });
    client.request("PATCH", "/v1/secrets/ours", &[], Some(&change)).expect(200);
    let expected = json!({ "value": home.canary(), "unicode": "🔐", "new": "1" });
    assert_eq!(zenml.get("ours", false), expected, "ZenML reads what Keyside changed");
    client.post("/v1/secrets", &json!({ "name": "CANARY", "values": {} })).expect_problem(409, "conflict");
    client.request("DELETE", "/v1/secrets/ours", &[], None).expect(200);
    assert_eq!(zenml.get("ours", false), Value::Null);
    // As ZenML without a server would be: nothing of ours is in the way of its next migration.
    assert_eq!(server.sql("SELECT count(*) FROM information_schema.innodb_trx").trim(), "0");

    survives_a_crash(&mut client, &mut server, home.canary());
    drop(client);
    assert!(agent.stop().success());
    drop(zenml);
    under_a_key(&home, &server, &backend);
}

fn survives_a_crash(client: &mut Client<'_>, server: &mut MariaDb, canary: &str) {
    server.kill();
    eventually("the outage is noticed", || {
        let reply = client.value("canary", "value").expect(200);
        assert_eq!(reply.body, canary.as_bytes(), "what was read before goes on being served");
        (reply.header("keyside-stale") == Some("true")).then_some(())
    });
    client.secret("never-read").expect_problem(503, "backend_unavailable");
    server.run();
    eventually("the server is asked again", || {
        (client.secret("never-read").status == 404 && client.value("mine", "kind").status == 200).then_some(())
    });
    eventually("what is served is fresh again", || {
        let reply = client.value("canary", "value").expect(200);
        (reply.header("keyside-stale") != Some("true")).then_some(())
    });
}

fn under_a_key(home: &Home, server: &MariaDb, backend: &dyn Fn(&str) -> String) {
    let url = server.url("zenml:pw");
    let variables =
        [("ZENML_STORE_URL", &*url), ("ZENML_SECRETS_STORE_TYPE", "sql"), ("ZENML_SECRETS_STORE_ENCRYPTION_KEY", KEY)];
    let mut zenml = Zenml::start_with(home, &variables).expect("it was there a moment ago");
    zenml.create("sealed", &json!({ "value": home.canary() }));
    let agent = home.agent().config(&backend("encryption_key_env = \"STORE_KEY\"\n")).env("STORE_KEY", KEY).start();
    let mut client = agent.client();
    assert_eq!(client.value("sealed", "value").expect(200).body, home.canary().as_bytes());
    client.post("/v1/secrets", &json!({ "name": "ours", "values": { "value": home.canary() } })).expect(201);
    assert_eq!(zenml.get("ours", false), json!({ "value": home.canary() }));
    // What was written without the key is told from what cannot be read.
    let reply = client.secret("canary");
    assert_eq!(reply.status, 503, "{}", String::from_utf8_lossy(&reply.body));
    let hint = reply.json()["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("encryption_key_env"), "{hint}");
    drop(client);
    assert!(agent.stop().success());
}

/// A scenario of its own: ZenML keeps the deployment's id and the copies in this data base, and the values in AWS.
#[test]
fn names_in_mysql_and_values_in_aws_make_secrets_and_copies_stay_readable_on_real_mariadb() {
    let home = Home::new();
    let Some(server) = MariaDb::start() else { return };
    let Some(mut cloud) = Cloud::moto() else { return };
    let place = cloud.place().display().to_string();
    let variables = cloud.as_secrets_store("test");
    let store = ValuesElsewhere::new(&home, &["real_zenml.py", &place], &variables).at(&server.url("zenml:pw"));
    if !store.is_written_and_read() {
        return;
    }
    cloud.stop();
    store.copies_are_read(503, "backend_unavailable");
}
