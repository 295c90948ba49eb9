//! Are the references there? The three validation levels, all answers at once, each back-end asked as little as the
//! level allows.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::{CheckReply, CheckResult, CheckStatus};
use keyside_protocol::name::{check_key, check_name};
use keyside_protocol::reference::Reference;

use crate::access::Viewer;
use crate::backend::{BackendError, Description};
use crate::cache::Want;
use crate::near_miss::nearest;
use crate::resolver::{Resolver, Selection};

/// Names in one describe call.
const DESCRIBE_BATCH: usize = 500;

/// What was learnt of one secret.
enum Verdict {
    /// It is there; the keys where the level asks for them.
    Present {
        backend: usize,
        keys: Option<Vec<String>>,
    },
    Missing {
        asked: Vec<usize>,
    },
    Failed {
        asked: Vec<usize>,
        error: BackendError,
    },
}

/// Tells what is wrong with a reference that is well-formed and yet names what no secret or key can be called, by the
/// rules of the routes that take names. No back-end is to be asked for it.
pub(crate) fn check_names(reference: &Reference) -> Result<(), String> {
    check_name(reference.name()).map_err(|error| format!("not a secret's name: {error}"))?;
    check_key(reference.key()).map_err(|error| format!("not a key's name: {error}"))
}

/// Checks every reference and answers in the order asked.
///
/// `NONE` calls no back-end. `SECRET_EXISTS` reads no value. A secret that is named often is looked up once. What the
/// viewer may not read is answered as missing without any look-up. Fresh cache entries answer without a call unless
/// `no_cache`; stale entries and remembered absences are asked for again.
pub async fn check(
    resolver: &Arc<Resolver>,
    viewer: &Viewer<'_>,
    references: &[String],
    level: ValidationLevel,
    no_cache: bool,
) -> CheckReply {
    let parse = |text: &String| {
        let reference = Reference::parse_lenient(text).map_err(|error| error.to_string())?;
        check_names(&reference).map(|()| reference)
    };
    let parsed: Vec<_> = references.iter().map(parse).collect();
    let mut verdicts = BTreeMap::new();
    let mut calls = 0;
    if level != ValidationLevel::None {
        // What the viewer may not read is answered without any look-up.
        let granted =
            parsed.iter().flatten().filter(|reference| viewer.may_read_key(reference.name(), reference.key()));
        let names: std::collections::BTreeSet<&str> = granted.map(Reference::name).collect();
        (verdicts, calls) = look_up_all(resolver, names.into_iter().collect(), level, no_cache).await;
        if verdicts.values().any(|verdict| matches!(verdict, Verdict::Missing { .. })) {
            calls += resolver.list_for_hints().await;
        }
    }
    let results: Vec<_> = references
        .iter()
        .zip(&parsed)
        .map(|(text, reference)| {
            let (status, backend, hint) = match reference {
                Err(hint) => (CheckStatus::Invalid, None, Some(hint.clone())),
                Ok(_) if level == ValidationLevel::None => (CheckStatus::Skipped, None, None),
                Ok(reference) => answer(resolver, viewer, reference, level, verdicts.get(reference.name())),
            };
            CheckResult { reference: text.clone(), status, backend, hint }
        })
        .collect();
    let ok = results.iter().all(|result| matches!(result.status, CheckStatus::Ok | CheckStatus::Skipped));
    CheckReply { level, ok, results, backend_calls: calls }
}

