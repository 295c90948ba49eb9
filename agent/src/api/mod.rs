//! The routes of the socket. HTTP serving is known here and nowhere else in the agent; [`respond`] is the only place
//! where an error becomes a reply. `docs/socket.md` describes every route for users.

mod admin;
mod listing;
mod metrics;
mod read;
mod request;
mod resolve;
pub mod respond;
mod stack;
mod state;
mod warm;
mod watch;
mod write;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use keyside_config::settings::LimitSettings;
use keyside_protocol::code::Code;
use keyside_protocol::level::ValidationLevel;
use tokio::sync::watch::Sender;

use crate::access::{Access, Peer};
use crate::audit::{Audit, Draft};
use crate::clock::Tick;
use crate::metrics::{Metrics, Route};
use crate::pace::Pace;
use crate::request_id;
use crate::resolver::Resolver;
use respond::ApiError;
pub use warm::WarmReads;
pub use watch::{Handover, WatchStream};

/// A complete reply.
pub type Reply = Response<Full<Bytes>>;

pub use metrics::answer_scrape;

/// What every request is answered from. A reload makes another one; a request keeps the one it began with.
pub struct Agent {
    /// The way to values.
    pub resolver: Arc<Resolver>,
    /// Who may do what.
    pub access: Access,
    /// What was decided.
    pub audit: Arc<Audit>,
    /// Bounds on requests.
    pub limits: LimitSettings,
    /// The level of a check that names none.
    pub level: ValidationLevel,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// When the agent started.
    pub started: Tick,
    /// Where it listens, for `status`.
    pub listeners: Vec<String>,
    /// Open connections.
    pub connections: Arc<AtomicU64>,
    /// The cache's budget, for `status`.
    pub max_cache_bytes: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Turned true to stop the agent gracefully.
    pub stop: Sender<bool>,
}

/// The agent as it is now; a reload replaces it whole.
pub struct Current {
    agent: RwLock<Arc<Agent>>,
    reloads: AtomicUsize,
}

impl Current {
    /// Begins with `agent`.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent: RwLock::new(agent), reloads: AtomicUsize::new(0) }
    }

    /// Returns the agent as it is now.
    pub fn agent(&self) -> Arc<Agent> {
        Arc::clone(&self.agent.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `agent` in the place of the one before, which is returned.
    pub fn replace(&self, agent: Arc<Agent>) -> Arc<Agent> {
        let before = std::mem::replace(&mut *self.agent.write().unwrap_or_else(PoisonError::into_inner), agent);
        self.reloads.fetch_add(1, Ordering::Release);
        before
    }

    /// Counts the replacements: what was allowed at another count is to be judged anew.
    pub fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Acquire)
    }
}

/// What is known of the connection that a request came on.
pub struct Connection {
    /// Who connected.
    pub peer: Peer,
    /// The name of the listener it came by.
    pub listener: Arc<str>,
    /// The connection's deadlines.
    pub pace: Arc<Pace>,
    /// Beyond the limit of connections: probes of life are answered, and nothing else.
    pub probes_only: bool,
    /// Takes the connection from HTTP.
    pub handover: Handover,
}

