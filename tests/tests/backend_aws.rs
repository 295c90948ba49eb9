//! Secrets of AWS Secrets Manager through a real agent, with every way to credentials: moto and ministack stand for AWS.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use keyside_tests::Home;
use keyside_tests::agent::AgentBuilder;
use keyside_tests::aws::{Cloud, installed};
use keyside_tests::eventually::eventually;
use keyside_tests::socket_client::Reply;
use keyside_tests::values_elsewhere::ValuesElsewhere;
use serde_json::json;

fn plant(cloud: &Cloud, home: &Home) {
    let text = json!({"password": home.canary(), "user": "admin"}).to_string();
    let manager = json!({"password": home.canary(), "zenml_schema_name": "arbitrary"}).to_string();
    cloud.owner(&json!([
        ["create_secret", {"Name": "app/db", "SecretString": text}],
        ["create_secret", {"Name": "app/gone", "SecretString": "x"}],
        ["create_secret", {"Name": "zenml/global/mlflow", "SecretString": manager}],
    ]));
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn config(url: &str, keys: &str) -> String {
    format!(
        "[agent]\nprecedence = [\"app\", \"legacy\"]\n\
         [cache]\nttl = \"1s\"\nnegative_ttl = \"1s\"\n\
         [backend.app]\ntype = \"aws\"\nlayout = \"plain\"\nprefix = \"app/\"\nendpoint_url = \"{url}\"\n{keys}\n\
         [backend.legacy]\ntype = \"aws\"\nlayout = \"manager\"\nscope = \"global\"\nendpoint_url = \"{url}\"\n{keys}\n"
    )
}

/// Reads what was planted, by an agent that finds its credentials by itself.
fn reads(home: &Home, agent: AgentBuilder<'_>) {
    let agent = agent.start_unready();
    let reply = agent.client().value("db", "password");
    assert_eq!((reply.status, text(&reply)), (200, home.canary().to_owned()), "{}", agent.log());
    agent.stop();
}

/// An agent without any word about AWS in its environment but the region.
fn bare<'h>(home: &'h Home, url: &str, keys: &str) -> AgentBuilder<'h> {
    home.agent().config(&config(url, keys)).env("AWS_REGION", "eu-central-1")
}

#[test]
fn secrets_are_read_checked_and_forgotten_and_no_token_is_logged_on_real_moto() {
    let Some(cloud) = Cloud::moto() else { return };
    let home = Home::new();
    plant(&cloud, &home);
    let token = "session-token-that-no-log-shows";
    let agent = bare(&home, &cloud.url, "").env("AWS_ACCESS_KEY_ID", "AKIATEST");
    let agent = agent.env("AWS_SECRET_ACCESS_KEY", "key-that-no-log-shows").env("AWS_SESSION_TOKEN", token).start();
    let mut client = agent.client();
    for (name, backend) in [("db", "app"), ("mlflow", "legacy")] {
        let reply = client.value(name, "password");
        assert_eq!((reply.status, text(&reply)), (200, home.canary().to_owned()), "{name}");
        let whole = client.get(&format!("/v1/secrets/{name}")).json();
        assert_eq!(whole["backend"], backend);
    }
    let whole = client.get("/v1/secrets/mlflow").json();
    assert_eq!(whole["values"].as_object().unwrap().keys().collect::<Vec<_>>(), ["password"]);
    let run = |references: &[&str]| home.keyside(["check"]).args(references).with(&agent).end();
    assert_eq!(run(&["db.user", "mlflow.password", "gone.value"]).code(), Some(0));
    assert_eq!(run(&["db.nothing", "never.there"]).code(), Some(1));

    // Marked for deletion: gone at once for AWS, and for us when its ttl is over.
    cloud.owner(&json!([["delete_secret", {"SecretId": "app/gone", "RecoveryWindowInDays": 7}]]));
    eventually("it is gone", || (client.get("/v1/secrets/gone").status == 404).then_some(()));
    let log = agent.log();
    assert!(!log.contains(token) && !log.contains("key-that-no-log-shows"), "{log}");
    agent.stop();
}

