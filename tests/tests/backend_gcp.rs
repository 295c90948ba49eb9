//! Secret Manager behind the real agent: logged in by the metadata server, read through the socket.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::run::Run;
use keyside_tests::values_elsewhere::ValuesElsewhere;
use keyside_tests::{Agent, Home, programs};
use serde_json::{Value, json};

/// A script of the peer's that ends with its standard input.
struct Script {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Script {
    fn start(home: &Home, python: &std::path::Path, name: &str, arguments: &[&str]) -> Self {
        let script = programs::package().join("peers").join(name);
        let mut command =
            Run::new(home, python.to_owned()).arg(script).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, answers }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stand-in of Secret Manager and of the metadata server.
struct Cloud<'h> {
    home: &'h Home,
    address: String,
    writer: Script,
    _server: Script,
}

impl<'h> Cloud<'h> {
    /// None, and a word on stderr, where it is not installed.
    fn start(home: &'h Home) -> Option<Self> {
        let Some(python) = std::env::var_os("KEYSIDE_GCP_PYTHON").map(PathBuf::from) else {
            remark("skipped: KEYSIDE_GCP_PYTHON is not set; tests/peers/install-gcp.sh prints what it should be");
            return None;
        };
        let mut server = Script::start(home, &python, "gcp_fake.py", &[]);
        let address = format!("127.0.0.1:{}", server.answer());
        let mut writer = Script::start(home, &python, "gcp_store.py", &[&format!("http://{address}")]);
        assert_eq!(writer.answer(), "ready");
        Some(Self { home, address, writer, _server: server })
    }

    fn put(&mut self, id: &str, labels: &Value, data: &str) {
        let order = json!({ "do": "put", "id": id, "labels": labels, "data": STANDARD.encode(data) });
        writeln!(self.writer.child.stdin.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.writer.answer(), "done");
    }

    /// Pulls one of its levers, or asks it.
    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head =
            format!("{method} /fake/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        serde_json::from_str(reply.split_once("\r\n\r\n").expect("a body").1).unwrap()
    }

    fn order(&self, order: &Value) {
        self.ask("POST", "order", &order.to_string());
    }

    fn calls(&self, method: &str) -> u64 {
        self.ask("GET", "calls", "")[method].as_u64().unwrap_or_default()
    }

    /// An agent that logs everything it has to say, and that a machine of Google's would log in.
    fn agent(&self, cache: &str, keys: &str) -> Agent<'h> {
        let endpoint = format!("http://{}", self.address);
        let backend = format!("[backend.cloud]\ntype = \"gcp\"\nproject = \"p\"\nendpoint = \"{endpoint}\"\n{keys}\n");
        let agent = self.home.agent().config(&format!("[cache]\n{cache}\n{backend}"));
        agent.env("GCE_METADATA_HOST", &self.address).env("KEYSIDE_LOG", "trace").start()
    }
}

#[test]
fn values_come_with_the_metadata_servers_login_and_survive_an_outage_on_real_gcp() {
    let home = Home::new();
    let Some(mut cloud) = Cloud::start(&home) else { return };
    cloud.put("prod-db", &json!({}), &json!({ "password": home.canary(), "port": 5432 }).to_string());
    cloud.put("test-db", &json!({}), "not for us");
    let agent = cloud.agent("ttl = \"0\"\nmax_stale = \"1h\"", "layout = \"plain\"\nprefix = \"prod-\"");
    let mut client = agent.client();
    assert_eq!(client.value("db", "password").expect(200).body, home.canary().as_bytes());
    assert_eq!(client.value("db", "port").expect(200).body, b"5432");
    client.secret("test-db").expect_problem(404, "secret_not_found");
    let names = client.get("/v1/secrets").expect(200).json();
    assert_eq!(names["secrets"].as_array().unwrap().len(), 1, "{names}");
    assert_eq!(cloud.calls("metadata"), 1, "one login for all");

    cloud.order(&json!({ "revoke": true }));
    eventually("the token was replaced", || {
        client.value("db", "password").expect(200);
        (cloud.calls("metadata") == 2).then_some(())
    });

    cloud.order(&json!({ "down": true }));
    eventually("the value is stale", || {
        let reply = client.value("db", "password").expect(200);
        assert_eq!(reply.body, home.canary().as_bytes());
        (reply.header("keyside-stale") == Some("true")).then_some(())
    });
    client.value("never", "there").expect_problem(503, "backend_unavailable");
    cloud.order(&json!({ "down": false }));
    eventually("the back-end answers again", || (client.value("never", "there").status == 404).then_some(()));

    cloud.order(&json!({ "deny": ["prod-db"] }));
    eventually("what is refused is served no more", || (client.value("db", "password").status == 403).then_some(()));
    agent.stop();
}

