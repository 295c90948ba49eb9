//! A connection to the agent: on its socket, or to a private one (embedded mode), by the same rule as the wrapper's.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyside_config::{ConfigError, Environment, LoadRequest};
use keyside_exec_wrapper::client::{ClientError, Reply, encode_segment};
use keyside_exec_wrapper::connect::{self, ConnectError, Connection};
use keyside_exec_wrapper::profile;
use keyside_exec_wrapper::socket::{Located, locate};
use keyside_exec_wrapper::stream::Lines;
use keyside_exec_wrapper::{AgentMode, Globals as WrapperGlobals};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{AgentArg, LogFormat};
use crate::exit::{Exit, Failure, of_problem};
use crate::globals::Globals;
use crate::output::printable;

/// How long one request may take; the agent's own deadline comes first.
const REQUEST: Duration = Duration::from_secs(15);

/// How long a question about the agent itself may take, which it answers from memory: short enough for a probe.
pub const PROBE: Duration = Duration::from_secs(3);

/// A connected agent. Ended with [`end`](Self::end), or when dropped.
pub struct Session {
    connection: Option<Connection>,
    /// How long the agent may take to answer a question about itself; none: every answer may need a back-end.
    probe: Option<Duration>,
}

impl Session {
    /// Connects for a command that may start a private agent when there is no socket.
    ///
    /// Errors: nobody to connect to (69), a configuration that cannot be read (78).
    pub fn open(globals: &Globals) -> Result<Self, Failure> {
        connect(globals, &for_wrapper(globals)?, Duration::ZERO)
    }

    /// Connects for a command about a running agent: a private one would only tell of itself.
    ///
    /// Errors: as [`open`](Self::open); `--agent embedded` makes no sense here (2).
    pub fn of_running(globals: &Globals, wait: Duration) -> Result<Self, Failure> {
        if globals.agent == Some(AgentArg::Embedded) {
            return Err(Failure::usage("this command asks a running agent; `--agent embedded` starts one for itself")
                .hint("leave `--agent` away, or name the agent's socket with --socket"));
        }
        let mut wrapper = for_wrapper(globals)?;
        wrapper.embedded = None;
        wrapper.agent = Some(AgentMode::Socket);
        connect(globals, &wrapper, wait)
    }

    /// Has every request be about the agent itself, which must answer `within` this.
    #[must_use]
    pub fn probing(mut self, within: Duration) -> Self {
        self.probe = Some(within);
        self
    }

    /// Sends one request and returns any reply.
    ///
    /// Errors: no answer (69). `doing` says what was attempted, such as "read secret `db`".
    pub fn send(
        &mut self,
        doing: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply, Failure> {
        let connection = self.connection.as_mut().expect("a session is used before its end");
        let deadline = self.probe.unwrap_or(REQUEST);
        connection.client().send(method, target, headers, body, deadline).map_err(|error| {
            let mut failure = no_answer(doing, &error);
            if self.probe.is_some() && matches!(error, ClientError::TimedOut { .. }) {
                // No back-end is asked for this answer.
                failure.hint = Some("its process may be stopped or the host overloaded: look at it and its log".into());
            }
            failure
        })
    }

    /// Sends one request and returns its successful reply.
    ///
    /// Errors: no answer (69), or the agent's problem.
    pub fn request(&mut self, doing: &str, method: &str, target: &str, body: Option<&[u8]>) -> Result<Reply, Failure> {
        let reply = self.send(doing, method, target, &[], body)?;
        if (200..300).contains(&reply.status) { Ok(reply) } else { Err(refused(doing, &reply)) }
    }

    /// Sends one request and reads its successful reply as JSON.
    ///
    /// Errors: as [`request`](Self::request).
    pub fn ask<T: DeserializeOwned>(
        &mut self,
        doing: &str,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
    ) -> Result<T, Failure> {
        let reply = self.request(doing, method, target, body)?;
        serde_json::from_slice(reply.body()).map_err(|error| unreadable(doing, &error))
    }

    /// Asks for a stream of events and returns its lines.
    ///
    /// Errors: no answer (69), or the agent's problem.
    pub fn stream(mut self, doing: &str, target: &str) -> Result<Lines, Failure> {
        let connection = self.connection.take().expect("a session is used before its end");
        match connection.into_client().stream(target, REQUEST).map_err(|error| no_answer(doing, &error))? {
            Ok(lines) => Ok(lines),
            Err(reply) => Err(refused(doing, &reply)),
        }
    }

    /// Closes the connection; a private agent is ended and reaped.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end();
        }
    }
}