#[test]
fn every_usual_place_of_credentials_is_looked_at_on_real_moto() {
    let Some(cloud) = Cloud::moto() else { return };
    let home = Home::new();
    plant(&cloud, &home);
    let helper = home.join("helper");
    let credentials = json!({"Version": 1, "AccessKeyId": "AKIAHELPER", "SecretAccessKey": "x"});
    fs::write(&helper, format!("#!/bin/sh\necho '{credentials}'\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let token = home.join("token");
    fs::write(&token, "a.b.c").unwrap();
    let aws = home.join(".aws");
    fs::create_dir(&aws).unwrap();
    fs::write(
        aws.join("config"),
        format!("[profile keys]\nregion = eu-central-1\n[profile helper]\ncredential_process = {}\n", helper.display()),
    )
    .unwrap();
    fs::write(aws.join("credentials"), "[keys]\naws_access_key_id = AKIAFILE\naws_secret_access_key = x\n").unwrap();

    reads(&home, bare(&home, &cloud.url, "profile = \"helper\""));
    // The profile brings the region, and is meant even beside keys in the environment.
    let agent = home.agent().config(&config(&cloud.url, "profile = \"keys\"")).env("AWS_ACCESS_KEY_ID", "AKIAOTHER");
    reads(&home, agent.env("AWS_SECRET_ACCESS_KEY", "x"));
    let role = "role_arn = \"arn:aws:iam::123456789012:role/keyside\"";
    reads(&home, bare(&home, &cloud.url, &format!("profile = \"keys\"\n{role}")));
    let agent = bare(&home, &cloud.url, "").env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    let agent = agent.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod").env("AWS_ENDPOINT_URL_STS", &cloud.url);
    reads(&home, agent);
}

/// One scenario, for starting ZenML costs more than all of it.
#[test]
fn what_zenml_keeps_in_aws_is_read_with_its_own_settings_and_its_copies_when_aws_fails_on_real_moto() {
    let Some(mut cloud) = Cloud::moto() else { return };
    let home = Home::new();
    home.watch_for("key-that-no-log-shows");
    let place = cloud.place().display().to_string();
    let variables = cloud.as_secrets_store("key-that-no-log-shows");
    let store = ValuesElsewhere::new(&home, &["real_zenml.py", &place], &variables);
    if !store.is_written_and_read() {
        return;
    }
    cloud.stop();
    store.copies_are_read(503, "backend_unavailable");
    // It answers again, and has lost what it held.
    cloud.start_empty();
    store.copies_are_read(403, "backend_denied");
}

#[test]
fn a_machines_own_role_is_used_on_real_ministack() {
    let Some(cloud) = Cloud::ministack() else { return };
    if installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh").is_none() {
        return;
    }
    let home = Home::new();
    plant(&cloud, &home);
    reads(&home, bare(&home, &cloud.url, "").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &cloud.url));
}

#[test]
fn without_region_or_credentials_the_agent_says_what_to_write() {
    let home = Home::new();
    let agent = home.agent().config(&config("http://127.0.0.1:9", "")).env("AWS_EC2_METADATA_DISABLED", "true");
    let agent = agent.start_unready();
    let reply = agent.client().get("/v1/secrets/db");
    assert_eq!(reply.status, 503);
    assert!(text(&reply).contains("no AWS region is known") && text(&reply).contains("AWS_REGION"), "{}", text(&reply));
    agent.stop();
    let said = |keys: &str| {
        let agent = bare(&home, "http://127.0.0.1:9", keys).env("AWS_EC2_METADATA_DISABLED", "true").start_unready();
        let reply = agent.client().get("/v1/secrets/db");
        assert_eq!(reply.status, 503);
        agent.stop();
        text(&reply)
    };
    let nothing = said("");
    assert!(nothing.contains("no credentials") && nothing.contains("AWS_ACCESS_KEY_ID"), "{nothing}");
    let profile = said("profile = \"nope\"");
    assert!(profile.contains("profile `nope`") && profile.contains("~/.aws/config"), "{profile}");
}

#[test]
fn what_a_metadata_service_answers_is_in_no_log_at_any_level() {
    let home = Home::new();
    let token = "metadata-token-that-no-log-shows";
    home.watch_for(token);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let key = format!(r#"{{"SecretAccessKey": "{}"}}"#, home.canary());
    let (told, was_told) = std::sync::mpsc::channel();
    // It answers as long as the test runs.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut lines = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).unwrap() > 0 {}
            let (status, body) = match head.lines().next().unwrap_or_default() {
                line if line.starts_with("PUT ") => ("200 OK", token),
                line if line.contains("security-credentials/ ") => ("200 OK", "role"),
                line if line.contains("security-credentials/role") => ("500 Oops", key.as_str()),
                _ => ("404 Not Found", ""),
            };
            if status.starts_with("500") {
                let _ = told.send(());
            }
            let head = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\nConnection: close";
            let reply = format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = lines.get_mut().write_all(reply.as_bytes());
        }
    });
    let agent = bare(&home, "http://127.0.0.1:9", "").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url);
    let agent = agent.env("KEYSIDE_LOG", "trace").start_unready();
    agent.client().get("/v1/secrets/db").expect_problem(503, "backend_unavailable");
    was_told.recv().expect("the service was asked for the role's keys");
    agent.stop();
}
