//! The agent from settings to a graceful stop: build the parts, serve, drain, wipe.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keyside_config::settings::{ListenerSettings, Settings};
use rustix::thread::CapabilitySet;
use tokio::sync::watch;

use crate::access::Access;
use crate::api::Agent;
use crate::audit::Audit;
use crate::backend::BackendError;
use crate::clock::Tick;
use crate::listen::{ListenError, Listener, default_path};
use crate::memory::drop_capabilities;
use crate::refresh;
use crate::resolver::Resolver;
use crate::serve::{serve, serve_embedded};
use crate::shutdown::Signals;
use crate::timer::Timer;

/// How the agent runs beside its settings.
#[derive(Default)]
pub struct RunOptions {
    /// Serve this one connection, as its peer's private agent, and nothing else: no listener, no polling.
    pub embedded: Option<OwnedFd>,
    /// Stop when the last client has left.
    pub exit_with_last_client: bool,
    /// `XDG_RUNTIME_DIR`, for the default socket path.
    pub runtime_directory: Option<PathBuf>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A back-end's settings cannot work.
    #[error("back-end `{name}`: {error}")]
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
    /// Returns what to try.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Listen(error) => Some(error.hint()),
            Self::Backend { error, .. } => error.hint(),
            Self::Audit { .. } => Some("give [audit] path a file in a directory that the agent may write to"),
            Self::System { .. } => None,
        }
    }

    /// Returns the exit code: 69 when another agent has the socket, else 78, since the configuration cannot work here.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(error) if error.is_in_use() => 69,
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
    runtime
        .block_on(async { tokio::spawn(start(settings, options)).await })
        .unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()))
}

async fn start(settings: Settings, options: RunOptions) -> Result<(), StartError> {
    // Before the first socket: a stop during start-up must undo it like any other. Neither this runtime nor its signals
    // have a thread of their own.
    let (stop_sender, stop) = watch::channel(false);
    let signals = Signals::catch().map_err(|source| StartError::System { what: "catch signals", source })?;
    let signals = tokio::spawn(signals.watch(stop_sender));

    let listeners = match &options.embedded {
        Some(_) => Vec::new(),
        None => open_listeners(&settings, options.runtime_directory)?,
    };
    let audit_log = Audit::open_log(&settings.audit)
        .map_err(|source| StartError::Audit { path: settings.audit.path.clone().unwrap_or_default(), source })?;
    // A socket that vanishes is made again with its group, so that right is kept.
    let with_group = listeners.iter().any(|listener| listener.settings.group.is_some());
    let kept = if with_group { CapabilitySet::CHOWN } else { CapabilitySet::empty() };
    drop_capabilities(kept).map_err(|source| StartError::System { what: "drop capabilities", source })?;

    // From here on there may be other threads.
    let audit = Audit::start(audit_log, settings.audit.required)
        .map_err(|source| StartError::System { what: "start the audit's writer", source })?;
    let resolver = Resolver::open(&settings).map_err(|(name, error)| StartError::Backend { name, error })?;
    let resolver = Arc::new(resolver);

    let agent = Arc::new(Agent {
        resolver: Arc::clone(&resolver),
        access: Access::new(rustix::process::geteuid().as_raw(), settings.grants),
        audit,
        limits: settings.limits,
        level: settings.agent.validation_level,
        request_timeout: settings.agent.request_timeout,
        started: Tick::now(),
        listeners: listeners.iter().map(|listener| listener.settings.path.display().to_string()).collect(),
        connections: AtomicU64::new(0),
        max_cache_bytes: settings.cache.max_bytes,
    });
    match options.embedded {
        Some(connection) => {
            let stream = UnixStream::from(connection);
            serve_embedded(Arc::clone(&agent), stream, stop)
                .await
                .map_err(|source| StartError::System { what: "serve the given connection", source })?;
        }
        None => {
            for listener in &listeners {
                tracing::info!(socket = %listener.settings.path.display(), "listening");
            }
            let cache = &settings.cache;
            let timer =
                Arc::new(Timer::start().map_err(|source| StartError::System { what: "start the timer", source })?);
            let polls = refresh::run(Arc::clone(&resolver), Arc::clone(&timer), cache.poll_interval, cache.jitter);
            let polls = tokio::spawn(polls);
            serve(Arc::clone(&agent), listeners, timer, stop, options.exit_with_last_client).await;
            polls.abort();
        }
    }
    resolver.close().await;
    signals.abort();
    if let Ok(agent) = Arc::try_unwrap(agent) {
        agent.audit.close();
    }
    tracing::info!("stopped");
    Ok(())
}

fn open_listeners(settings: &Settings, runtime_directory: Option<PathBuf>) -> Result<Vec<Listener>, StartError> {
    let mut wanted = settings.agent.listeners.clone();
    // Additional listeners do not stand in for the agent's own.
    if !wanted.iter().any(|listener| listener.name == "agent") {
        let path = default_path(runtime_directory.as_deref())?;
        let (mode, group) = (settings.agent.socket_mode, settings.agent.socket_group.clone());
        let defaults = ListenerSettings { name: "agent".to_owned(), path, mode, group, grants: None };
        wanted.insert(0, defaults);
    }
    let mut listeners = Vec::with_capacity(wanted.len());
    for listener in wanted {
        listeners.push(Listener::open(listener)?);
    }
    Ok(listeners)
}
