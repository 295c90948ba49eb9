//! `POST /v1/resolve`: everything a step needs, as one consistent set, or every failure at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::json::{SecretBuffer, push_string, push_value};
use keyside_protocol::message::{Failure, ResolveRequest};
use keyside_protocol::name::check_name;
use keyside_protocol::reference::Reference;
use keyside_protocol::template::Template;
use keyside_protocol::value::{SecretRef, SecretValue};

use super::read::{accountable, cache_state, push_granted, push_state};
use super::respond::{ApiError, LIST_HINT, code_of, describe, secret_json};
use super::{Agent, Connection, Reply, request};
use crate::access::Viewer;
use crate::audit::{Draft, Subject};
use crate::backend::BackendError;
use crate::check::check_names;
use crate::near_miss::nearest;
use crate::resolver::{Found, Incomplete, Miss};

/// What one caller's id asks for.
enum Wanted {
    Template(Template),
    Reference(Reference),
}

impl Wanted {
    fn references(&self) -> impl Iterator<Item = &Reference> {
        let (template, reference) = match self {
            Self::Template(template) => (Some(template), None),
            Self::Reference(reference) => (None, Some(reference)),
        };
        template.into_iter().flat_map(Template::references).chain(reference)
    }
}

/// What stands for one caller's id in the reply.
enum Rendered<'a> {
    /// A template's text.
    Text(SecretValue),
    /// A value as it is in memory.
    Value(SecretRef<'a>),
}

/// Answers a resolve.
pub(super) async fn resolve(
    agent: &Arc<Agent>,
    connection: &Connection,
    viewer: &Viewer<'_>,
    request: Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    draft.operation = "resolve";
    request::Query::parse(request.uri().query(), &[])?;
    let asked: ResolveRequest = request::json(request, agent.limits.request, &connection.pace).await?;
    let mut failures = Failures::default();
    let wanted = parse(&asked, &mut failures);

    let mut names = Vec::new();
    let mut granted = Vec::new();
    for reference in wanted.iter().flat_map(|(_, wanted)| wanted.references()) {
        let (name, key) = (reference.name(), reference.key());
        if agent.audit.is_on() {
            draft.secrets.push(Subject::key(name, key));
        }
        if let Err(hint) = check_names(reference) {
            failures.add(reference.to_string(), Code::InvalidReference, Vec::new(), false, Some(hint));
        // Outside the grant: decided before any look-up.
        } else if !viewer.may_read(name) {
            failures.add(reference.to_string(), Code::SecretNotFound, Vec::new(), false, None);
        } else if !viewer.may_read_key(name, key) {
            failures.add(reference.to_string(), Code::KeyNotFound, Vec::new(), false, None);
        } else {
            names.push(name);
            granted.push(reference);
        }
    }
    for name in &asked.secrets {
        if agent.audit.is_on() {
            draft.secrets.push(Subject::secret(name));
        }
        if let Err(error) = check_name(name) {
            let hint = Some(format!("not a secret's name: {error}"));
            failures.add(name.clone(), Code::InvalidReference, Vec::new(), false, hint);
        } else if viewer.may_read(name) {
            names.push(name.as_str());
        } else {
            failures.add(name.clone(), Code::SecretNotFound, Vec::new(), false, None);
        }
    }

    accountable(agent)?;
    names.sort_unstable();
    names.dedup();
    let (generation, secrets, misses) = match agent.resolver.generation(&names).await {
        Ok(generation) => (Some(generation.id), generation.secrets, HashMap::new()),
        Err(Incomplete { secrets, misses }) => (None, secrets, misses),
    };
    if misses.values().any(|miss| miss.error == BackendError::NotFound) {
        agent.resolver.list_for_hints().await;
    }
    // A key outside the grant has its answer, though its secret was looked up for another.
    let mut read = Vec::with_capacity(granted.len());
    for reference in granted {
        let (name, key) = (reference.name(), reference.key());
        if let Some(miss) = misses.get(name) {
            add_miss(agent, viewer, &mut failures, reference.to_string(), name, miss);
        } else if let Some(found) = secrets.get(name) {
            if let Some(value) = found.hit.cached.secret.get(key) {
                read.push(value);
                continue;
            }
            let backend = agent.resolver.sources()[found.backend].name.clone();
            let granted = found.hit.cached.secret.keys().filter(|key| viewer.may_read_key(name, key));
            let hint = match nearest(key, granted) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("`keyside secret get {name}` shows its keys"),
            };
            failures.add(reference.to_string(), Code::KeyNotFound, vec![backend], false, Some(hint));
        }
    }
    for name in &asked.secrets {
        if let Some(miss) = misses.get(name.as_str()) {
            add_miss(agent, viewer, &mut failures, name.clone(), name, miss);
        }
    }
    if agent.audit.is_on() {
        let states: BTreeSet<_> = secrets.values().map(cache_state).collect();
        draft.cache = if states.contains("miss") { "miss" } else { states.first().copied().unwrap_or_default() };
        let backends: BTreeSet<_> = secrets.values().map(|found| found.backend).collect();
        let backends = backends.into_iter().map(|backend| agent.resolver.sources()[backend].name.as_str());
        draft.backend = backends.collect::<Vec<_>>().join(", ");
        let found = names.iter().filter_map(|name| secrets.get(name));
        let versions = found.map(|found| found.hit.cached.secret.version());
        draft.version = versions.collect::<Vec<_>>().join(", ");
    }
    let values = if failures.is_empty() { render(&wanted, &read, &secrets, &mut failures) } else { Vec::new() };
    match generation {
        Some(generation) if failures.is_empty() => {
            Ok(secret_json(write_reply(viewer, &generation, &values, &asked.secrets, &secrets)))
        }
        _ => Err(failures.into_error()),
    }
}

