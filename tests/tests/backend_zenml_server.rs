//! An agent in front of a real ZenML server: what the server's users do shows, and an outage does not.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use keyside_tests::eventually::eventually;
use keyside_tests::programs::package;
use keyside_tests::remark::remark;
use keyside_tests::run::Run;
use keyside_tests::{Client, Home};
use serde_json::{Value, json};

/// Of the user `trainer`.
const PASSWORD: &str = "correct-horse-battery-staple";

/// A real ZenML server on a copy of a data base of the fixtures; ends when it is dropped.
struct Server {
    child: Child,
    port: u16,
    token: String,
}

impl Server {
    /// Starts it. None, and a word on stderr, where ZenML is not installed.
    fn start(home: &Home) -> Option<Self> {
        const VARIABLE: &str = "KEYSIDE_ZENML_SERVER_PYTHON";
        let Some(python) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            remark(format_args!("skipped: {VARIABLE} does not say where the real ZenML is (./check.sh installs it)"));
            return None;
        };
        let (directory, log) = (home.join("zenml"), home.join("zenml.txt"));
        home.holds_values(&directory);
        // What ZenML itself prints is not ours to judge.
        home.holds_values(&log);
        let store = directory.join("local_stores/default_zen_store");
        fs::create_dir_all(&store).unwrap();
        fs::copy(package().join("fixtures/zenml/db/zenml-0.98.0-plain.db"), store.join("zenml.db")).unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut command = Run::new(home, python)
            .args(["-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .env("ZENML_CONFIG_PATH", &directory)
            .env("ZENML_ANALYTICS_OPT_IN", "false")
            .env("ZENML_SERVER", "true")
            .env("ZENML_SERVER_DEPLOYMENT_TYPE", "local")
            .env("ZENML_SERVER_AUTH_SCHEME", "OAUTH2_PASSWORD_BEARER")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .command();
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut server = Self { child: command.spawn().unwrap(), port, token: String::new() };
        let deadline = Instant::now() + Duration::from_secs(120);
        while server.exchange("GET", "/health", "text/plain", "").is_none_or(|(status, _)| status != 200) {
            let ended = server.child.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "{}", fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
        server.log_in("default", "");
        // The one who uses the server from here on, and the agent.
        home.watch_for(PASSWORD);
        let user = json!({ "name": "trainer", "password": PASSWORD, "active": true, "is_admin": false });
        server.ask("POST", "/users", &user);
        server.log_in("trainer", PASSWORD);
        Some(server)
    }

    fn log_in(&mut self, name: &str, password: &str) {
        let form = format!("username={name}&password={password}");
        let reply = self.exchange("POST", "/api/v1/login", "application/x-www-form-urlencoded", &form);
        let (status, reply) = reply.expect("a reply");
        assert_eq!(status, 200, "{reply}");
        self.token = reply["access_token"].as_str().unwrap().to_owned();
    }

    /// Makes a request as whoever logged in last; it must succeed.
    fn ask(&self, method: &str, target: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.exchange(method, &format!("/api/v1{target}"), "application/json", &body);
        let (status, reply) = reply.expect("a reply");
        assert_eq!(status, 200, "{method} {target}: {reply}");
        reply
    }

    /// One request on a connection of its own; none when nobody answers.
    fn exchange(&self, method: &str, target: &str, kind: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let status = reply.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = reply.split_once("\r\n\r\n")?;
        Some((status, serde_json::from_str(body).unwrap_or_default()))
    }

    fn create(&self, name: &str, private: bool, values: &Value) -> String {
        let secret = self.ask("POST", "/secrets", &json!({ "name": name, "private": private, "values": values }));
        secret["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One scenario, for starting a server costs more than all of it.
#[test]
fn what_users_of_a_server_do_shows_and_an_outage_does_not_on_real_zenml_server() {
    let home = Home::new();
    let Some(server) = Server::start(&home) else { return };
    let id = server.create("canary", false, &json!({ "value": home.canary(), "kind": "public" }));
    server.create("canary", true, &json!({ "value": home.canary(), "kind": "private" }));
    server.create("password", false, &json!({ "value": "one" }));
    let password = home.write("password", PASSWORD);
    home.holds_values(&password);
    let config = format!(
        "[cache]\npoll_interval = \"1s\"\nnegative_ttl = \"1h\"\n\
         [backend.store]\ntype = \"zenml-server\"\nurl = \"http://127.0.0.1:{}\"\nusername = \"trainer\"\n\
         password_file = \"{}\"\nwritable = true\n",
        server.port,
        password.display()
    );
    // Whatever the libraries under it have to say is searched, too.
    let agent = home.agent().env("KEYSIDE_LOG", "trace").config(&config).start();
    let mut client = agent.client();

    let secret = client.secret("canary").expect(200).json();
    assert_eq!((&secret["scope"], &secret["backend"]), (&json!("private"), &json!("store")));
    assert_eq!(client.value("canary", "value").expect(200).body, home.canary().as_bytes());
    let public = client.get("/v1/secrets/canary?scope=public").expect(200).json();
    assert_eq!((&public["id"], &public["values"]["kind"]), (&json!(id), &json!("public")));

    let check = |references: &[&str], level: &str, code: i32| {
        let check = home.keyside(["check", "--level", level]).args(references).with(&agent).end();
        check.expect_code(code)
    };
    check(&["canary.value", "password.value"], "SECRET_AND_KEY_EXISTS", 0);
    check(&["canary.nothing"], "SECRET_EXISTS", 0);
    check(&["canary.nothing"], "SECRET_AND_KEY_EXISTS", 1);
    check(&["canar.value"], "SECRET_EXISTS", 1);

    changes_show(&server, &mut client);
    writes_are_the_servers(&server, &mut client);
    an_outage_does_not_show(server, &mut client);
    assert!(agent.stop().success());
}

fn changes_show(server: &Server, client: &mut Client<'_>) {
    client.secret("new").expect_problem(404, "secret_not_found");
    let id = server.create("new", false, &json!({ "a": "1" }));
    eventually("what was created is served", || (client.value("new", "a").body == b"1").then_some(()));
    let change = json!({ "name": "new", "values": { "a": "2" } });
    server.ask("PUT", &format!("/secrets/{id}?patch_values=True"), &change);
    eventually("what was changed is served", || (client.value("new", "a").body == b"2").then_some(()));
    server.ask("DELETE", &format!("/secrets/{id}"), &Value::Null);
    eventually("what was deleted is gone", || (client.secret("new").status == 404).then_some(()));
}

fn writes_are_the_servers(server: &Server, client: &mut Client<'_>) {
    client.post("/v1/secrets", &json!({ "name": "written", "values": { "k": "v" } })).expect(201);
    let page = server.ask("GET", "/secrets?name=equals:written", &Value::Null);
    let id = page["items"][0]["id"].as_str().unwrap().to_owned();
    let values = |server: &Server| server.ask("GET", &format!("/secrets/{id}"), &Value::Null)["body"]["values"].clone();
    assert_eq!(values(server), json!({ "k": "v" }));
    let etag = client.secret("written").expect(200).header("etag").unwrap().to_owned();
    let change = json!({ "values": { "k": null, "n": "1" } });
    let headers = [("If-Match", etag.as_str())];
    client.request("PATCH", "/v1/secrets/written", &headers, Some(&change)).expect(200);
    assert_eq!(values(server), json!({ "n": "1" }));
    let again = client.request("PATCH", "/v1/secrets/written", &headers, Some(&json!({ "values": { "n": "2" } })));
    again.expect_problem(412, "precondition_failed");
    client.post("/v1/secrets", &json!({ "name": "written", "values": {} })).expect_problem(409, "conflict");
    client.request("DELETE", "/v1/secrets/written", &[], None);
    assert_eq!(server.ask("GET", "/secrets?name=equals:written", &Value::Null)["total"], json!(0));
}

fn an_outage_does_not_show(server: Server, client: &mut Client<'_>) {
    assert_eq!(client.value("password", "value").expect(200).body, b"one");
    drop(server);
    assert_eq!(client.value("password", "value").expect(200).body, b"one");
    client.secret("never-asked").expect_problem(503, "backend_unavailable");
}
