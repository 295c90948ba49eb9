//! `POST /v1/refresh`, `/v1/purge` and `/v1/shutdown`: what an operator does to a running agent.
//!
//! The right is about the operation, not about secrets: all of them count by number, and only a name that the peer may
//! read is told apart.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use http::Request;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::message::{NamesRequest, PurgeReply, RefreshFailure, RefreshReply};

use super::respond::{ApiError, code_of, json};
use super::{Agent, Connection, Reply, request};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::backend::BackendError;

/// How many named secrets are asked for at the same time; each back-end has its own limit besides.
const MOST_AT_ONCE: usize = 32;

/// Asks the back-ends again: for the named secrets, or for everything that is polled or held. Answers when that is done;
/// it goes on behind a reply that came too late for the request's deadline.
pub(super) async fn refresh(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let names = begin("refresh", viewer.may_refresh(), agent, connection, request, draft).await?;
    let resolver = Arc::clone(&agent.resolver);
    let reply = match names {
        Some(names) => {
            let asking = tokio::spawn(async move {
                let again = names.into_iter().map(|name| {
                    let resolver = &resolver;
                    async move { (resolver.refresh(&name).await, name) }
                });
                stream::iter(again).buffer_unordered(MOST_AT_ONCE).collect::<Vec<_>>().await
            });
            let mut reply = RefreshReply::default();
            for (result, name) in finished(asking.await)? {
                match result {
                    Err(error) if viewer.may_read(&name) => reply.failed.push(failure(Some(name), None, &error)),
                    _ => reply.refreshed += 1,
                }
            }
            reply
        }
        None => {
            let (asked, failed) = finished(tokio::spawn(async move { resolver.refresh_all().await }).await)?;
            let names = failed.iter().filter(|(what, _)| what.is_ok()).count();
            let told = failed.into_iter().filter_map(|(what, error)| match what {
                Ok(name) => viewer.may_read(&name).then(|| failure(Some(name), None, &error)),
                Err(backend) => Some(failure(None, Some(agent.resolver.sources()[backend].name.clone()), &error)),
            });
            RefreshReply { failed: told.collect(), refreshed: (asked - names) as u64 }
        }
    };
    Ok(json(200, &sorted(reply)))
}

/// Forgets the named secrets, or everything, now.
pub(super) async fn purge(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let names = begin("purge", viewer.may_administer(), agent, connection, request, draft).await?;
    let purged = match names {
        Some(names) => names.iter().filter(|name| agent.resolver.purge(name) && viewer.may_read(name)).count(),
        None => agent.resolver.purge_all(),
    };
    tracing::info!(uid = connection.peer.uid, purged, "purged");
    Ok(json(200, &PurgeReply { purged: purged as u64 }))
}

/// Stops the agent as SIGTERM does: this reply is still sent.
pub(super) async fn shutdown(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    begin("shutdown", viewer.may_administer(), agent, connection, request, draft).await?;
    tracing::info!(uid = connection.peer.uid, "stopping: asked to by a client");
    agent.stop.send_replace(true);
    Ok(json(202, &serde_json::json!({ "stopping": true })))
}

/// Refuses who may not, then reads the body: the names in it, each once, or `None` for everything.
async fn begin(
    operation: &'static str,
    allowed: bool,
    agent: &Agent,
    connection: &Connection,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Option<Vec<String>>, ApiError> {
    draft.operation = operation;
    request::Query::parse(request.uri().query(), &[])?;
    if !allowed {
        let uid = connection.peer.uid;
        return Err(ApiError::new(Code::PeerRefused, format!("uid {uid} may not {operation} this agent"))
            .hint(format!("add `admin = true` to a [grant.NAME] with uid = [{uid}] in the agent's configuration")));
    }
    // Done or begun by the time a reply could be taken back, and worth a line in the log.
    draft.write = true;
    let asked: NamesRequest = request::optional_json(request, agent.limits.request, &connection.pace).await?;
    let Some(mut names) = asked.secrets else { return Ok(None) };
    names.iter().try_for_each(|name| request::valid_name(name))?;
    names.sort_unstable();
    names.dedup();
    if agent.audit.is_on() {
        draft.secrets = names.iter().map(|name| Subject::secret(name)).collect();
    }
    Ok(Some(names))
}

fn finished<T>(task: Result<T, tokio::task::JoinError>) -> Result<T, ApiError> {
    task.map_err(|_| {
        ApiError::new(Code::Internal, "the refresh came to no end").hint("the agent's log says why").retry()
    })
}

fn failure(secret: Option<String>, backend: Option<String>, error: &BackendError) -> RefreshFailure {
    RefreshFailure { secret, backend, code: code_of(error), retry: error.is_transient() }
}

fn sorted(mut reply: RefreshReply) -> RefreshReply {
    reply.failed.sort_unstable_by(|a, b| (&a.backend, &a.secret).cmp(&(&b.backend, &b.secret)));
    reply
}