/// Reads what every id asks for, in byte order of the id.
fn parse<'a>(asked: &'a ResolveRequest, failures: &mut Failures) -> Vec<(&'a str, Wanted)> {
    let mut wanted = Vec::with_capacity(asked.templates.len() + asked.references.len());
    for (id, text) in &asked.templates {
        match Template::parse(text) {
            Ok(template) => wanted.push((id.as_str(), Wanted::Template(template))),
            Err(error) => {
                let hint = Some(format!("`{id}`: {error}"));
                failures.add(error.snippet, Code::InvalidReference, Vec::new(), false, hint);
            }
        }
    }
    for (id, text) in &asked.references {
        match Reference::parse(text) {
            // One id can name one value only.
            Ok(_) if asked.templates.contains_key(id) => {
                let hint = Some(format!("`{id}` stands in `templates` and in `references`"));
                failures.add(text.clone(), Code::InvalidReference, Vec::new(), false, hint);
            }
            Ok(reference) => wanted.push((id.as_str(), Wanted::Reference(reference))),
            Err(error) => {
                let shown: String = text.chars().take(64).collect();
                failures.add(shown, Code::InvalidReference, Vec::new(), false, Some(format!("`{id}`: {error}")));
            }
        }
    }
    wanted.sort_by_key(|(id, _)| *id);
    wanted
}

fn add_miss(agent: &Agent, viewer: &Viewer<'_>, failures: &mut Failures, reference: String, name: &str, miss: &Miss) {
    let backends = miss.asked.iter().map(|backend| agent.resolver.sources()[*backend].name.clone()).collect();
    let hint = if miss.error == BackendError::NotFound {
        let hint = agent.resolver.hint_for_absence(name, &miss.asked, |candidate| viewer.may_read(candidate));
        Some(hint.unwrap_or_else(|| LIST_HINT.to_owned()))
    } else {
        let what = describe(&agent.resolver, name, miss);
        Some(miss.error.hint().map_or_else(|| what.clone(), |hint| format!("{what}; {hint}")))
    };
    failures.add(reference, code_of(&miss.error), backends, miss.error.is_transient(), hint);
}

