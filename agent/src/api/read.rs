//! `GET /v1/secrets/{name}` and `GET /v1/secrets/{name}/{key}`.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::json::{SecretBuffer, push_string, push_values};

use super::request::Query;
use super::respond::{ApiError, plain, secret_json};
use super::{Agent, Reply};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::backend::{BackendError, ScopeLabel};
use crate::cache::{Cached, Hit, Want};
use crate::near_miss::nearest;
use crate::resolver::{Found, Selection};

const KEYSIDE_VERSION: HeaderName = HeaderName::from_static("keyside-version");
const KEYSIDE_STALE: HeaderName = HeaderName::from_static("keyside-stale");

/// Answers with the granted pairs of one secret.
pub(super) async fn secret(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    name: &str,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let selection = Query::parse(request.uri().query(), &["backend", "scope"])?.selection(&agent.resolver)?;
    if !viewer.may_read(name) {
        return Err(outside(draft, Subject::secret(name)));
    }
    let found = find(agent, viewer, name, selection, want(request.headers()), draft, || Subject::secret(name)).await?;
    let cached = &found.hit.cached;
    let etag = etag(agent.resolver.instance(), cached.revision());
    if matches_etag(request.headers(), &etag) {
        return Ok(not_modified(etag));
    }
    let secret = &cached.secret;
    let mut body = SecretBuffer::with_capacity(cached.secret.byte_size() * 5 / 4 + 512);
    body.push(b"{\"name\":");
    push_string(&mut body, secret.name());
    body.push(b",\"id\":");
    push_optional(&mut body, secret.id().as_deref());
    body.push(b",\"scope\":");
    push_optional(&mut body, secret.scope_label().map(ScopeLabel::as_str));
    body.push(b",\"backend\":");
    push_string(&mut body, &agent.resolver.sources()[found.backend].name);
    body.push(b",\"instance\":");
    push_string(&mut body, agent.resolver.instance());
    body.push(b",");
    push_state(&mut body, &found.hit);
    body.push(b",\"values\":");
    push_granted(&mut body, viewer, name, cached);
    body.push(b"}");
    let mut reply = secret_json(body);
    reply.headers_mut().insert(ETAG, etag);
    Ok(reply)
}

/// Answers with the raw bytes of one value.
pub(super) async fn value(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    name: &str,
    key: &str,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    let selection = match request.uri().query() {
        None => Selection::default(),
        query => Query::parse(query, &["backend", "scope"])?.selection(&agent.resolver)?,
    };
    let label = || Subject::key(name, key);
    if !viewer.may_read_key(name, key) {
        return Err(outside(draft, label()));
    }
    let found = find(agent, viewer, name, selection, want(request.headers()), draft, label).await?;
    let cached = &found.hit.cached;
    let Some(position) = cached.secret.position(key) else {
        let backend = &agent.resolver.sources()[found.backend].name;
        let what = format!("secret `{name}` in back-end `{backend}` has no key `{key}`");
        let granted = cached.secret.keys().filter(|key| viewer.may_read_key(name, key));
        let error = ApiError::new(Code::KeyNotFound, what);
        return Err(match nearest(key, granted) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("`keyside secret get {name}` shows its keys")),
        });
    };
    let etag = etag(agent.resolver.instance(), cached.revision());
    if matches_etag(request.headers(), &etag) {
        return Ok(not_modified(etag));
    }
    Ok(value_reply(agent, &found.hit, position))
}

fn value_reply(agent: &Agent, hit: &Hit, position: usize) -> Reply {
    let body = ValueBody { cached: Arc::clone(&hit.cached), position };
    let mut reply = plain(200, "application/octet-stream", Bytes::from_owner(body));
    let headers = reply.headers_mut();
    headers.insert(ETAG, etag(agent.resolver.instance(), hit.cached.revision()));
    headers.insert(KEYSIDE_VERSION, header_text(&hit.cached.secret.version()));
    headers.insert(KEYSIDE_STALE, HeaderValue::from_static(if hit.stale { "true" } else { "false" }));
    headers.insert(AGE, HeaderValue::from(hit.age.as_secs()));
    reply
}

/// The bytes of one value inside a shared secret, sent without another copy of ours.
struct ValueBody {
    cached: Arc<Cached>,
    position: usize,
}

impl AsRef<[u8]> for ValueBody {
    fn as_ref(&self) -> &[u8] {
        // expose: to the socket, as the reply's body.
        self.cached.secret.at(self.position).expose()
    }
}