/// Walks the back-ends in precedence order; a name leaves the walk at the first one that does not say "absent".
async fn look_up_all(
    resolver: &Arc<Resolver>,
    mut pending: Vec<&str>,
    level: ValidationLevel,
    no_cache: bool,
) -> (BTreeMap<String, Verdict>, u64) {
    let mut verdicts = BTreeMap::new();
    let mut calls = 0;
    let mut asked = Vec::new();
    for (backend, source) in resolver.sources().iter().enumerate() {
        asked.push(backend);
        let mut remaining = Vec::new();
        if !no_cache {
            pending.retain(|name| {
                let hit = resolver.peek(backend, resolver.scopes(), name);
                let Some(hit) = hit.filter(|hit| !hit.stale) else { return true };
                let keys = hit.cached.secret.keys().map(str::to_owned).collect();
                verdicts.insert((*name).to_owned(), Verdict::Present { backend, keys: Some(keys) });
                false
            });
        }
        let wants_keys = level == ValidationLevel::SecretAndKeyExists;
        // What has to be read for the names of its keys.
        let mut to_read = Vec::new();
        if !wants_keys || source.capabilities().keys_without_values {
            for batch in pending.chunks(DESCRIBE_BATCH) {
                for (names, described) in describe(resolver, backend, batch, &mut calls).await {
                    match described {
                        Ok(descriptions) => {
                            for (name, description) in names.iter().zip(descriptions) {
                                match description {
                                    Some(found) if wants_keys && found.keys.is_none() => to_read.push(*name),
                                    Some(found) => {
                                        let verdict = Verdict::Present { backend, keys: found.keys };
                                        verdicts.insert((*name).to_owned(), verdict);
                                    }
                                    None => remaining.push(*name),
                                }
                            }
                        }
                        // Who may read a secret need not be allowed to look at it.
                        Err(BackendError::Denied { .. }) if wants_keys => to_read.extend(names),
                        Err(error) if means_absent(source.denies_by_absence(), &error) => remaining.extend(names),
                        Err(error) => {
                            for name in names {
                                let verdict = Verdict::Failed { asked: asked.clone(), error: error.clone() };
                                verdicts.insert((*name).to_owned(), verdict);
                            }
                        }
                    }
                }
            }
        } else {
            to_read.clone_from(&pending);
        }
        let want = if no_cache { Want::Reread } else { Want::Confirmed };
        let selection = Selection { backend: Some(backend), scopes: None };
        let reads = to_read.iter().map(|name| resolver.secret(name, selection, want));
        for (name, result) in to_read.iter().zip(join_all(reads).await) {
            match result {
                Ok(found) => {
                    calls += found.calls;
                    let keys = found.hit.cached.secret.keys().map(str::to_owned).collect();
                    verdicts.insert((*name).to_owned(), Verdict::Present { backend, keys: Some(keys) });
                }
                Err(miss) => {
                    calls += miss.calls;
                    if miss.error == BackendError::NotFound {
                        remaining.push(*name);
                    } else {
                        let verdict = Verdict::Failed { asked: asked.clone(), error: miss.error };
                        verdicts.insert((*name).to_owned(), verdict);
                    }
                }
            }
        }
        pending = remaining;
    }
    for name in pending {
        verdicts.insert(name.to_owned(), Verdict::Missing { asked: asked.clone() });
    }
    (verdicts, calls)
}

/// What one back-end says of some names together.
type Described<'n, 's> = (&'n [&'s str], Result<Vec<Option<Description>>, BackendError>);

/// Describes names in one call, and each by itself where one of them spoils it: a refusal for one secret says nothing of
/// the others.
async fn describe<'n, 's>(
    resolver: &Arc<Resolver>,
    backend: usize,
    names: &'n [&'s str],
    calls: &mut u64,
) -> Vec<Described<'n, 's>> {
    *calls += 1;
    let described = resolver.describe(backend, names, resolver.scopes()).await;
    let is_of_one = |error: &BackendError| error.is_authoritative() || matches!(error, BackendError::Unusable { .. });
    if names.len() < 2 || !described.as_ref().is_err_and(is_of_one) {
        return vec![(names, described)];
    }
    *calls += names.len() as u64;
    let one = |name| async move { (name, resolver.describe(backend, name, resolver.scopes()).await) };
    join_all(names.chunks(1).map(one)).await
}

fn means_absent(denied_means_absent: bool, error: &BackendError) -> bool {
    match error {
        BackendError::NotFound => true,
        BackendError::Denied { .. } => denied_means_absent,
        _ => false,
    }
}

fn answer(
    resolver: &Resolver,
    viewer: &Viewer<'_>,
    reference: &Reference,
    level: ValidationLevel,
    verdict: Option<&Verdict>,
) -> (CheckStatus, Option<String>, Option<String>) {
    let names = |backends: &[usize]| {
        let names: Vec<_> = backends.iter().map(|backend| resolver.sources()[*backend].name.as_str()).collect();
        Some(names.join(", "))
    };
    // Outside the grant, at any level: the same answer whether it exists or not.
    if !viewer.may_read_key(reference.name(), reference.key()) {
        let missing =
            if viewer.may_read(reference.name()) { CheckStatus::KeyMissing } else { CheckStatus::SecretMissing };
        return (missing, None, None);
    }
    let Some(verdict) = verdict else { return (CheckStatus::SecretMissing, None, None) };
    let wants_key = level == ValidationLevel::SecretAndKeyExists;
    match verdict {
        Verdict::Present { backend, keys } => {
            let missing = keys.as_ref().filter(|keys| wants_key && !keys.iter().any(|key| key == reference.key()));
            match missing {
                None => (CheckStatus::Ok, names(&[*backend]), None),
                Some(keys) => {
                    let allowed =
                        keys.iter().map(String::as_str).filter(|key| viewer.may_read_key(reference.name(), key));
                    let hint = nearest(reference.key(), allowed).map(|near| format!("did you mean `{near}`?"));
                    (CheckStatus::KeyMissing, names(&[*backend]), hint)
                }
            }
        }
        Verdict::Missing { asked } => {
            let hint = resolver.hint_for_absence(reference.name(), asked, |name| viewer.may_read(name));
            (CheckStatus::SecretMissing, names(asked), hint)
        }
        Verdict::Failed { asked, error } => {
            let status = match error {
                BackendError::NotFound => CheckStatus::SecretMissing,
                BackendError::Denied { .. } | BackendError::Unlisted { .. } => CheckStatus::NotPermitted,
                BackendError::Transient { .. } | BackendError::Identity { .. } | BackendError::Unusable { .. } => {
                    CheckStatus::Unavailable
                }
            };
            let hint = match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            };
            (status, names(asked), Some(hint))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
