//! `POST`, `PATCH` and `DELETE` under `/v1/secrets`: refused unless a back-end says `writable = true`.

use std::sync::Arc;

use http::Request;
use http::header::IF_MATCH;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::message::{CreateRequest, UpdateRequest, WriteReply};

use super::read::{accountable, etag, lists_etag};
use super::request::{self, Query, valid_key, valid_name};
use super::respond::{ApiError, json};
use super::{Agent, Connection, Reply};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::backend::{BackendError, Description, Scope, Scopes, Update, WriteBackend};
use crate::cache::Want;
use crate::resolver::Selection;

/// Where a write goes.
struct Target {
    backend: usize,
    writer: Arc<dyn WriteBackend>,
    scope: Option<Scope>,
}

/// Creates a secret.
pub(super) async fn create(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let selection = selection(agent, request.uri().query())?;
    let asked: CreateRequest = request::json(request, agent.limits.request, &connection.pace).await?;
    let name = asked.name;
    valid_name(&name)?;
    asked.values.keys().try_for_each(|key| valid_key(key))?;
    begin(agent, viewer, "create", &name, draft)?;
    require(viewer.may_write_whole(&name), &name)?;
    let target = choose(agent, viewer, selection, None).await?;
    let scope = match (target.scope, asked.private) {
        (Some(Scope::Public), true) => {
            return Err(ApiError::new(Code::InvalidRequest, "`private` is true and ?scope= says public"));
        }
        (Some(scope), _) => scope,
        (None, true) => Scope::Private,
        (None, false) => Scope::Public,
    };
    let values = asked.values.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
    let result = target.writer.create(&name, scope, values).await;
    let description = finish(agent, &target, &name, result, draft)?;
    Ok(json(201, &reply(agent, viewer, &target, description, false)))
}

/// Changes a secret: merges values, `null` removes a key, may rename or change the scope.
pub(super) async fn update(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    name: &str,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let selection = selection(agent, request.uri().query())?;
    let if_match = request.headers().get_all(IF_MATCH).iter().cloned().collect::<Vec<_>>();
    let asked: UpdateRequest = request::json(request, agent.limits.request, &connection.pace).await?;
    asked.values.keys().try_for_each(|key| valid_key(key))?;
    begin(agent, viewer, "update", name, draft)?;
    for key in asked.values.keys().filter(|key| !viewer.may_write_key(name, key)) {
        if !viewer.may_read_key(name, key) {
            draft.outside = true;
            return Err(ApiError::outside_grant());
        }
        require(false, name)?;
    }
    if let Some(new) = &asked.name {
        valid_name(new)?;
        require(viewer.may_write_whole(name) && viewer.may_write_whole(new), new)?;
    }
    if asked.private.is_some() {
        require(viewer.may_write_whole(name), name)?;
    }
    let target = choose(agent, viewer, selection, Some(name)).await?;
    let if_version = precondition(agent, &target, name, &if_match).await?;
    let new_name = asked.name.clone();
    let update = Update {
        rename: asked.name.filter(|new| new != name),
        scope: asked.private.map(|private| if private { Scope::Private } else { Scope::Public }),
        values: asked.values.into_iter().collect(),
        if_version,
    };
    let result = target.writer.update(name, target.scope, update).await;
    if let Some(new) = new_name {
        agent.resolver.forget(target.backend, &new);
    }
    let description = finish(agent, &target, name, result, draft)?;
    Ok(json(200, &reply(agent, viewer, &target, description, false)))
}

/// Deletes a secret.
pub(super) async fn delete(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    name: &str,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let selection = selection(agent, request.uri().query())?;
    begin(agent, viewer, "delete", name, draft)?;
    require(viewer.may_write_whole(name), name)?;
    let target = choose(agent, viewer, selection, Some(name)).await?;
    let if_match = request.headers().get_all(IF_MATCH).iter().cloned().collect::<Vec<_>>();
    let if_version = precondition(agent, &target, name, &if_match).await?;
    let result = target.writer.delete(name, target.scope, if_version.as_deref()).await;
    let description = finish(agent, &target, name, result, draft)?;
    Ok(json(200, &reply(agent, viewer, &target, description, true)))
}

fn selection(agent: &Agent, query: Option<&str>) -> Result<Selection, ApiError> {
    Query::parse(query, &["backend", "scope"])?.selection(&agent.resolver)
}

/// Notes the write for the audit and refuses what the peer may not even know of.
fn begin(
    agent: &Agent,
    viewer: &Viewer<'_>,
    operation: &'static str,
    name: &str,
    draft: &mut Draft,
) -> Result<(), ApiError> {
    draft.operation = operation;
    draft.write = true;
    draft.secrets.push(Subject::secret(name));
    if !viewer.may_write(name) && !viewer.may_read(name) {
        draft.outside = true;
        return Err(ApiError::outside_grant());
    }
    accountable(agent)
}

fn require(allowed: bool, name: &str) -> Result<(), ApiError> {
    if allowed {
        return Ok(());
    }
    Err(ApiError::new(Code::PeerRefused, format!("this peer may not write `{name}`"))
        .hint("a grant's `write` list must name it"))
}