async fn find(
    agent: &Arc<Agent>,
    viewer: &Viewer<'_>,
    name: &str,
    selection: Selection,
    want: Want,
    draft: &mut Draft,
    label: impl Fn() -> Subject,
) -> Result<Found, ApiError> {
    draft.operation = "read";
    accountable(agent).inspect_err(|_| draft.secrets.push(label()))?;
    let result = agent.resolver.secret(name, selection, want).await;
    if agent.audit.is_on() || matches!(&result, Err(miss) if matches!(miss.error, BackendError::Denied { .. })) {
        draft.secrets.push(label());
    }
    if let (true, Ok(found)) = (agent.audit.is_on(), &result) {
        draft.cache = cache_state(found);
        draft.backend.clone_from(&agent.resolver.sources()[found.backend].name);
        draft.version = found.hit.cached.secret.version().into_owned();
    }
    match result {
        Ok(found) => Ok(found),
        Err(miss) if miss.error == BackendError::NotFound => {
            agent.resolver.list_for_hints().await;
            let hint = agent.resolver.hint_for_absence(name, &miss.asked, |candidate| viewer.may_read(candidate));
            Err(ApiError::from_miss(&agent.resolver, name, &miss, hint))
        }
        Err(miss) => Err(ApiError::from_miss(&agent.resolver, name, &miss, None)),
    }
}

/// Says how a value was come by, for the audit.
pub(super) fn cache_state(found: &Found) -> &'static str {
    match (found.called, found.hit.stale) {
        (_, true) => "stale",
        (true, false) => "miss",
        (false, false) => "hit",
    }
}

/// Refuses while nobody could account for the request later.
pub(super) fn accountable(agent: &Agent) -> Result<(), ApiError> {
    if agent.audit.blocks() { Err(audit_unavailable()) } else { Ok(()) }
}

/// The reply while the audit log is required and cannot be written.
pub(super) fn audit_unavailable() -> ApiError {
    ApiError::new(Code::AuditUnavailable, "the audit log cannot be written, and it is required")
        .hint("see the agent's log; [audit] path names the file")
        .retry()
}

fn outside(draft: &mut Draft, label: Subject) -> ApiError {
    draft.operation = "read";
    draft.secrets.push(label);
    draft.outside = true;
    ApiError::outside_grant()
}

/// Reads the caller's `Cache-Control`.
pub(super) fn want(headers: &HeaderMap) -> Want {
    let no_cache = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"));
    if no_cache { Want::Forced } else { Want::Usual }
}

/// Returns `"<instance>-<revision>"`.
pub(super) fn etag(instance: &str, revision: u64) -> HeaderValue {
    // On the stack: the header takes exactly what it needs, once.
    let mut tag = [0_u8; 64];
    let mut rest = &mut tag[..];
    write!(rest, "\"{instance}-{revision}\"").expect("an instance id has 16 digits");
    let left = rest.len();
    HeaderValue::from_bytes(&tag[..64 - left]).expect("an instance id is hexadecimal")
}

fn matches_etag(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| lists_etag(value, etag))
}

/// Tells whether an `If-Match` or `If-None-Match` value names `etag`; weak tags compare as their opaque part.
pub(super) fn lists_etag(value: &HeaderValue, etag: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
    })
}

fn not_modified(etag: HeaderValue) -> Reply {
    let mut reply = plain(304, "application/octet-stream", Bytes::new());
    reply.headers_mut().remove(http::header::CONTENT_TYPE);
    reply.headers_mut().insert(ETAG, etag);
    reply
}

/// A version is opaque and may hold anything; what a header cannot carry is percent-encoded.
fn header_text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let encoded: String = text
            .bytes()
            .map(|byte| if byte.is_ascii_graphic() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        HeaderValue::try_from(encoded).expect("only graphic ASCII is left")
    })
}

/// Appends `"version":...,"revision":...,"stale":...,"age_seconds":...`.
pub(super) fn push_state(body: &mut SecretBuffer, hit: &Hit) {
    body.push(b"\"version\":");
    push_string(body, &hit.cached.secret.version());
    let state = format!(
        ",\"revision\":{},\"stale\":{},\"age_seconds\":{}",
        hit.cached.revision(),
        hit.stale,
        hit.age.as_secs()
    );
    body.push(state.as_bytes());
}

/// Appends the pairs that the viewer may read.
pub(super) fn push_granted(body: &mut SecretBuffer, viewer: &Viewer<'_>, name: &str, cached: &Cached) {
    push_values(body, cached.secret.iter().filter(|(key, _)| viewer.may_read_key(name, key)));
}

fn push_optional(body: &mut SecretBuffer, text: Option<&str>) {
    match text {
        Some(text) => push_string(body, text),
        None => body.push(b"null"),
    }
}
