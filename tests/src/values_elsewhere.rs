//! The real ZenML with names in its tables and their values elsewhere: one scenario for every place that holds values.
//! The place itself is the test's to start and to break.

use serde_json::json;

use crate::agent::AgentBuilder;
use crate::eventually::eventually;
use crate::home::Home;
use crate::zenml::Zenml;

/// ZenML's backup in the tables, with a key of its own.
const BACKUP: [(&str, &str); 2] =
    [("ZENML_BACKUP_SECRETS_STORE_TYPE", "sql"), ("ZENML_BACKUP_SECRETS_STORE_ENCRYPTION_KEY", BACKUP_KEY)];

const BACKUP_KEY: &str = "ein Schlüssel";

/// A store of ZenML whose values lie elsewhere.
pub struct ValuesElsewhere<'h> {
    home: &'h Home,
    /// Where the tables lie.
    url: String,
    /// The program of the peers that drives ZenML, and its arguments.
    program: Vec<String>,
    /// What ZenML is told of the place of the values.
    variables: Vec<(String, String)>,
    /// The table of a back-end `cloud` and the variables of its login, where the agent is not told what ZenML is.
    cloud: Option<(String, Vec<(String, String)>)>,
}

impl<'h> ValuesElsewhere<'h> {
    /// A store in an SQLite file. `variables` name the place of the values, to ZenML and to the agent.
    pub fn new(home: &'h Home, program: &[&str], variables: &[(&str, String)]) -> Self {
        let data_base = home.fresh("names.db");
        home.holds_values(&data_base);
        home.watch_for(BACKUP_KEY);
        let url = format!("sqlite:///{}", data_base.display());
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let program = program.iter().map(|word| (*word).to_owned()).collect();
        Self { home, url, program, variables, cloud: None }
    }

    /// The same with ZenML's tables at `url`.
    #[must_use]
    pub fn at(mut self, url: &str) -> Self {
        self.url = url.to_owned();
        self
    }

    /// The same for a place that ZenML's own settings cannot name: `table` tells the agent of the back-end `cloud`, and
    /// these variables how to log in there.
    #[must_use]
    pub fn with_cloud(mut self, table: &str, login: &[(&str, &str)]) -> Self {
        let login = login.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.cloud = Some((table.to_owned(), login));
        self
    }

    /// ZenML writes names and values, and later a secret with a copy in its tables; the agent reads all that without a
    /// backup. Returns whether ZenML is installed.
    pub fn is_written_and_read(&self) -> bool {
        let home = self.home;
        let Some(mut zenml) = self.zenml(&[]) else { return false };
        let values = json!({ "value": home.canary(), "unicode": "значение 🔐\r\n", "empty": "" });
        zenml.create("db", &values);
        zenml.create_private("mine", &json!({ "value": home.canary(), "kind": "private" }));
        zenml.create("gone", &json!({ "value": "x" }));

        let agent = self.agent(false).env("KEYSIDE_CACHE__TTL", "1s").start();
        let mut client = agent.client();
        assert_eq!(client.secret("db").expect(200).json()["values"], values);
        assert_eq!(client.value("mine", "kind").expect(200).body, b"private");
        client.secret("absent").expect_problem(404, "secret_not_found");
        zenml.update("db", &json!({ "empty": "no more" }), &["unicode"]);
        eventually("what ZenML changed is served", || {
            let served = client.secret("db").expect(200).json();
            (served["values"] == json!({ "value": home.canary(), "empty": "no more" })).then_some(())
        });
        zenml.delete("gone");
        eventually("what ZenML deleted is gone", || (client.secret("gone").status == 404).then_some(()));
        drop(client);
        assert!(agent.stop().success());
        drop(zenml);

        let mut zenml = self.zenml(&BACKUP).expect("it was there a moment ago");
        zenml.create("copied", &json!({ "value": home.canary(), "unicode": "🔐" }));
        true
    }

    /// The place is broken by now: the copy in the tables is read, and what has none is refused with `status` and `code`.
    pub fn copies_are_read(&self, status: u16, code: &str) {
        self.copies_are_read_by(self.agent(true), status, code);
    }

    /// The same with an agent that was told more.
    pub fn copies_are_read_by(&self, agent: AgentBuilder<'h>, status: u16, code: &str) {
        let agent = agent.start_unready();
        let mut client = agent.client();
        let copied = client.secret("copied").expect(200).json();
        assert_eq!(copied["values"], json!({ "value": self.home.canary(), "unicode": "🔐" }));
        assert!(agent.log().contains("values are read from the backup"), "{}", agent.log());
        // Written while ZenML had no backup: its row has no values.
        client.secret("db").expect_problem(status, code);
        assert!(agent.log().contains("the backup does not have them either"), "{}", agent.log());
        drop(client);
        assert!(agent.stop().success());
    }

    /// An agent that is told what ZenML is told.
    pub fn agent(&self, has_backup: bool) -> AgentBuilder<'h> {
        let agent = self.home.agent();
        let Some((cloud, login)) = &self.cloud else {
            let more: &[_] = if has_backup { &BACKUP } else { &[] };
            return self.told(more).into_iter().fold(agent, |agent, (name, value)| agent.env(name, value));
        };
        let backup = if has_backup { "backup = \"store\"\nencryption_key_env = \"BACKUP_KEY\"\n" } else { "" };
        let store = format!(
            "[backend.store]\ntype = \"zenml-sql\"\nurl = \"{}\"\nuser = \"default\"\nvalues = \"cloud\"\n{backup}",
            self.url
        );
        let agent = agent.config(&format!("{store}{cloud}")).env("BACKUP_KEY", BACKUP_KEY);
        login.iter().fold(agent, |agent, (name, value)| agent.env(name, value))
    }

    fn zenml(&self, more: &[(&'static str, &'static str)]) -> Option<Zenml> {
        let program: Vec<_> = self.program.iter().map(String::as_str).collect();
        Zenml::start_program(self.home, &program, &self.told(more))
    }

    /// The variables that ZenML has, and `more`.
    fn told(&self, more: &[(&'static str, &'static str)]) -> Vec<(&str, &str)> {
        let own = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        std::iter::once(("ZENML_STORE_URL", self.url.as_str())).chain(own).chain(more.iter().copied()).collect()
    }
}