#[test]
fn many_cold_readers_cost_one_call_on_real_gcp() {
    const READERS: usize = 100;
    let home = Home::new();
    let Some(mut cloud) = Cloud::start(&home) else { return };
    cloud.put("db", &json!({}), &json!({ "password": home.canary() }).to_string());
    let agent = cloud.agent("", "layout = \"plain\"");
    cloud.order(&json!({ "hang": true }));
    thread::scope(|scope| {
        let socket = agent.socket();
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| keyside_tests::Client::connect(socket).value("db", "password").status))
            .collect();
        cloud.order(&json!({ "hang": false }));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 200);
        }
    });
    assert_eq!(cloud.calls("access_secret_version"), 1);
    agent.stop();
}

#[test]
fn checks_read_no_value_where_labels_tell_on_real_gcp() {
    let home = Home::new();
    let Some(mut cloud) = Cloud::start(&home) else { return };
    let labels = json!({ "zenml-group-key": "db", "zenml-schema-name": "arbitrary" });
    cloud.put("db_user", &labels, "admin");
    cloud.put("db_password", &labels, home.canary());
    let agent = cloud.agent("", "layout = \"manager\"");
    let mut client = agent.client();
    for (level, missing) in [("SECRET_EXISTS", "ok"), ("SECRET_AND_KEY_EXISTS", "key_missing")] {
        let order = json!({ "level": level, "references": ["{{db.user}}", "{{db.none}}", "{{none.user}}"] });
        let reply = client.post("/v1/check", &order).expect(200).json();
        let statuses: Vec<_> = reply["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
        assert_eq!(statuses, [&json!("ok"), &json!(missing), &json!("secret_missing")], "{level}");
    }
    assert_eq!(cloud.calls("access_secret_version"), 0);
    assert_eq!(client.value("db", "password").expect(200).body, home.canary().as_bytes());
    assert_eq!(cloud.calls("access_secret_version"), 2, "one for each key");
    agent.stop();
}

/// One scenario, for starting ZenML costs more than all of it.
#[test]
fn what_zenml_keeps_in_secret_manager_is_read_by_id_and_its_copies_when_that_fails_on_real_gcp() {
    let home = Home::new();
    let Some(cloud) = Cloud::start(&home) else { return };
    let python = PathBuf::from(std::env::var_os("KEYSIDE_GCP_PYTHON").unwrap());
    let place = python.ancestors().nth(2).unwrap().display().to_string();
    let endpoint = format!("http://{}", cloud.address);
    let store = ValuesElsewhere::new(
        &home,
        &["real_zenml_on_gcp.py", &place, &endpoint],
        &[
            ("ZENML_SECRETS_STORE_TYPE", "gcp".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_METHOD", "implicit".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_CONFIG", json!({ "project_id": "p" }).to_string()),
        ],
    );
    // The connector of ZenML knows no address but Google's, so the agent is told by tables of its own.
    let table = format!("[backend.cloud]\ntype = \"gcp\"\nproject = \"p\"\nendpoint = \"{endpoint}\"\n");
    let store = store.with_cloud(&table, &[("GCE_METADATA_HOST", &cloud.address)]);
    if !store.is_written_and_read() {
        return;
    }
    cloud.order(&json!({ "down": true }));
    store.copies_are_read(503, "backend_unavailable");
}
