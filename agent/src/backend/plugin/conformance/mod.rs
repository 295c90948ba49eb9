//! What can be seen of a plug-in from the outside: the promises of docs/plugin-protocol.md, one after the other, on the
//! secrets that it has. It cannot be told to fail, so how it fails is seen only where anybody can make it fail.
//!
//! Nothing that this module returns holds a value.

mod looking;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::child::{Launch, Living, Running};
use super::conversation::Unanswered;
use super::keeper::{Greeting, Unusable, greet, in_words};
use super::longest_line;
use super::reply::{Declared, Outcome, PluginError};
use super::request::{Method, Params};

/// Requests at the same time, as many as an agent makes by default.
const PARALLELISM: usize = 8;

/// What to examine, and how.
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables on top of those that every plug-in gets.
    pub env: BTreeMap<String, String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Largest single value, in bytes.
    pub max_value: u64,
    /// Whether a secret may be made, changed and deleted.
    pub writes: bool,
}

/// How a promise fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, as far as can be seen.
    Passed,
    /// It is broken.
    Failed,
    /// It could not be looked at.
    Skipped,
}

impl Verdict {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One promise, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A short name for it.
    pub check: &'static str,
    /// How it fared.
    pub verdict: Verdict,
    /// What was seen, or why nothing was.
    pub what: String,
}

/// Why a promise is not kept, or cannot be looked at.
enum Not {
    Kept(String),
    Seen(String),
}

/// What was seen where the promise is kept.
type Look = Result<String, Not>;

fn broken<T>(what: impl Into<String>) -> Result<T, Not> {
    Err(Not::Kept(what.into()))
}

fn unseen<T>(why: impl Into<String>) -> Result<T, Not> {
    Err(Not::Seen(why.into()))
}

/// Examines a plug-in and returns a finding for every promise, in the order they were looked at. Blocks.
///
/// Errors: no runtime can be had.
pub fn examine(options: Options) -> std::io::Result<Vec<Finding>> {
    // One thread, ours: the plug-in dies with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut examiner = Examiner::new(options);
        examiner.all().await;
        examiner.findings
    }))
}

struct Examiner {
    launch: Launch,
    greeting: Greeting,
    living: Arc<Living>,
    writes: bool,
    /// The one that runs, and what it declared.
    running: Option<(Running, Declared)>,
    findings: Vec<Finding>,
    /// Of the moment: so that a name is one that nobody has.
    nonce: String,
    places: Semaphore,
}

impl Examiner {
    fn new(options: Options) -> Self {
        let Options { command, env, timeout, max_value, writes } = options;
        let launch = Launch {
            backend: "plugin-test".into(),
            command,
            env,
            longest_line: longest_line(max_value),
            patience: timeout,
            queue: PARALLELISM,
        };
        let mut nonce = [0; 6];
        // Without random bytes the name is only less likely to be free, which is looked at.
        let _ = getrandom::fill(&mut nonce);
        Self {
            launch,
            greeting: Greeting { max_value, parallelism: PARALLELISM, ..Greeting::default() },
            living: Arc::new(Living::new(0)),
            writes,
            running: None,
            findings: Vec::new(),
            nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
            places: Semaphore::new(PARALLELISM),
        }
    }

    fn note(&mut self, check: &'static str, look: Look) -> bool {
        let (verdict, what) = match look {
            Ok(what) => (Verdict::Passed, what),
            Err(Not::Kept(what)) => (Verdict::Failed, what),
            Err(Not::Seen(why)) => (Verdict::Skipped, why),
        };
        self.findings.push(Finding { check, verdict, what });
        verdict != Verdict::Failed
    }

