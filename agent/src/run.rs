//! The agent from settings to a graceful stop: build the parts, serve, drain, wipe.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use keyside_config::ConfigError;
use keyside_config::settings::{ListenerSettings, Settings};
use rustix::thread::CapabilitySet;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::api::{Agent, Current};
use crate::audit::Audit;
use crate::backend::BackendError;
use crate::capacity::Capacity;
use crate::clock::Tick;
use crate::listen::activation::Inherited;
use crate::listen::{ListenError, Listener, default_path};
use crate::memory::drop_capabilities;
use crate::metrics::Metrics;
use crate::notify::Supervisor;
use crate::refresh;
use crate::reload::{self, Files, Loader, Reading};
use crate::resolver::Resolver;
use crate::scrape::ScrapeListener;
use crate::serve::{Hall, serve_embedded};
use crate::shutdown::Signals;
use crate::timer::Timer;

/// Mistakes of one reading that are told in the log.
const MOST_TOLD: usize = 100;

/// The name of the listener that `[agent] socket`, or a default path, stands for.
const OWN_LISTENER: &str = "agent";

/// How long threads that do blocking work are waited for in the very end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How the agent runs beside its settings.
#[derive(Default)]
pub struct RunOptions {
    /// Serve this one connection, as its peer's private agent, and nothing else: no listener, no polling, no reload.
    pub embedded: Option<OwnedFd>,
    /// Stop when the last client has left.
    pub exit_with_last_client: bool,
    /// `XDG_RUNTIME_DIR`, for the default socket path.
    pub runtime_directory: Option<PathBuf>,
    /// Sockets that were bound for us: each stands for the listener of its name, else for the agent's own.
    pub handed_over: Vec<Inherited>,
    /// `NOTIFY_SOCKET`: who is told of start, reload and stop.
    pub supervisor: Option<OsString>,
    /// Reads the configuration again, when a file of it has changed and at SIGHUP; without it, it is never read again.
    pub reload: Option<Loader>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A back-end's settings cannot work.
    #[error("{error}")]
    Backend {
        /// Its name.
        name: String,
        /// What is wrong.
        error: BackendError,
    },
    /// The audit log cannot be opened.
    #[error("cannot open the audit log `{}`: {source}", path.display())]
    Audit {
        /// Where.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A reload asks for what was given up for good.
    #[error("restart needed: {0} needs a right that the agent gave up when it started")]
    RestartNeeded(&'static str),
    /// The address for `/metrics` cannot be listened on.
    #[error("cannot listen on {address} for /metrics: {source}")]
    Metrics {
        /// As configured.
        address: SocketAddr,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The runtime or the signals.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The kernel's word.
        source: std::io::Error,
    },
}

impl StartError {
    fn audit(settings: &Settings, source: std::io::Error) -> Self {
        Self::Audit { path: settings.audit.path.clone().unwrap_or_default(), source }
    }

    /// Returns what to try.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Listen(error) => Some(error.hint()),
            Self::Backend { error, .. } => error.hint(),
            Self::Audit { .. } => Some("give [audit] path a file in a directory that the agent may write to"),
            Self::RestartNeeded(_) => Some("restart the agent to start with this configuration"),
            Self::Metrics { .. } => Some("give [metrics] listen an address of this host and a port that is free"),
            Self::System { .. } => None,
        }
    }

    /// Returns the exit code: 69 when another agent has the socket, else 78, since the configuration cannot work here.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(error) if error.is_in_use() => 69,
            Self::Metrics { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => 69,
            _ => 78,
        }
    }
}

/// Runs the agent until it is told to stop. Blocks.
pub fn run(settings: Settings, options: RunOptions) -> Result<(), StartError> {
    // One thread serves the socket: a step's own work needs the other cores, and crossing threads costs more than a
    // reply from memory. Back-ends that block bring threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "start the runtime", source })?;
    // As a task: waking the future that `block_on` itself runs costs the runtime a system call each time.
    let outcome = runtime.block_on(async { tokio::spawn(start(settings, options)).await });
    // A thread that hangs in a file system must not keep us from ending.
    runtime.shutdown_timeout(LAST_WAIT);
    outcome.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()))
}

