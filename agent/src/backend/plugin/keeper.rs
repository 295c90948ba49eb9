//! Keeps one plug-in running while it is wanted: started on first use, started again after a pause when it is gone, ended
//! for good at the close.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::child::{Launch, Living, Running};
use super::conversation::Unanswered;
use super::reply::{Class, Declared};
use super::request::{Method, PROTOCOL, Params};

/// The pause after the first failure is a random part of this; it doubles with each one after that.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A plug-in that ran for so long counts as one that works: the next pause is the first one again.
const PROBATION: Duration = Duration::from_secs(60);

/// A call waits for the end of a pause that is no longer than this; for a longer one it fails at once.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no plug-in to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Trying again may help.
    Transient(String),
    /// It cannot be executed, refuses to serve us or speaks another protocol.
    Misconfigured(String),
    /// The agent is stopping, or the back-end is configured no more.
    Closed,
}

/// A plug-in that has been greeted.
pub(super) struct Session {
    /// The process.
    pub running: Running,
    /// What it says of itself.
    pub declared: Declared,
    since: Instant,
}

/// One configured plug-in.
pub(super) struct Keeper {
    launch: Launch,
    greeting: Greeting,
    state: Mutex<State>,
    closing: watch::Sender<bool>,
    living: Arc<Living>,
}

/// What is said in `initialize` beside the protocol's version.
#[derive(Default, Clone)]
pub(super) struct Greeting {
    /// Largest single value, in bytes.
    pub max_value: u64,
    /// Requests that may be under way at the same time.
    pub parallelism: usize,
    /// `ca_file` of the settings.
    pub ca_file: Option<String>,
    /// `proxy` of the settings.
    pub proxy: Option<zeroize::Zeroizing<String>>,
    /// `no_proxy` of the settings.
    pub no_proxy: Option<String>,
}

#[derive(Default)]
struct State {
    now: Now,
    failures: u32,
    /// Why it is not running, and when it may be started again.
    pause: Option<(Instant, Unusable)>,
}

#[derive(Default)]
enum Now {
    #[default]
    Resting,
    Starting(watch::Receiver<bool>),
    Running(Arc<Session>),
}

/// What a caller has to do next.
enum Step {
    Use(Arc<Session>),
    WaitUntil(Instant),
    WaitFor(watch::Receiver<bool>),
}

