//! Azure Key Vault: the real agent and wrapper on the fake vault, which Microsoft's own client passes as well.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use keyside_tests::programs::package;
use keyside_tests::remark::remark;
use keyside_tests::run::Run;
use keyside_tests::values_elsewhere::ValuesElsewhere;
use keyside_tests::{Agent, Home};
use serde_json::json;

/// A running vault; ended when it is dropped.
struct Vault {
    child: Child,
    url: String,
    place: PathBuf,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Vault {
    /// Starts one; none, and a word on stderr, where it is not installed.
    fn start() -> Option<Self> {
        let Some(place) = std::env::var_os("KEYSIDE_AZURE").map(PathBuf::from) else {
            remark("skipped: the fake vault: KEYSIDE_AZURE does not say where tests/peers/install-azure.sh put it");
            return None;
        };
        let mut child = Command::new(place.join("bin/python"))
            .arg(package().join("peers/azure_fake.py"))
            .args([place.join("server.pem"), place.join("server.key")])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("https://localhost:{}", line.trim().strip_prefix("port ").unwrap());
        Some(Self { child, url, place })
    }

    fn official<'h>(&self, home: &'h Home) -> Run<'h> {
        Run::new(home, self.place.join("bin/python"))
            .arg(package().join("peers/azure_official_client.py"))
            .arg(&self.url)
            .arg(self.place.join("ca.pem"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }

    fn set(&self, home: &Home, name: &str, value: &str) {
        self.official(home).args(["set", name]).stdin(value).end().expect_code(0);
    }

    fn config(&self, keys: &str) -> String {
        self.tables("vault", "plain", &format!("prefix = \"ml-\"\n{keys}"))
    }

    fn tables(&self, name: &str, layout: &str, keys: &str) -> String {
        let (url, ca) = (&self.url, self.place.join("ca.pem"));
        format!(
            "[backend.{name}]\ntype = \"azure\"\nvault_url = \"{url}\"\nauthority = \"{url}\"\nca_file = \"{}\"\n\
             layout = \"{layout}\"\n{keys}\n",
            ca.display()
        )
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program called `az` that prints a token, in a directory of its own.
fn command_line(home: &Home, vault: &Vault) -> PathBuf {
    let directory = home.fresh("azure-cli");
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("az");
    let client = package().join("peers/azure_official_client.py");
    let (python, ca) = (vault.place.join("bin/python"), vault.place.join("ca.pem"));
    let words = [&python, &client, &PathBuf::from(&vault.url), &ca].map(|word| format!("'{}'", word.display()));
    std::fs::write(&program, format!("#!/bin/sh\nexec {} token\n", words.join(" "))).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn a_value_is_read_by_each_login_on_real_azure() {
    let home = Home::new();
    let Some(vault) = Vault::start() else { return };
    vault.set(&home, "ml-db", &json!({ "password": home.canary(), "port": 5432 }).to_string());
    let service_account = home.write("service-account-token", "right");
    let path = format!("{}:/usr/bin:/bin", command_line(&home, &vault).display());
    let check = |what: &str, agent: Agent<'_>| {
        let mut client = agent.client();
        let reply = client.value("db", "password").expect(200);
        assert!(reply.body == home.canary().as_bytes(), "{what}: not the value");
        client.value("db", "port").expect(200);
        client.value("none", "password").expect_problem(404, "secret_not_found");
        assert!(agent.stop().success(), "{what}");
    };
    let principal = "client_id = \"client\"\ntenant_id = \"tenant\"\nclient_secret_env = \"VAULT_LOGIN\"";
    check("a service principal", home.agent().config(&vault.config(principal)).env("VAULT_LOGIN", "right").start());
    let environment = [("AZURE_CLIENT_ID", "client"), ("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_SECRET", "right")];
    let agent = home.agent().config(&vault.config(""));
    check("the environment", environment.iter().fold(agent, |agent, (name, value)| agent.env(name, value)).start());
    check(
        "a workload identity",
        home.agent()
            .config(&vault.config("client_id = \"client\"\ntenant_id = \"tenant\""))
            .env("AZURE_FEDERATED_TOKEN_FILE", &service_account)
            .start(),
    );
    check(
        "a managed identity",
        home.agent()
            .config(&vault.config("client_id = \"known\""))
            .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", &vault.url)
            .start(),
    );
    check(
        "the command line",
        home.agent()
            .config(&vault.config(""))
            // A machine whose metadata service knows no identity.
            .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "https://localhost:1")
            .env("PATH", &path)
            .start(),
    );
}

#[test]
fn a_step_is_checked_and_started_and_a_wrong_login_is_named_on_real_azure() {
    let home = Home::new();
    let Some(vault) = Vault::start() else { return };
    vault.set(&home, "ml-db", &json!({ "password": home.canary() }).to_string());
    let principal = "client_id = \"client\"\ntenant_id = \"tenant\"\nclient_secret_env = \"VAULT_LOGIN\"";
    let agent = home.agent().config(&vault.config(principal)).env("VAULT_LOGIN", "right").start();
    let found =
        home.keyside(["check", "--level", "SECRET_EXISTS", "db.password", "db_1.x"]).with(&agent).end().expect_code(1);
    let said = found.text();
    assert!(said.contains("secret_missing") && said.contains("letters, digits and `-` alone"), "{said}");
    let absent = agent.client().secret("db_1").expect_problem(404, "secret_not_found").json();
    assert!(absent["hint"].as_str().is_some_and(|hint| hint.contains("no secret can be called so")), "{absent}");
    home.keyside(["check", "db.password"]).with(&agent).end().expect_code(0);
    let script = format!("test \"$PASSWORD\" = '{}'", home.canary());
    let file = home.write("script", script);
    home.holds_values(&file);
    home.wrapper(["--env", "PASSWORD={{db.password}}", "--", "sh"]).arg(&file).with(&agent).end().expect_code(0);
    drop(agent);

    home.watch_for("wrong-client-secret");
    let agent = home.agent().config(&vault.config(principal)).env("VAULT_LOGIN", "wrong-client-secret").start_unready();
    let refused = agent.client().secret("db").expect(503);
    let text = String::from_utf8(refused.body).unwrap();
    assert!(text.contains("AADSTS7000215") && text.contains("VAULT_LOGIN"), "{text}");
}

/// One scenario, for starting ZenML costs more than all of it.
#[test]
fn what_zenml_keeps_in_key_vault_is_read_by_id_and_its_copies_when_that_fails_on_real_azure() {
    let home = Home::new();
    let Some(mut vault) = Vault::start() else { return };
    let (place, ca) = (vault.place.display().to_string(), vault.place.join("ca.pem").display().to_string());
    let store = ValuesElsewhere::new(
        &home,
        &["real_zenml_on_azure.py", &place, &vault.url, &ca],
        &[
            ("ZENML_SECRETS_STORE_TYPE", "azure".to_owned()),
            ("ZENML_SECRETS_STORE_KEY_VAULT_NAME", "unused".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_METHOD", "service-principal".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_CONFIG", "{}".to_owned()),
        ],
    );
    // ZenML's settings name a vault in Azure alone, so the agent is told by tables of its own.
    let principal = "client_id = \"client\"\ntenant_id = \"tenant\"\nclient_secret_env = \"VAULT_LOGIN\"";
    let store = store.with_cloud(&vault.tables("cloud", "store", principal), &[("VAULT_LOGIN", "right")]);
    if !store.is_written_and_read() {
        return;
    }
    vault.stop();
    store.copies_are_read(503, "backend_unavailable");
}