#[cfg_attr(not(all(feature = "zenml-sql", feature = "local")), expect(unused_mut, reason = "nothing to add"))]
async fn start(mut settings: Settings, options: RunOptions) -> Result<(), StartError> {
    // Before the first socket: a stop during start-up must undo it like any other. Neither this runtime nor its signals
    // have a thread of their own.
    let (stop_sender, stop) = watch::channel(false);
    let (hang_up, hang_ups) = std::sync::mpsc::channel();
    let signals = Signals::catch().map_err(|source| StartError::System { what: "catch signals", source })?;
    let signals = tokio::spawn(signals.watch(stop_sender.clone(), hang_up));

    let capacity = Capacity::raise();
    let handed_over: Vec<_> =
        options.handed_over.iter().map(|socket| (socket.name.clone(), socket.path.clone())).collect();
    let places = Places { own_path: None, handed_over, runtime_directory: options.runtime_directory };
    let (places, listeners) = match &options.embedded {
        Some(_) => (places, Vec::new()),
        None => open_listeners(places, &settings, options.handed_over)?,
    };
    let scrape = if options.embedded.is_none() { bind_scrape(&settings)? } else { None };
    let audit_log = Audit::open_log(&settings.audit).map_err(|source| StartError::audit(&settings, source))?;
    let wanted: Vec<_> = listeners.iter().map(|listener| listener.settings.clone()).collect();
    let needed = needed_capabilities(&settings, &wanted);
    let permitted = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted);
    let given_up = permitted.difference(needed);
    drop_capabilities(needed).map_err(|source| StartError::System { what: "drop capabilities", source })?;

    // From here on there may be other threads.
    let audit = Audit::start(audit_log, settings.audit.required)
        .map_err(|source| StartError::System { what: "start the audit's writer", source })?;
    #[cfg(all(feature = "zenml-sql", feature = "local"))]
    crate::backend::discover::add_manager(&mut settings, &[]).await;
    let resolver = Resolver::open(&settings).map_err(|(name, error)| StartError::Backend { name, error })?;
    let lasting = Lasting {
        audit: Arc::new(audit),
        metrics: Arc::default(),
        connections: Arc::default(),
        started: Tick::now(),
        places,
        stop: stop_sender,
    };
    let current = Arc::new(Current::new(Arc::new(lasting.agent(Arc::new(resolver), &settings))));
    match options.embedded {
        Some(connection) => {
            drop(hang_ups);
            let stream = UnixStream::from(connection);
            let polls = tokio::spawn(poll_while_watched(
                Arc::clone(&current),
                settings.cache.poll_interval,
                settings.cache.jitter,
            ));
            let served = serve_embedded(Arc::clone(&current), stream, stop).await;
            polls.abort();
            let _ = polls.await;
            served.map_err(|source| StartError::System { what: "serve the given connection", source })?;
        }
        None => {
            let timer =
                Arc::new(Timer::start().map_err(|source| StartError::System { what: "start the timer", source })?);
            let hall = Hall::new(Arc::clone(&current), Arc::clone(&timer), capacity);
            listeners.into_iter().for_each(|listener| hall.open(listener));
            let supervisor = Arc::new(Supervisor::at(options.supervisor.as_deref()));
            supervisor.ready();
            tokio::spawn(tell_of_the_stop(Arc::clone(&supervisor), stop.clone()));
            let readings = match options.reload {
                Some(load) => Some(
                    keep_reading(load, Files::look_at(settings.files.clone()), hang_ups)
                        .map_err(|source| StartError::System { what: "watch the configuration", source })?,
                ),
                None => None,
            };
            let polls = poll(&current, &timer, &settings);
            let scrape = scrape.map(|scrape| tokio::spawn(scrape.serve(Arc::clone(&current), Arc::clone(&timer))));
            let house = House {
                lasting,
                current: Arc::clone(&current),
                hall: Arc::clone(&hall),
                timer,
                settings,
                supervisor,
                given_up,
                polls,
                scrape,
            };
            let reloads = tokio::spawn(house.keep(readings));
            hall.serve(stop, options.exit_with_last_client).await;
            reloads.abort();
            let _ = reloads.await;
        }
    }
    let agent = current.agent();
    drop(current);
    agent.resolver.close().await;
    signals.abort();
    agent.audit.close();
    tracing::info!("stopped");
    Ok(())
}