fn connect(globals: &Globals, wrapper: &WrapperGlobals, wait: Duration) -> Result<Session, Failure> {
    refuse_mistakes_in_client_tables(globals)?;
    // Nobody's file decides when the command line or the environment names the socket.
    let configured = match (&globals.socket, globals.agent) {
        (Some(_), _) | (_, Some(AgentArg::Embedded)) => None,
        (None, _) => keyside_config::configured_socket(&load_request(globals)).map_err(bad_configuration)?,
    };
    if starts_private_agent(globals, wrapper, configured.as_deref()) {
        // The private agent would find the same mistakes, but could only hang up on us.
        keyside_config::load(&load_request(globals)).map_err(bad_configuration)?;
    }
    match connect::connect(wrapper, configured.as_deref(), wait) {
        Ok(connection) => Ok(Session { connection: Some(connection), probe: None }),
        Err(error) => Err(no_connection(&error)),
    }
}

/// Refuses what a client's own tables get wrong: above all what a `./keyside.toml` may not say.
fn refuse_mistakes_in_client_tables(globals: &Globals) -> Result<(), Failure> {
    let listed = |mistakes: Vec<profile::Mistake>| {
        mistaken(mistakes.into_iter().map(|mistake| (mistake.to_string(), Some(mistake.hint))).collect())
    };
    let configured = profile::load(globals.config.as_deref(), None).map_err(listed)?;
    if configured.later.is_empty() { Ok(()) } else { Err(listed(configured.later)) }
}

/// Tells whether connecting will come down to a private agent, by the wrapper's own rule.
fn starts_private_agent(globals: &Globals, wrapper: &WrapperGlobals, configured: Option<&Path>) -> bool {
    match wrapper.agent.unwrap_or_default() {
        AgentMode::Embedded => true,
        AgentMode::Socket => false,
        AgentMode::Auto => {
            wrapper.embedded.is_some() && locate(globals.socket.as_deref(), None, configured) == Located::Nowhere
        }
    }
}

/// Returns the request for the configuration of this process.
pub(crate) fn load_request(globals: &Globals) -> LoadRequest {
    LoadRequest {
        config: globals.config.clone(),
        socket: globals.socket.clone(),
        environment: Environment::of_process(),
        uid: rustix::process::geteuid().as_raw(),
    }
}

/// Returns the options in the wrapper's words, with the command line of a private agent.
///
/// Errors: this program's own file cannot be found.
pub(crate) fn for_wrapper(globals: &Globals) -> Result<WrapperGlobals, Failure> {
    Ok(WrapperGlobals {
        config: globals.config.clone(),
        socket: globals.socket.clone(),
        agent_uid: globals.agent_uid,
        agent: globals.agent.map(|agent| match agent {
            AgentArg::Auto => AgentMode::Auto,
            AgentArg::Socket => AgentMode::Socket,
            AgentArg::Embedded => AgentMode::Embedded,
        }),
        embedded: Some(private_agent(globals)?),
        quiet: u8::try_from(-globals.verbosity).unwrap_or(0),
        verbose: u8::try_from(globals.verbosity).unwrap_or(0),
        color: globals.color_for(std::io::stderr().is_terminal()),
    })
}

