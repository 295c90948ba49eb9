//! `health`, `ready`, `status` and `check`: how the agent is, and whether references are there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Request;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::{BackendState, CacheState, CheckRequest, ReadyReply, StatusReply};
use keyside_protocol::reference::Reference;

use super::read::accountable;
use super::respond::{ApiError, json};
use super::{Agent, Connection, Reply, request};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::backend::Scopes;
use crate::check::check as check_references;
use crate::clock::Tick;

/// The process lives.
pub(super) fn health() -> Reply {
    json(200, &serde_json::json!({ "status": "ok" }))
}

/// Every required back-end has answered once; once ready, ready until shutdown.
pub(super) fn ready(agent: &Agent) -> Result<Reply, ApiError> {
    let backends: Vec<BackendState> = agent.resolver.sources().iter().map(|source| source.state()).collect();
    if agent.resolver.is_ready() {
        return Ok(json(200, &ReadyReply { ready: true, backends: without_errors(backends) }));
    }
    let waiting: Vec<_> = agent
        .resolver
        .sources()
        .iter()
        .zip(&backends)
        .filter(|(source, _)| source.required && !source.has_answered())
        .map(|(_, state)| match &state.error {
            Some(error) => format!("`{}`: {} ({error})", state.name, state.state),
            None => format!("`{}`: {}", state.name, state.state),
        })
        .collect();
    let hint = backends.iter().find_map(|state| state.hint.clone());
    let what = format!("back-end {}", waiting.join(", "));
    let error = ApiError::new(Code::NotReady, what).backends(backends).retry();
    Err(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// `ready` may be asked by anyone: what a back-end's last failure said is for those who may read.
fn without_errors(backends: Vec<BackendState>) -> Vec<BackendState> {
    backends.into_iter().map(|state| BackendState { error: None, hint: None, ..state }).collect()
}

/// The agent at a glance; names only what the peer may read.
pub(super) fn status(agent: &Agent, viewer: &Viewer<'_>) -> Reply {
    let (counters, entries, bytes) = agent.resolver.cache_state();
    let mut names = agent.resolver.cached_names();
    names.retain(|name| viewer.may_read(name));
    let uptime = Tick::now().since(agent.started);
    let scope_order = match agent.resolver.scopes() {
        Scopes::PublicFirst => "public-first",
        _ => "private-first",
    };
    let status = StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: agent.resolver.instance().to_owned(),
        pid: std::process::id(),
        uptime_seconds: uptime.as_secs(),
        ready: agent.resolver.is_ready(),
        validation_level: agent.level,
        scope_order: scope_order.to_owned(),
        backends: agent.resolver.sources().iter().map(|source| source.state()).collect(),
        cache: CacheState {
            entries: entries as u64,
            bytes: bytes as u64,
            max_bytes: agent.max_cache_bytes,
            hits: counters.hits,
            stale_hits: counters.stale_hits,
            misses: counters.misses,
            backend_calls: agent.resolver.backend_calls(),
            names,
        },
        connections: agent.connections.load(Ordering::Relaxed),
        watchers: agent.resolver.watches().watchers() as u64,
        listeners: agent.listeners.clone(),
        audit: match (agent.audit.is_on(), agent.audit.is_failing()) {
            (false, _) => "off",
            (true, false) => "ok",
            (true, true) => "failing",
        }
        .to_owned(),
    };
    json(200, &status)
}

/// Answers a check at the caller's level, or the agent's own.
pub(super) async fn check(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    draft.operation = "check";
    accountable(agent)?;
    request::Query::parse(request.uri().query(), &[])?;
    let asked: CheckRequest = request::json(request, agent.limits.request, &connection.pace).await?;
    let level = match &asked.level {
        None => agent.level,
        Some(level) => {
            level.parse::<ValidationLevel>().map_err(|error| ApiError::new(Code::InvalidRequest, error.to_string()))?
        }
    };
    if agent.audit.is_on() {
        let references = asked.references.iter().filter_map(|text| Reference::parse_lenient(text).ok());
        draft.secrets = references.map(|reference| Subject::key(reference.name(), reference.key())).collect();
    }
    let reply = check_references(&agent.resolver, viewer, &asked.references, level, asked.no_cache).await;
    draft.cache = if reply.backend_calls == 0 { "hit" } else { "miss" };
    let backends: BTreeSet<_> = reply.results.iter().filter_map(|result| result.backend.as_deref()).collect();
    draft.backend = backends.into_iter().collect::<Vec<_>>().join(", ");
    Ok(json(200, &reply))
}