/// What outlives every reload.
struct Lasting {
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    connections: Arc<AtomicU64>,
    started: Tick,
    places: Places,
    stop: watch::Sender<bool>,
}

/// Where the sockets are that no setting places.
struct Places {
    /// The default path of the agent's own socket, once it had to be chosen.
    own_path: Option<PathBuf>,
    /// What was handed over: the name it came with, and where it is bound.
    handed_over: Vec<(String, PathBuf)>,
    /// `XDG_RUNTIME_DIR`.
    runtime_directory: Option<PathBuf>,
}

impl Lasting {
    fn agent(&self, resolver: Arc<Resolver>, settings: &Settings) -> Agent {
        let listeners = self.places.wanted_listeners(settings);
        let rules = listeners.iter().map(|listener| (listener.name.clone(), listener.grants.clone())).collect();
        Agent {
            resolver,
            access: Access::new(rustix::process::geteuid().as_raw(), settings.grants.clone(), rules),
            audit: Arc::clone(&self.audit),
            limits: settings.limits.clone(),
            level: settings.agent.validation_level,
            request_timeout: settings.agent.request_timeout,
            started: self.started,
            listeners: listeners.iter().map(|listener| listener.path.display().to_string()).collect(),
            connections: Arc::clone(&self.connections),
            max_cache_bytes: settings.cache.max_bytes,
            metrics: Arc::clone(&self.metrics),
            stop: self.stop.clone(),
        }
    }
}

/// The agent in its running parts, to which a reload is applied.
struct House {
    lasting: Lasting,
    current: Arc<Current>,
    hall: Arc<Hall>,
    timer: Arc<Timer>,
    settings: Settings,
    supervisor: Arc<Supervisor>,
    given_up: CapabilitySet,
    polls: JoinHandle<()>,
    scrape: Option<JoinHandle<()>>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.polls.abort();
        self.scrape.iter().for_each(JoinHandle::abort);
    }
}

impl House {
    /// Applies what is read again, until dropped.
    async fn keep(mut self, readings: Option<UnboundedReceiver<Reading>>) {
        let Some(mut readings) = readings else { return std::future::pending().await };
        while let Some(Reading { result, asked }) = readings.recv().await {
            let put_in_force = self.put_in_force(result, asked).await;
            self.lasting.metrics.reloaded(put_in_force);
            // At SIGHUP the log may have been moved away, whatever the configuration is like.
            if asked && !put_in_force {
                self.reopen_audit();
            }
        }
        std::future::pending().await
    }

    /// Adds the back-ends that only other back-ends can tell of.
    #[cfg(all(feature = "zenml-sql", feature = "local"))]
    async fn completed(&self, mut settings: Settings) -> Settings {
        crate::backend::discover::add_manager(&mut settings, &self.settings.backends).await;
        settings
    }

    #[cfg(not(all(feature = "zenml-sql", feature = "local")))]
    async fn completed(&self, settings: Settings) -> Settings {
        settings
    }

    /// Applies one reading and says how that went; false when all is as it was.
    async fn put_in_force(&mut self, result: Result<Settings, ConfigError>, asked: bool) -> bool {
        let settings = match result {
            Ok(settings) => self.completed(settings).await,
            Err(error) => {
                for mistake in error.mistakes.iter().take(MOST_TOLD) {
                    tracing::error!(hint = mistake.hint, "configuration: {mistake}");
                }
                let mistakes = error.mistakes.len();
                let hint = "`keyside agent --check-config` lists all of them";
                tracing::error!(mistakes, hint, "the configuration has mistakes: the one before stays in force");
                return false;
            }
        };
        self.supervisor.reloading();
        let applied = self.apply(settings).await;
        self.supervisor.ready();
        if let Err(error) = applied {
            let hint = error.hint().unwrap_or("correct it, or restart the agent to start with it");
            tracing::error!(%error, hint, "the configuration cannot be put in force: the one before stays");
            return false;
        }
        tracing::info!(asked, from = self.settings.sources.join("; "), "configuration reloaded");
        true
    }

    fn reopen_audit(&self) {
        let settings = &self.settings.audit;
        match self.lasting.audit.open_anew(settings) {
            Ok(log) => self.lasting.audit.go_on(log, settings.required),
            Err(source) => {
                let error = StartError::audit(&self.settings, source);
                let hint = error.hint().unwrap_or_default();
                tracing::error!(%error, hint, "the audit log cannot be opened anew: the one before stays in use");
            }
        }
    }