    async fn all(&mut self) {
        let started = self.start().await;
        if !self.note("initialize", started) {
            return;
        }
        let listed = match self.list().await {
            Ok((listed, what)) => {
                self.note("list", Ok(what));
                listed
            }
            Err(not) => {
                self.note("list", Err(not));
                Vec::new()
            }
        };
        let described = self.describe(&listed).await;
        self.note("describe", described);
        let fetched = self.fetch(&listed).await;
        self.note("fetch", fetched);
        let absent = self.absent(&listed).await;
        self.note("absent", absent);
        let scopes = self.scopes(&listed).await;
        self.note("scopes", scopes);
        let unknown = self.unknown_method().await;
        self.note("unknown method", unknown);
        let large = self.large_line().await;
        self.note("large line", large);
        let concurrent = self.concurrent(&listed).await;
        self.note("concurrency", concurrent);
        if self.writes {
            self.write_all().await;
        } else {
            self.note("writes", unseen("not asked for: --writes makes a secret, changes it and deletes it"));
        }
        let ended = self.end().await;
        self.note("end", ended);
        let again = self.second_run(&listed).await;
        self.note("second run", again);
        self.running = None;
        self.until_gone().await;
    }

    async fn until_gone(&self) {
        // We hold the sender.
        let _ = self.living.subscribe().wait_for(|living| *living == 0).await;
    }

    async fn start(&mut self) -> Look {
        self.until_gone().await;
        let (running, declared) = greet(&self.launch, &self.greeting, &self.living).await.map_err(|why| match why {
            Unusable::Transient(what) | Unusable::Misconfigured(what) => Not::Kept(what),
            Unusable::Closed => Not::Kept("it could not be started".into()),
        })?;
        let name = declared.name.as_deref().unwrap_or("it");
        let version = declared.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let writes = [Method::Create, Method::Update, Method::Delete].map(Method::as_str);
        let methods: Vec<_> = writes.into_iter().filter(|method| declared.has(method)).collect();
        let methods = if methods.is_empty() { "no write".to_owned() } else { methods.join(", ") };
        let what = format!("{name}{version} declares {methods}");
        self.running = Some((running, declared));
        Ok(what)
    }

    fn declares(&self, method: Method) -> bool {
        self.running.as_ref().is_some_and(|(_, declared)| declared.has(method.as_str()))
    }

    /// Asks; a plug-in that has ended meanwhile is started again first.
    async fn ask(&mut self, method: Method, params: Params) -> Result<Result<Outcome, PluginError>, Not> {
        self.revive().await?;
        self.ask_running(method.as_str(), params).await
    }

    async fn revive(&mut self) -> Result<(), Not> {
        if self.running.as_ref().is_none_or(|(running, _)| running.conversation.over().is_some()) {
            self.running = None;
            self.start().await?;
        }
        Ok(())
    }

    async fn ask_running(&self, method: &str, params: Params) -> Result<Result<Outcome, PluginError>, Not> {
        // Never closed.
        let _place = self.places.acquire().await;
        let Some((running, _)) = &self.running else { return unseen("it does not run") };
        let answer = running.conversation.ask(method, params, self.launch.patience).await;
        answer.map_err(|unanswered| Not::Kept(missing(method, &unanswered)))
    }

    /// Closes its standard input, after which it is to end by itself.
    async fn end(&mut self) -> Look {
        self.revive().await?;
        let Some((running, _)) = self.running.take() else { return unseen("it does not run") };
        let began = tokio::time::Instant::now();
        drop(running);
        self.until_gone().await;
        if began.elapsed() >= super::child::GRACE {
            return broken("it did not end when its standard input was closed, and was killed");
        }
        Ok("it ended when its standard input was closed".into())
    }
}

fn missing(method: &str, unanswered: &Unanswered) -> String {
    match unanswered {
        Unanswered::TooLate(_) | Unanswered::TooLong => in_words(method, unanswered),
        Unanswered::Over(why) => format!("`{method}` was not answered: {why}"),
    }
}

/// Says in words what an error was that is not allowed here.
fn refused(method: Method, error: &PluginError) -> String {
    let said = if error.message.is_empty() { String::new() } else { format!(": {}", error.message) };
    format!("`{}` was answered with the error `{}`{said}", method.as_str(), error.class.as_str())
}
