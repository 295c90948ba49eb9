//! Secrets of AWS Secrets Manager through a real agent, with every way to credentials: moto and ministack stand for AWS.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use keyside_tests::Home;
use keyside_tests::agent::AgentBuilder;
use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::socket_client::Reply;
use serde_json::json;

/// A running stand-in for AWS; ends with this.
struct Cloud {
    child: Child,
    place: PathBuf,
    url: String,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cloud {
    fn moto() -> Option<Self> {
        let place = installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh")?;
        let port = free_port();
        let mut command = Command::new(place.join("bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        Some(Self::start(command, port, place))
    }

    fn ministack() -> Option<Self> {
        let place = installed("KEYSIDE_MINISTACK", "ministack-1.5.33", "install-ministack.sh")?;
        let port = free_port();
        let mut command = Command::new(place.join("bin/ministack"));
        command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
        command.env("MINISTACK_REGION", "eu-central-1").env("MINISTACK_IMDS_V2_REQUIRED", "1");
        command.env("SERVICES", "secretsmanager,sts,iam,imds").env("LOG_LEVEL", "WARNING");
        Some(Self::start(command, port, place))
    }

    fn start(mut command: Command, port: u16, place: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let cloud = Self { child, place, url: format!("http://127.0.0.1:{port}") };
        eventually("the stand-in listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        cloud
    }

    /// Calls AWS's own Python client, of moto's environment, with each of `calls`: a method and its arguments.
    fn owner(&self, calls: &serde_json::Value) {
        let python = installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh").unwrap_or_else(|| self.place.clone());
        let script = "import boto3, json, sys\n\
            client = boto3.client('secretsmanager', region_name='eu-central-1', endpoint_url=sys.argv[1],\n\
                aws_access_key_id='owner', aws_secret_access_key='owner')\n\
            for method, arguments in json.load(sys.stdin):\n    getattr(client, method)(**arguments)\n";
        let mut child = Command::new(python.join("bin/python"))
            .args(["-c", script, &self.url])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), calls).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn plant(&self, home: &Home) {
        let text = json!({"password": home.canary(), "user": "admin"}).to_string();
        let manager = json!({"password": home.canary(), "zenml_schema_name": "arbitrary"}).to_string();
        self.owner(&json!([
            ["create_secret", {"Name": "app/db", "SecretString": text}],
            ["create_secret", {"Name": "app/gone", "SecretString": "x"}],
            ["create_secret", {"Name": "zenml/global/mlflow", "SecretString": manager}],
        ]));
    }
}

fn installed(variable: &str, folder: &str, script: &str) -> Option<PathBuf> {
    let cache = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers"));
    let peers = std::env::var_os("KEYSIDE_PEERS").map(PathBuf::from).or_else(cache);
    let named = std::env::var_os(variable).map(PathBuf::from);
    let place = named.or_else(|| peers.map(|peers| peers.join(folder)));
    // Another user's cache may be closed to us.
    let place = place.filter(|place| place.join(".keyside-complete").is_file());
    if place.is_none() {
        remark(format_args!("skipped: {folder} is not installed (tests/peers/{script})"));
    }
    place
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
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
    cloud.plant(&home);
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
    cloud.plant(&home);
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

#[test]
fn a_machines_own_role_is_used_on_real_ministack() {
    let Some(cloud) = Cloud::ministack() else { return };
    if installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh").is_none() {
        return;
    }
    let home = Home::new();
    cloud.plant(&home);
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
    let agent = bare(&home, "http://127.0.0.1:9", "").env("AWS_EC2_METADATA_DISABLED", "true").start_unready();
    let reply = agent.client().get("/v1/secrets/db");
    assert_eq!(reply.status, 503);
    assert!(text(&reply).contains("no credentials") && text(&reply).contains("AWS_ACCESS_KEY_ID"), "{}", text(&reply));
    agent.stop();
}