/// Chooses the one back-end to write to. `existing` is the secret that must be there; none for a new one.
async fn choose(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    selection: Selection,
    existing: Option<&str>,
) -> Result<Target, ApiError> {
    let scope = selection.scopes.and_then(|scopes| scopes.order().first().copied());
    let sources = agent.resolver.sources();
    let selected = |backend: usize| selection.backend.is_none_or(|only| only == backend);
    let writable: Vec<usize> =
        (0..sources.len()).filter(|backend| selected(*backend) && sources[*backend].writer.is_some()).collect();
    let mut candidates = writable.clone();
    if let (Some(name), true) = (existing, writable.len() > 1) {
        // With several writable back-ends, the ones that hold the name.
        candidates.clear();
        for backend in writable.iter().copied() {
            let scopes = selection.scopes.unwrap_or(Scopes::PrivateFirst);
            match agent.resolver.describe(backend, &[name], scopes).await {
                Ok(found) if found.iter().all(Option::is_none) => {}
                // One that cannot answer may hold it.
                Ok(_) | Err(_) => candidates.push(backend),
            }
        }
    }
    let names = |backends: &[usize]| {
        backends.iter().map(|backend| sources[*backend].name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match candidates.as_slice() {
        [backend] => {
            let writer = sources[*backend].writer.clone().expect("only writable back-ends are candidates");
            Ok(Target { backend: *backend, writer, scope })
        }
        [] if writable.is_empty() => {
            let what = match selection.backend {
                Some(backend) => format!("back-end `{}` may not be written to", sources[backend].name),
                None => "no back-end may be written to".to_owned(),
            };
            Err(ApiError::new(Code::ReadOnly, what).hint("set `writable = true` in its [backend.NAME] table"))
        }
        [] => {
            let name = existing.unwrap_or_default();
            let hint = agent.resolver.hint_for_absence(name, &writable, |candidate| viewer.may_read(candidate));
            let miss = crate::resolver::Miss { asked: writable.clone(), error: BackendError::NotFound, calls: 0 };
            Err(ApiError::from_miss(&agent.resolver, name, &miss, hint))
        }
        several => Err(ApiError::new(
            Code::Conflict,
            format!("more than one back-end could be written to: {}", names(several)),
        )
        .hint("name one with ?backend=NAME")),
    }
}

/// `If-Match`: reads the secret again, then compares. Returns the version that the write must find.
async fn precondition(
    agent: &Arc<Agent>,
    target: &Target,
    name: &str,
    if_match: &[http::HeaderValue],
) -> Result<Option<String>, ApiError> {
    if if_match.is_empty() {
        return Ok(None);
    }
    let scopes = match target.scope {
        Some(Scope::Private) => Scopes::PrivateOnly,
        Some(Scope::Public) => Scopes::PublicOnly,
        None => agent.resolver.scopes(),
    };
    let selection = Selection { backend: Some(target.backend), scopes: Some(scopes) };
    let found = agent.resolver.secret(name, selection, Want::Reread).await.map_err(|miss| match miss.error {
        BackendError::NotFound => changed(name),
        _ => ApiError::from_miss(&agent.resolver, name, &miss, None),
    })?;
    let etag = etag(agent.resolver.instance(), found.hit.cached.revision());
    if found.hit.stale || !if_match.iter().any(|value| lists_etag(value, &etag)) {
        return Err(changed(name));
    }
    Ok(Some(found.hit.cached.secret.version().into_owned()))
}

fn changed(name: &str) -> ApiError {
    ApiError::new(Code::PreconditionFailed, format!("secret `{name}` is not what If-Match says"))
        .hint("read it again, then repeat the change")
}

/// Forgets what was cached about the name, whatever happened, and turns a failure into its reply.
fn finish(
    agent: &Agent,
    target: &Target,
    name: &str,
    result: Result<Description, crate::backend::WriteError>,
    draft: &mut Draft,
) -> Result<Description, ApiError> {
    agent.resolver.forget(target.backend, name);
    let backend = &agent.resolver.sources()[target.backend].name;
    draft.backend.clone_from(backend);
    let description = result.map_err(|error| ApiError::from_write(backend, name, error))?;
    draft.version.clone_from(&description.version);
    Ok(description)
}

/// Names only the keys that the peer may read or has just been allowed to write.
fn reply(agent: &Agent, viewer: &Viewer<'_>, target: &Target, description: Description, deleted: bool) -> WriteReply {
    let name = &description.name;
    let shown = |key: &String| viewer.may_read_key(name, key) || viewer.may_write_key(name, key);
    let keys = description.keys.map(|keys| keys.into_iter().filter(shown).collect());
    WriteReply {
        name: description.name,
        id: description.id,
        scope: description.scope_label.map(|label| label.as_str().to_owned()),
        backend: agent.resolver.sources()[target.backend].name.clone(),
        version: (!deleted).then_some(description.version),
        keys: if deleted { Some(Vec::new()) } else { keys },
    }
}