    /// Puts `settings` in force, wholly or not at all.
    async fn apply(&mut self, settings: Settings) -> Result<(), StartError> {
        self.lasting.places.choose_own_path(&settings)?;
        let wanted = self.lasting.places.wanted_listeners(&settings);
        let missing = needed_capabilities(&settings, &wanted).intersection(self.given_up);
        if missing.contains(CapabilitySet::SYS_PTRACE) {
            return Err(StartError::RestartNeeded("a grant by `exe`"));
        }
        if missing.contains(CapabilitySet::CHOWN) {
            return Err(StartError::RestartNeeded("the group of a socket"));
        }
        let open = self.hall.open_settings();
        let mut fresh = Vec::new();
        for listener in &wanted {
            if !open.iter().any(|other| other.path == listener.path) {
                fresh.push(Listener::open(listener.clone())?);
            }
        }
        let agent = self.current.agent();
        let heir = agent
            .resolver
            .heir(&self.settings, &settings)
            .map_err(|(name, error)| StartError::Backend { name, error })?;
        let audit_log =
            self.lasting.audit.open_anew(&settings.audit).map_err(|source| StartError::audit(&settings, source))?;
        let moves = settings.metrics != self.settings.metrics;
        let scrape = match if moves { bind_scrape(&settings) } else { Ok(None) } {
            Err(StartError::Metrics { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(StartError::RestartNeeded("the port for /metrics"));
            }
            bound => bound?,
        };
        self.adjust(&open, &wanted)?;

        // Nothing below can fail.
        let agent = self.lasting.agent(heir.enter(), &settings);
        self.current.replace(Arc::new(agent));
        self.current.agent().resolver.watches().reloaded();
        for gone in open.iter().filter(|open| !wanted.iter().any(|wanted| wanted.path == open.path)) {
            self.hall.close(&gone.path).await;
        }
        fresh.into_iter().for_each(|listener| self.hall.open(listener));
        self.polls.abort();
        self.polls = poll(&self.current, &self.timer, &settings);
        self.lasting.audit.go_on(audit_log, settings.audit.required);
        if moves {
            self.scrape.iter().for_each(JoinHandle::abort);
            let serve = |scrape: ScrapeListener| scrape.serve(Arc::clone(&self.current), Arc::clone(&self.timer));
            self.scrape = scrape.map(|scrape| tokio::spawn(serve(scrape)));
        }
        self.settings = settings;
        Ok(())
    }

    /// Gives the sockets that stay their new names, modes and groups, or leaves all as they were.
    fn adjust(&self, open: &[ListenerSettings], wanted: &[ListenerSettings]) -> Result<(), StartError> {
        let staying = |path: &Path| open.iter().find(|open| open.path == path);
        let changed = wanted.iter().filter(|wanted| staying(&wanted.path).is_some_and(|open| open != *wanted));
        let mut done: Vec<&Path> = Vec::new();
        for listener in changed {
            if let Err(error) = self.hall.adjust(listener) {
                for path in done {
                    if let Some(before) = staying(path)
                        && let Err(error) = self.hall.adjust(before)
                    {
                        tracing::error!(%error, "a socket could not be given back what it had");
                    }
                }
                return Err(error.into());
            }
            done.push(&listener.path);
        }
        Ok(())
    }
}

/// Listens for scrapers, where the configuration asks for it.
fn bind_scrape(settings: &Settings) -> Result<Option<ScrapeListener>, StartError> {
    let bind = |address| ScrapeListener::bind(address).map_err(|source| StartError::Metrics { address, source });
    settings.metrics.listen.map(bind).transpose()
}

/// A private agent polls for nobody but a client that watches: that one stays.
async fn poll_while_watched(current: Arc<Current>, interval: Duration, jitter: f64) {
    let resolver = Arc::clone(&current.agent().resolver);
    drop(current);
    resolver.watches().first().await;
    match Timer::start() {
        Ok(timer) => refresh::run(resolver, Arc::new(timer), interval, jitter).await,
        Err(error) => tracing::error!(%error, "changes are not noticed: no thread can be had for waiting"),
    }
}

fn poll(current: &Current, timer: &Arc<Timer>, settings: &Settings) -> JoinHandle<()> {
    let cache = &settings.cache;
    let resolver = Arc::clone(&current.agent().resolver);
    tokio::spawn(refresh::run(resolver, Arc::clone(timer), cache.poll_interval, cache.jitter))
}

/// Starts the thread that reads the configuration again.
fn keep_reading(
    load: Loader,
    files: Files,
    hang_ups: std::sync::mpsc::Receiver<()>,
) -> std::io::Result<UnboundedReceiver<Reading>> {
    let (send, readings) = unbounded_channel();
    std::thread::Builder::new()
        .name("configuration".to_owned())
        .spawn(move || reload::watch(&load, files, &hang_ups, &send))?;
    Ok(readings)
}

/// Opens every listener that is wanted; what was handed over is taken as it is.
fn open_listeners(
    mut places: Places,
    settings: &Settings,
    mut handed_over: Vec<Inherited>,
) -> Result<(Places, Vec<Listener>), StartError> {
    places.choose_own_path(settings)?;
    let mut listeners = Vec::new();
    for wanted in places.wanted_listeners(settings) {
        let handed = handed_over.iter().position(|socket| socket.path == wanted.path);
        listeners.push(match handed.map(|at| handed_over.swap_remove(at)) {
            None => Listener::open(wanted)?,
            Some(socket) => Listener::inherited(wanted, socket.listener)
                .map_err(|source| StartError::System { what: "listen on the socket that was handed over", source })?,
        });
    }
    Ok((places, listeners))
}

impl Places {
    /// Chooses the default path the first time that nothing names the agent's own socket: additional listeners do not
    /// stand in for it.
    fn choose_own_path(&mut self, settings: &Settings) -> Result<(), StartError> {
        let is_named = self.own_path.is_some()
            || settings.agent.listeners.iter().any(|listener| listener.name == OWN_LISTENER)
            || self.handed_over.iter().any(|(name, _)| listener_of(settings, name) == OWN_LISTENER);
        if !is_named {
            self.own_path = Some(default_path(self.runtime_directory.as_deref())?);
        }
        Ok(())
    }

