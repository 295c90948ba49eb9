//! `GET /v1/secrets`: which secrets this peer may read. No value is read for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use http::Request;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::message::{ListReply, SecretSummary};

use super::read::accountable;
use super::request::Query;
use super::respond::{ApiError, json};
use super::{Agent, Reply};
use crate::access::Viewer;
use crate::audit::Draft;
use crate::backend::{Description, Scope, Scopes};

const DEFAULT_SIZE: usize = 100;
const LARGEST_SIZE: usize = 1000;

/// One page in byte order of the name: one entry a name, the one that would be resolved. With `?backend=` every entry of
/// that back-end, so a name may stand twice; such a pair is never torn apart by a page's end.
pub(super) async fn list(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    draft.operation = "list";
    accountable(agent)?;
    let query = Query::parse(request.uri().query(), &["prefix", "after", "size", "backend", "scope"])?;
    let selection = query.selection(&agent.resolver)?;
    let size = match query.get("size") {
        None => DEFAULT_SIZE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| (1..=LARGEST_SIZE).contains(size))
            .ok_or_else(|| ApiError::new(Code::InvalidRequest, "`size` is a number from 1 to 1000"))?,
    };
    let prefix = query.get("prefix").unwrap_or_default();
    let after = query.get("after");
    let scopes = selection.scopes.unwrap_or(agent.resolver.scopes());

    let wanted: Vec<usize> = (0..agent.resolver.sources().len())
        .filter(|backend| selection.backend.is_none_or(|only| only == *backend))
        .collect();
    let listings = join_all(wanted.iter().map(|backend| agent.resolver.list(*backend))).await;
    let mut unavailable = Vec::new();
    let mut entries: BTreeMap<&str, Vec<(usize, &Description)>> = BTreeMap::new();
    for (backend, listing) in wanted.into_iter().zip(&listings) {
        let listing = match listing {
            Ok(listing) => listing,
            Err(_) => {
                unavailable.push(agent.resolver.sources()[backend].name.clone());
                continue;
            }
        };
        for description in listing.iter() {
            let name = description.name.as_str();
            let shown = name.starts_with(prefix)
                && after.is_none_or(|after| name > after)
                && scopes.order().contains(&description.scope)
                && viewer.may_read(name);
            if shown {
                entries.entry(name).or_default().push((backend, description));
            }
        }
    }
    let mut secrets: Vec<SecretSummary> = Vec::new();
    let mut next = None;
    for (name, mut candidates) in entries {
        if secrets.len() >= size {
            next = secrets.last().map(|last| last.name.clone());
            break;
        }
        candidates.sort_by_key(|(backend, description)| (*backend, place(scopes, description.scope)));
        if selection.backend.is_none() {
            candidates.truncate(1);
        } else {
            candidates.dedup_by_key(|(_, description)| description.scope);
        }
        for (backend, description) in candidates {
            secrets.push(summary(agent, viewer, name, backend, description, scopes));
        }
    }
    Ok(json(200, &ListReply { secrets, next, unavailable }))
}

fn place(scopes: Scopes, scope: Scope) -> usize {
    scopes.order().iter().position(|other| *other == scope).unwrap_or(usize::MAX)
}

fn summary(
    agent: &Agent,
    viewer: &Viewer<'_>,
    name: &str,
    backend: usize,
    description: &Description,
    scopes: Scopes,
) -> SecretSummary {
    let hit = agent.resolver.peek(backend, scopes, name).filter(|hit| hit.cached.secret.scope() == description.scope);
    let granted = |keys: &mut dyn Iterator<Item = &str>| {
        keys.filter(|key| viewer.may_read_key(name, key)).map(str::to_owned).collect::<Vec<_>>()
    };
    let keys = match (&description.keys, &hit) {
        (Some(keys), _) => Some(granted(&mut keys.iter().map(String::as_str))),
        (None, Some(hit)) => Some(granted(&mut hit.cached.secret.keys())),
        (None, None) => None,
    };
    SecretSummary {
        name: name.to_owned(),
        scope: description.scope_label.map(|label| label.as_str().to_owned()),
        backend: agent.resolver.sources()[backend].name.clone(),
        keys,
        age_seconds: hit.map(|hit| hit.age.as_secs()),
    }
}