impl Keeper {
    /// Starts nothing yet.
    pub(super) fn new(launch: Launch, greeting: Greeting) -> Arc<Self> {
        Arc::new(Self {
            launch,
            greeting,
            state: Mutex::default(),
            closing: watch::Sender::new(false),
            living: Arc::new(Living::new(0)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the running plug-in; starts it where there is none.
    ///
    /// Errors: why there is none now. Dropped, it leaves a start that is under way to its end.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Unusable> {
        let mut started = false;
        loop {
            match self.step(started)? {
                Step::Use(session) => return Ok(session),
                Step::WaitUntil(end) => sleep_until(end).await,
                Step::WaitFor(mut done) => {
                    started = true;
                    // An error says that the task that starts it is gone: so is the runtime.
                    done.wait_for(|done| *done).await.map_err(|_| Unusable::Closed)?;
                }
            }
        }
    }

    /// `started`: this caller has waited for a start already, and shares how that ended.
    fn step(self: &Arc<Self>, started: bool) -> Result<Step, Unusable> {
        let mut state = self.state();
        if *self.closing.borrow() {
            return Err(Unusable::Closed);
        }
        if let Now::Running(session) = &state.now {
            match session.running.conversation.over() {
                None => return Ok(Step::Use(Arc::clone(session))),
                Some(why) => {
                    let has_worked = session.since.elapsed() >= PROBATION;
                    state.failed(Unusable::Transient(why), has_worked);
                }
            }
        }
        if let Now::Starting(done) = &state.now {
            return Ok(Step::WaitFor(done.clone()));
        }
        if let Some((end, why)) = &state.pause {
            if started {
                return Err(why.clone());
            }
            let now = Instant::now();
            if *end > now + SHORT_PAUSE {
                return Err(why.clone());
            }
            if *end > now {
                return Ok(Step::WaitUntil(*end));
            }
        }
        let (done, receiver) = watch::channel(false);
        state.now = Now::Starting(receiver.clone());
        drop(state);
        tokio::spawn(Arc::clone(self).start(done));
        Ok(Step::WaitFor(receiver))
    }

    /// Starts and greets it; a task of its own, so that no caller that leaves cancels it.
    async fn start(self: Arc<Self>, done: watch::Sender<bool>) {
        let mut closing = self.closing.subscribe();
        let outcome = tokio::select! {
            outcome = self.greet() => outcome,
            _ = closing.wait_for(|closing| *closing) => Err(Unusable::Closed),
        };
        let mut state = self.state();
        match outcome {
            // Closed in between: it is dropped, and so ended.
            Ok(_) if *self.closing.borrow() => state.now = Now::Resting,
            Ok(session) => {
                state.pause = None;
                state.now = Now::Running(Arc::new(session));
            }
            Err(why) => state.failed(why, false),
        }
        drop(state);
        let _ = done.send(true);
    }

    async fn greet(&self) -> Result<Session, Unusable> {
        // Never two at the same time: it may hold what only one can have.
        let _ = self.living.subscribe().wait_for(|living| *living == 0).await;
        let (running, declared) = greet(&self.launch, &self.greeting, &self.living).await?;
        let backend = &self.launch.backend;
        let (name, version) = (declared.name.as_deref(), declared.version.as_deref());
        tracing::info!(backend, name, version, methods = ?declared.methods, "the plug-in has started");
        Ok(Session { running, declared, since: Instant::now() })
    }

    /// Ends the plug-in and waits until it is gone; further calls fail.
    pub(super) async fn close(&self) {
        self.abandon();
        let _ = self.living.subscribe().wait_for(|living| *living == 0).await;
    }

    /// Has the plug-in ended, and waits for nothing; further calls fail.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        self.closing.send_replace(true);
        let now = std::mem::take(&mut state.now);
        drop(state);
        // Whoever still waits for an answer holds the session; it is not to hold the process.
        if let Now::Running(session) = now {
            session.running.conversation.close();
        }
    }
}

impl State {
    fn failed(&mut self, why: Unusable, has_worked: bool) {
        if has_worked {
            self.failures = 0;
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        // Full jitter: agents that lost the same thing at the same time do not come back at the same time.
        let pause = longest.mul_f64(random_share());
        self.pause = Some((Instant::now() + pause, why));
        self.now = Now::Resting;
    }
}

impl Greeting {
    fn params(&self, backend: &str) -> Params {
        Params::new()
            .number("protocol", PROTOCOL)
            .text("client", concat!("keyside/", env!("CARGO_PKG_VERSION")))
            .text("backend", backend)
            .number("max_value", self.max_value)
            .number("parallelism", self.parallelism as u64)
            .optional("ca_file", self.ca_file.as_deref())
            .optional("proxy", self.proxy.as_ref().map(|proxy| proxy.as_str()))
            .optional("no_proxy", self.no_proxy.as_deref())
    }
}

/// Starts a plug-in and greets it.
pub(super) async fn greet(
    launch: &Launch,
    greeting: &Greeting,
    living: &Arc<Living>,
) -> Result<(Running, Declared), Unusable> {
    let program = launch.command.first().map_or("", String::as_str);
    let running = launch.start(living).map_err(|error| cannot_run(program, &error))?;
    let method = Method::Initialize.as_str();
    let answer = running.conversation.ask(method, greeting.params(&launch.backend), launch.patience).await;
    let outcome =
        answer.map_err(|unanswered| Unusable::Transient(in_words(method, &unanswered)))?.map_err(|error| {
            let what = format!("it answered `initialize` with {}: {}", error.class.as_str(), error.message);
            match error.class {
                Class::Transient => Unusable::Transient(what),
                Class::Denied | Class::Invalid | Class::NotFound => Unusable::Misconfigured(what),
            }
        })?;
    let malformed = || Unusable::Transient("its answer to `initialize` is not what the protocol promises".into());
    let declared = outcome.declared().map_err(|_| malformed())?;
    match declared.protocol {
        Some(other) if other != PROTOCOL => {
            Err(Unusable::Misconfigured(format!("it speaks version {other} of the protocol, not {PROTOCOL}")))
        }
        _ => Ok((running, declared)),
    }
}

/// From 0 to 1.
fn random_share() -> f64 {
    let mut bytes = [0; 4];
    // Without random bytes: the whole pause.
    getrandom::fill(&mut bytes).map_or(1.0, |()| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

fn cannot_run(program: &str, error: &std::io::Error) -> Unusable {
    let what = format!("`{program}` cannot be executed: {error}");
    match error.kind() {
        // Too many processes or open files, no memory: nothing that a setting says.
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory | std::io::ErrorKind::Other => {
            Unusable::Transient(what)
        }
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ETXTBSY)) => {
            Unusable::Transient(what)
        }
        _ => Unusable::Misconfigured(what),
    }
}

/// Says why a call got no answer.
pub(super) fn in_words(method: &str, unanswered: &Unanswered) -> String {
    match unanswered {
        Unanswered::TooLate(patience) => format!("it did not answer `{method}` within {patience:?}"),
        Unanswered::TooLong => format!("its answer to `{method}` is longer than any that is expected"),
        Unanswered::Over(why) => why.clone(),
    }
}