    /// Returns every listener there is to be, the agent's own first. One that was handed over takes the place of the
    /// path that its settings name.
    fn wanted_listeners(&self, settings: &Settings) -> Vec<ListenerSettings> {
        let configured = &settings.agent.listeners;
        let own = |path: &Path| {
            let (mode, group) = (settings.agent.socket_mode, settings.agent.socket_group.clone());
            ListenerSettings { name: OWN_LISTENER.to_owned(), path: path.to_path_buf(), mode, group, grants: None }
        };
        let mut wanted: Vec<ListenerSettings> = Vec::new();
        for (name, path) in &self.handed_over {
            let name = listener_of(settings, name);
            let as_configured = configured.iter().find(|listener| listener.name == name).cloned();
            wanted.push(ListenerSettings { path: path.clone(), ..as_configured.unwrap_or_else(|| own(path)) });
        }
        for listener in configured {
            if !wanted.iter().any(|handed| handed.name == listener.name) {
                wanted.push(listener.clone());
            }
        }
        if let Some(path) = &self.own_path
            && !wanted.iter().any(|listener| listener.name == OWN_LISTENER)
        {
            wanted.push(own(path));
        }
        wanted.sort_by_key(|listener| listener.name != OWN_LISTENER);
        wanted
    }
}

/// Returns the listener that a socket which came with this name stands for.
fn listener_of<'a>(settings: &Settings, name: &'a str) -> &'a str {
    if settings.agent.listeners.iter().any(|listener| listener.name == name) { name } else { OWN_LISTENER }
}

/// Says which rights the agent goes on to need.
fn needed_capabilities(settings: &Settings, listeners: &[ListenerSettings]) -> CapabilitySet {
    let mut needed = CapabilitySet::empty();
    // A socket that vanishes is made again with its group.
    needed.set(CapabilitySet::CHOWN, listeners.iter().any(|listener| listener.group.is_some()));
    // Which program a peer runs is not for everybody to see; our own programs are not dumpable.
    needed.set(CapabilitySet::SYS_PTRACE, settings.grants.iter().any(|grant| !grant.exes.is_empty()));
    needed
}

async fn tell_of_the_stop(supervisor: Arc<Supervisor>, mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        supervisor.stopping();
    }
}