/// Returns program and arguments of a private agent, as far as `--fd N`, which the wrapper appends.
fn private_agent(globals: &Globals) -> Result<Vec<OsString>, Failure> {
    let mut argv = vec![current_program()?.into_os_string()];
    if let Some(config) = &globals.config {
        argv.extend(["--config".into(), config.into()]);
    }
    if globals.log_format == LogFormat::Json {
        argv.extend(["--log-format".into(), "json".into()]);
    }
    let flag = if globals.verbosity > 0 { "--verbose" } else { "--quiet" };
    argv.extend((0..globals.verbosity.unsigned_abs()).map(|_| flag.into()));
    argv.push("agent".into());
    Ok(argv)
}

/// Returns this program's own file, to start it again.
///
/// Errors: the kernel does not tell.
pub(crate) fn current_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("cannot find this program's own file: {}", crate::output::io_text(&error)),
        )
        .hint("is /proc mounted?")
    })
}

/// Every mistake of a configuration, each as an error with its hint.
pub(crate) fn bad_configuration(error: ConfigError) -> Failure {
    mistaken(error.mistakes.into_iter().map(|mistake| (mistake.to_string(), mistake.hint)).collect())
}

/// Several mistakes, each as an error with its hint.
fn mistaken(mut mistakes: Vec<(String, Option<String>)>) -> Failure {
    let (what, hint) = mistakes.pop().unwrap_or_default();
    let lines = mistakes
        .into_iter()
        .flat_map(|(what, hint)| {
            std::iter::once(format!("keyside: {what}")).chain(hint.map(|hint| format!("hint: {hint}")))
        })
        .collect();
    Failure { lines, hint, ..Failure::new(Exit::Config, what) }
}

/// Every mistake of a configuration in a line of its own that begins with its place: for `--check-config`.
pub(crate) fn list_of_mistakes(error: ConfigError) -> Failure {
    let lines: Vec<String> = error
        .mistakes
        .iter()
        .flat_map(|mistake| {
            std::iter::once(mistake.to_string()).chain(mistake.hint.as_ref().map(|hint| format!("hint: {hint}")))
        })
        .collect();
    let count = error.mistakes.len();
    let what = format!("the configuration has {count} mistake{}", if count == 1 { "" } else { "s" });
    Failure { lines, ..Failure::new(Exit::Config, what) }
}

fn no_connection(error: &ConnectError) -> Failure {
    let exit = match error {
        ConnectError::Variable { .. } | ConnectError::Client(ClientError::PathTooLong { .. }) => Exit::Config,
        _ => Exit::Unavailable,
    };
    let mut failure = Failure::new(exit, printable(&error.to_string()));
    failure.hint = error.hint();
    failure
}

/// A reply that is no success.
fn refused(doing: &str, reply: &Reply) -> Failure {
    match reply.problem() {
        Some(problem) => of_problem(doing, problem),
        None => Failure::new(Exit::Unavailable, format!("cannot {doing}: the agent answered {}", reply.status))
            .hint("is it a Keyside agent?"),
    }
}

fn no_answer(doing: &str, error: &ClientError) -> Failure {
    let mut failure = Failure::new(Exit::Unavailable, format!("cannot {doing}: {}", printable(&error.to_string())));
    failure.hint = error.hint();
    failure
}

/// A reply that is no JSON of ours; serde's text is left out, since it may quote the reply.
pub(crate) fn unreadable(doing: &str, error: &serde_json::Error) -> Failure {
    let what = format!(
        "cannot {doing}: the agent's reply cannot be read (at byte {} of line {})",
        error.column(),
        error.line()
    );
    Failure::new(Exit::Unavailable, what).hint("is the agent of another version? see `keyside status`")
}

/// Returns a request without values as JSON.
pub(crate) fn to_json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).expect("strings, numbers and lists are always JSON")
}

/// Returns `?backend=..&scope=..`, or nothing.
pub(crate) fn query(backend: Option<&str>, scope: Option<&str>) -> String {
    let parts = [("backend", backend), ("scope", scope)];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", encode_segment(value))))
        .collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::query;

    #[test]
    fn a_query_is_encoded_once() {
        assert_eq!(query(None, None), "");
        assert_eq!(query(Some("a b&c"), Some("user")), "?backend=a%20b%26c&scope=user");
    }
}