/// Makes what the reply shows. `read` has the value of each reference of `wanted` in turn: there is no failure.
fn render<'a>(
    wanted: &[(&'a str, Wanted)],
    read: &[SecretRef<'a>],
    secrets: &'a HashMap<&str, Found>,
    failures: &mut Failures,
) -> Vec<(&'a str, Rendered<'a>)> {
    let value_of = |reference: &Reference| {
        let secret = &secrets[reference.name()].hit.cached.secret;
        secret.get(reference.key()).expect("a missing key is a failure, and with failures nothing is rendered")
    };
    let mut values = Vec::with_capacity(wanted.len());
    let mut rest = read;
    for (id, wanted) in wanted {
        let (own, others) = rest.split_at(wanted.references().count());
        rest = others;
        match wanted {
            Wanted::Reference(_) => values.push((*id, Rendered::Value(own[0]))),
            Wanted::Template(template) => match template.render(value_of) {
                Ok(value) => values.push((*id, Rendered::Text(value))),
                Err(error) => {
                    let reference = template.references().next().map(ToString::to_string).unwrap_or_default();
                    let hint = Some(format!("`{id}`: {error}"));
                    failures.add(reference, Code::InvalidReference, Vec::new(), false, hint);
                }
            },
        }
    }
    values
}

fn write_reply(
    viewer: &Viewer<'_>,
    generation: &str,
    values: &[(&str, Rendered<'_>)],
    whole: &[String],
    secrets: &HashMap<&str, Found>,
) -> SecretBuffer {
    let size_of = |rendered: &Rendered<'_>| match rendered {
        Rendered::Text(value) => value.len(),
        Rendered::Value(value) => value.len(),
    };
    let size: usize = values.iter().map(|(id, rendered)| id.len() + 8 + size_of(rendered)).sum::<usize>()
        + whole.iter().map(|name| secrets[name.as_str()].hit.cached.secret.byte_size()).sum::<usize>();
    let mut body = SecretBuffer::with_capacity(size * 5 / 4 + 256);
    body.push(b"{\"generation\":");
    push_string(&mut body, generation);
    body.push(b",\"values\":{");
    for (index, (id, rendered)) in values.iter().enumerate() {
        if index > 0 {
            body.push(b",");
        }
        push_string(&mut body, id);
        body.push(b":");
        match rendered {
            Rendered::Text(value) => push_value(&mut body, value),
            Rendered::Value(value) => push_value(&mut body, *value),
        }
    }
    body.push(b"},\"secrets\":{");
    let whole: BTreeSet<&str> = whole.iter().map(String::as_str).collect();
    for (index, name) in whole.into_iter().enumerate() {
        if index > 0 {
            body.push(b",");
        }
        let hit = &secrets[name].hit;
        push_string(&mut body, name);
        body.push(b":{");
        push_state(&mut body, hit);
        body.push(b",\"values\":");
        push_granted(&mut body, viewer, name, &hit.cached);
        body.push(b"}");
    }
    body.push(b"}}");
    body
}

/// Every failure once, in the order found.
#[derive(Default)]
struct Failures(Vec<Failure>);

impl Failures {
    fn add(&mut self, reference: String, code: Code, backends: Vec<String>, retry: bool, hint: Option<String>) {
        let failure = Failure { reference, code, backends, retry, hint };
        if !self.0.contains(&failure) {
            self.0.push(failure);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 503 when every failure is transient, else 422.
    fn into_error(self) -> ApiError {
        let what = match self.0.len() {
            1 => "1 reference could not be resolved".to_owned(),
            count => format!("{count} references could not be resolved"),
        };
        if self.0.iter().all(|failure| failure.retry) {
            ApiError::new(Code::BackendUnavailable, what).retry().failures(self.0)
        } else {
            ApiError::new(Code::Unresolved, what).failures(self.0)
        }
    }
}