/// Answers one request: one complete reply, whatever happens.
pub async fn answer(current: Arc<Current>, connection: Arc<Connection>, request: Request<Incoming>) -> Reply {
    connection.pace.handling();
    let agent = current.agent();
    let began = Tick::now();
    let metered = Route::of(request.method(), request.uri().path());
    let id = agent.audit.next_request();
    let mut draft = Draft { request: Some(id.clone()), ..Draft::default() };
    let answering = request_id::within(id, route(&current, &agent, &connection, request, &mut draft));
    let outcome = tokio::time::timeout(agent.request_timeout, answering).await.unwrap_or_else(|_| {
        Err(ApiError::new(Code::BackendUnavailable, "the request was not answered within its deadline")
            .hint("the back-end is slow or locked: try again, or raise [agent] request_timeout")
            .retry())
    });
    let now = current.agent();
    let outcome = match outcome {
        // What was allowed when the request began may be so no longer; a write has been done, and a probe needs no right.
        Ok(_)
            if !draft.write
                && !draft.operation.is_empty()
                && !Arc::ptr_eq(&agent, &now)
                && agent.access != now.access =>
        {
            Err(ApiError::new(Code::NotReady, "the agent's grants or listeners were changed meanwhile")
                .hint("try again: the request is then judged by the new ones")
                .retry())
        }
        outcome => outcome,
    };
    let code = outcome.as_ref().err().map(|error| error.code);
    let took = Tick::now().since(began);
    let recorded = agent.audit.record(&draft, &connection.peer, code, took);
    // What nobody can account for later does not leave; a write has happened, and its answer must not deny that.
    let outcome = if recorded || draft.write { outcome } else { outcome.and(Err(read::audit_unavailable())) };
    agent.metrics.answered(metered, outcome.as_ref().err().map(|error| error.code), took);
    if connection.handover.settle(outcome.is_ok()) {
        // The stream is the reply: HTTP is not told of any.
        return std::future::pending().await;
    }
    let mut reply = outcome.unwrap_or_else(respond::problem);
    if connection.probes_only {
        // One answer, and the place is free for the next.
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    connection.pace.replied();
    reply
}

async fn route(
    current: &Arc<Current>,
    agent: &Arc<Agent>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    request::refuse_what_no_client_of_ours_sends(&request)?;
    let path = request.uri().path();
    // Probes of life need no grant.
    match path {
        "/v1/health" => {
            only(&request, &[Method::GET])?;
            request::Query::parse(request.uri().query(), &[])?;
            return Ok(state::health());
        }
        "/v1/ready" => {
            only(&request, &[Method::GET])?;
            request::Query::parse(request.uri().query(), &[])?;
            return state::ready(agent);
        }
        _ => {}
    }
    if connection.probes_only {
        return Err(ApiError::new(Code::TooManyRequests, "there are too many connections, of this uid or of all")
            .hint("close connections that are not needed; beyond the limit only health and ready are answered")
            .retry());
    }
    let viewer = agent
        .access
        .viewer(&connection.peer, &connection.listener)
        .ok_or_else(|| refuse_peer(agent, connection, draft))?;
    if path == "/v1/status" {
        only(&request, &[Method::GET])?;
        request::Query::parse(request.uri().query(), &[])?;
        return Ok(state::status(agent, &viewer));
    }
    if path == "/metrics" {
        return metrics::metrics(agent, &request);
    }
    if agent.audit.is_on() {
        draft.grant = viewer.grant_names();
    }
    if path == "/v1/refresh" {
        only(&request, &[Method::POST])?;
        return admin::refresh(agent, connection, &viewer, request, draft).await;
    }
    if !viewer.is_granted() {
        return Err(refuse_peer(agent, connection, draft));
    }
    let secret_path = path.strip_prefix("/v1/secrets").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(rest) = secret_path {
        return match rest.strip_prefix('/') {
            None => match only(&request, &[Method::GET, Method::POST])? {
                Method::POST => write::create(agent, connection, &viewer, request, draft).await,
                _ => listing::list(agent, &viewer, &request, draft).await,
            },
            Some(rest) => {
                match rest.split_once('/') {
                    None => {
                        let method = only(&request, &[Method::GET, Method::PATCH, Method::DELETE])?;
                        let name = request::name(rest)?.into_owned();
                        match method {
                            Method::PATCH => write::update(agent, connection, &viewer, &name, request, draft).await,
                            Method::DELETE => write::delete(agent, &viewer, &name, &request, draft).await,
                            _ => read::secret(agent, &viewer, &name, &request, draft).await,
                        }
                    }
                    Some((name, key)) if !key.contains('/') => {
                        only(&request, &[Method::GET])?;
                        let (name, key) = (request::name(name)?, request::decode(key)?);
                        request::valid_key(&key)?;
                        read::value(agent, &viewer, &name, &key, &request, draft).await
                    }
                    Some(_) => Err(ApiError::new(Code::NotFound, "no such route")
                        .hint("a `/` inside a name or key is written %2F")),
                }
            }
        };
    }
    match path {
        "/v1/resolve" => {
            only(&request, &[Method::POST])?;
            resolve::resolve(agent, connection, &viewer, request, draft).await
        }
        "/v1/check" => {
            only(&request, &[Method::POST])?;
            state::check(agent, connection, &viewer, request, draft).await
        }
        "/v1/stack" => {
            only(&request, &[Method::GET])?;
            stack::stack(agent, &viewer, &request, draft).await
        }
        "/v1/purge" => {
            only(&request, &[Method::POST])?;
            admin::purge(agent, connection, &viewer, request, draft).await
        }
        "/v1/shutdown" => {
            only(&request, &[Method::POST])?;
            admin::shutdown(agent, connection, &viewer, request, draft).await
        }
        "/v1/watch" => {
            only(&request, &[Method::GET])?;
            watch::open(current, agent, connection, &viewer, &request, draft).await
        }
        _ => Err(ApiError::new(Code::NotFound, "no such route").hint("docs/socket.md lists the routes")),
    }
}

fn refuse_peer(agent: &Agent, connection: &Connection, draft: &mut Draft) -> ApiError {
    draft.operation = "connect";
    let uid = connection.peer.uid;
    let hint = if agent.access.has_grants() {
        format!("add a [grant.NAME] with uid = [{uid}] to the agent's configuration")
    } else {
        format!("without a [grant.NAME] only the agent's own uid is served; add one with uid = [{uid}]")
    };
    ApiError::new(Code::PeerRefused, format!("uid {uid} matches no grant of this agent")).hint(hint)
}

fn only<B>(request: &Request<B>, methods: &'static [Method]) -> Result<Method, ApiError> {
    if methods.contains(request.method()) {
        return Ok(request.method().clone());
    }
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    Err(ApiError::new(Code::MethodNotAllowed, format!("this route takes {allow}")).allow(allow))
}

#[cfg(test)]
mod tests;
