//! What is seen without changing anything.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use keyside_protocol::name::check_name;
use keyside_protocol::value::SecretValues;

use super::super::super::{Scope, Scopes};
use super::super::reply::{Class, Described, PluginError, Reason, Unfit};
use super::super::request::{Method, Params, scope_word};
use super::{Examiner, Look, Not, broken, refused, unseen};

/// Most secrets that are looked at one by one.
const SAMPLE: usize = 20;

/// Requests at the same time.
const CROWD: usize = 50;

/// Bytes of a request that is larger than any pipe.
const LARGE: usize = 256 << 10;

/// A secret of the list.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) described: std::sync::Arc<Described>,
}

impl Listed {
    fn scope(&self) -> Scope {
        self.described.scope.map_or(Scope::Public, |(scope, _)| scope)
    }

    /// The scope it was listed in, alone.
    fn scopes(&self) -> Scopes {
        only(self.scope())
    }

    fn shown(&self) -> String {
        shown(&self.name)
    }
}

pub(super) fn only(scope: Scope) -> Scopes {
    match scope {
        Scope::Private => Scopes::PrivateOnly,
        Scope::Public => Scopes::PublicOnly,
    }
}

/// A name fit for one line of a report.
pub(super) fn shown(name: &str) -> String {
    format!("`{}`", super::super::reply::words(name, 60))
}

/// The fields of a request for one secret.
fn about(name: &str, scopes: Scopes) -> Params {
    Params::new().text("name", name).scopes(scopes)
}

impl Examiner {
    pub(super) async fn list(&mut self) -> Result<(Vec<Listed>, String), Not> {
        let outcome = match self.ask(Method::List, Params::new()).await? {
            Ok(outcome) => outcome,
            Err(error) if error.class == Class::Denied => return unseen("it may not list: `denied`"),
            Err(error) => return broken(refused(Method::List, &error)),
        };
        if outcome.shows_values() {
            return broken("`list` shows values: only `fetch` may");
        }
        let Ok(described) = outcome.list() else {
            return broken("the result of `list` is not {\"secrets\": [{\"name\": ...}, ...]}, or a scope is unknown");
        };
        let mut listed = Vec::with_capacity(described.len());
        let mut seen = BTreeSet::new();
        for described in described {
            let Some(name) = described.name.clone() else { return broken("a listed secret has no `name`") };
            if let Err(error) = check_name(&name) {
                return broken(format!("the listed name {} cannot be asked for: {error}", shown(&name)));
            }
            let one = Listed { name, described: described.into() };
            if !seen.insert((one.name.clone(), one.scope() == Scope::Private)) {
                return broken(format!("{} is listed twice in one scope", one.shown()));
            }
            listed.push(one);
        }
        let unversioned = listed.iter().filter(|one| one.described.version.is_none()).count();
        let note = match unversioned {
            0 => String::new(),
            _ => format!("; {unversioned} without a version: changes are noticed only by reading"),
        };
        let what = format!("{}{note}", count(listed.len()));
        Ok((listed, what))
    }

    async fn described(&mut self, name: &str, scopes: Scopes) -> Result<Result<Described, PluginError>, Not> {
        match self.ask(Method::Describe, about(name, scopes)).await? {
            Err(error) => Ok(Err(error)),
            Ok(outcome) if outcome.shows_values() => broken("`describe` shows values: only `fetch` may"),
            Ok(outcome) => match outcome.description() {
                Ok(described) if described.name.as_deref().is_some_and(|other| other != name) => {
                    broken(format!("`describe` of {} is answered with another name", shown(name)))
                }
                Ok(described) => Ok(Ok(described)),
                Err(_) => broken(format!("the result of `describe` for {} is malformed", shown(name))),
            },
        }
    }

    pub(super) async fn fetched(
        &mut self,
        name: &str,
        scopes: Scopes,
    ) -> Result<Result<(Described, SecretValues), PluginError>, Not> {
        let max_value = self.greeting.max_value;
        match self.ask(Method::Fetch, about(name, scopes)).await? {
            Err(error) => Ok(Err(error)),
            Ok(outcome) => match outcome.secret(max_value) {
                Ok((described, _)) if described.name.as_deref().is_some_and(|other| other != name) => {
                    broken(format!("`fetch` of {} is answered with another name", shown(name)))
                }
                Ok(secret) => Ok(Ok(secret)),
                Err(Unfit::Malformed(_)) => {
                    broken(format!("the result of `fetch` for {} has no object `values`, or a key twice", shown(name)))
                }
                Err(unfit) => broken(format!("{}: {unfit}", shown(name))),
            },
        }
    }

    pub(super) async fn describe(&mut self, listed: &[Listed]) -> Look {
        if listed.is_empty() {
            return unseen("there is no secret to describe");
        }
        let sample = &listed[..listed.len().min(SAMPLE)];
        for one in sample {
            let described = match self.described(&one.name, one.scopes()).await? {
                Ok(described) => described,
                Err(error) if error.class == Class::Denied => continue,
                Err(error) => return broken(format!("{}: {}", one.shown(), refused(Method::Describe, &error))),
            };
            if let Some(field) = difference(&one.described, &described) {
                return broken(format!("`list` and `describe` tell a different `{field}` of {}", one.shown()));
            }
        }
        Ok(format!("{}, as listed", count(sample.len())))
    }

    pub(super) async fn fetch(&mut self, listed: &[Listed]) -> Look {
        let (mut read, mut denied) = (0, 0);
        for one in listed.iter().take(SAMPLE) {
            let (described, values) = match self.fetched(&one.name, one.scopes()).await? {
                Ok(secret) => secret,
                Err(error) if error.class == Class::Denied => {
                    denied += 1;
                    continue;
                }
                Err(error) => return broken(format!("{}: {}", one.shown(), refused(Method::Fetch, &error))),
            };
            let described = Described { keys: None, ..described };
            let listed = Described { keys: None, ..clone_of(&one.described) };
            if let Some(field) = difference(&listed, &described) {
                return broken(format!("`list` and `fetch` tell a different `{field}` of {}", one.shown()));
            }
            if let Some(keys) = &one.described.keys
                && !values.keys().eq(keys.iter().map(String::as_str))
            {
                return broken(format!("the listed `keys` of {} are not those of its values", one.shown()));
            }
            read += 1;
        }
        match (read, denied) {
            (0, 0) => unseen("there is no secret to fetch"),
            (0, denied) => unseen(format!("{}, all denied", count(denied))),
            (read, 0) => Ok(format!("{}, as listed", count(read))),
            (read, denied) => Ok(format!("{}, as listed; {denied} denied", count(read))),
        }
    }

    /// Names that nobody has, some of them as like as can be to one that somebody has.
    pub(super) async fn absent(&mut self, listed: &[Listed]) -> Look {
        let nonce = self.nonce.clone();
        let mut names = vec![
            format!("no-such-secret-{nonce}"),
            format!("naïve ключ 🔐 {nonce}"),
            format!("quo\"te' back\\slash/{nonce}"),
            format!("*%{nonce}' OR 1=1 --"),
            format!("{}{nonce}", "long-".repeat(40)),
        ];
        names.extend(listed.first().into_iter().flat_map(|one| [format!("{} ", one.name), format!("{}-", one.name)]));
        names.retain(|name| listed.iter().all(|one| one.name != *name) && check_name(name).is_ok());
        for name in &names {
            for method in [Method::Describe, Method::Fetch] {
                match self.ask(method, about(name, Scopes::PrivateFirst)).await? {
                    Err(error) if error.class == Class::NotFound => {}
                    Err(error) => {
                        let refused = refused(method, &error);
                        return broken(format!("{}, which is not there: {refused}, not `not_found`", shown(name)));
                    }
                    Ok(_) => {
                        let method = method.as_str();
                        return broken(format!("`{method}` finds {}, which is not there", shown(name)));
                    }
                }
            }
        }
        Ok(format!("{} names are `not_found`, Unicode and quotes among them", names.len()))
    }

    pub(super) async fn scopes(&mut self, listed: &[Listed]) -> Look {
        let lone = listed
            .iter()
            .filter(|one| one.described.scope.is_some())
            .filter(|one| listed.iter().filter(|other| other.name == one.name).count() == 1);
        let lone: Vec<_> = lone.take(SAMPLE).collect();
        if lone.is_empty() {
            return unseen("no listed secret has a `scope`");
        }
        for one in &lone {
            let other = if one.scope() == Scope::Private { Scope::Public } else { Scope::Private };
            match self.described(&one.name, only(other)).await? {
                Err(error) if error.class == Class::NotFound => {}
                Err(error) => return broken(format!("{}: {}", one.shown(), refused(Method::Describe, &error))),
                Ok(_) => {
                    let (name, scope) = (one.shown(), scope_word(other));
                    return broken(format!("{name} is found although only the scope `{scope}` was asked for"));
                }
            }
        }
        Ok(format!("{}, found in the own scope alone", count(lone.len())))
    }

    pub(super) async fn unknown_method(&mut self) -> Look {
        self.revive().await?;
        match self.ask_running("no-such-method", Params::new()).await? {
            Ok(_) => broken("a method that does not exist has a result"),
            Err(error) => {
                self.ask_running(Method::List.as_str(), Params::new()).await?.ok();
                Ok(format!("answered with the error `{}`, and the next request too", error.class.as_str()))
            }
        }
    }

    pub(super) async fn large_line(&mut self) -> Look {
        let name = format!("no-such-secret-{}", self.nonce);
        let params = about(&name, Scopes::PublicOnly).text("a_field_of_a_later_version", &"x".repeat(LARGE));
        match self.ask(Method::Describe, params).await? {
            Err(error) if error.class == Class::NotFound => {
                Ok(format!("a request of {} KiB with an unknown field is answered", LARGE >> 10))
            }
            Err(error) => broken(format!("with an unknown field, {}", refused(Method::Describe, &error))),
            Ok(_) => broken("with an unknown field, a secret that is not there is found"),
        }
    }

    /// Each of many requests at the same time gets its own answer.
    pub(super) async fn concurrent(&mut self, listed: &[Listed]) -> Look {
        self.revive().await?;
        let examiner = &*self;
        let asked = (0..CROWD).map(async |at| {
            let method = Method::Describe;
            match listed.get(at % (listed.len() + 1)) {
                Some(one) => match examiner.ask_running(method.as_str(), about(&one.name, one.scopes())).await? {
                    Err(error) if error.class == Class::Denied => Ok(()),
                    Err(error) => broken(format!("{}: {}", one.shown(), refused(method, &error))),
                    Ok(outcome) => match outcome.description() {
                        Ok(described) if difference(&one.described, &described).is_none() => Ok(()),
                        _ => broken(format!("{} is answered otherwise than alone", one.shown())),
                    },
                },
                None => {
                    let name = format!("no-such-secret-{at}-{}", examiner.nonce);
                    let params = about(&name, Scopes::PrivateFirst);
                    match examiner.ask_running(method.as_str(), params).await? {
                        Err(error) if error.class == Class::NotFound => Ok(()),
                        _ => broken(format!("{}, which is not there, is not `not_found`", shown(&name))),
                    }
                }
            }
        });
        join_all(asked).await.into_iter().collect::<Result<Vec<()>, Not>>()?;
        Ok(format!("{CROWD} requests, {} at a time, each with its own answer", super::PARALLELISM))
    }

    /// What a plug-in tells must not depend on which process tells it.
    pub(super) async fn second_run(&mut self, listed: &[Listed]) -> Look {
        self.start().await?;
        let (again, _) = self.list().await?;
        let version = |all: &[Listed], one: &Listed| {
            let same = all.iter().find(|other| other.name == one.name && other.scope() == one.scope());
            same.map(|same| same.described.version.clone())
        };
        let other = listed
            .iter()
            .filter(|one| one.described.version.is_some())
            .find(|one| version(&again, one).is_some_and(|version| version != one.described.version));
        match other {
            Some(one) => broken(format!(
                "another process tells another version of {}: either it has just changed, or versions are made up",
                one.shown()
            )),
            None if listed.is_empty() => unseen("there is no secret to compare"),
            None => Ok("another process lists the same versions".into()),
        }
    }
}

fn count(secrets: usize) -> String {
    if secrets == 1 { "1 secret".to_owned() } else { format!("{secrets} secrets") }
}

fn clone_of(described: &Described) -> Described {
    let Described { name, scope, id, version, keys } = described;
    Described { name: name.clone(), scope: *scope, id: id.clone(), version: version.clone(), keys: keys.clone() }
}

/// Names the first field in which two descriptions of one secret contradict each other; what one lacks is no
/// contradiction.
pub(super) fn difference(one: &Described, other: &Described) -> Option<&'static str> {
    fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
        one.zip(other).is_some_and(|(one, other)| one != other)
    }
    if differ(one.scope.as_ref(), other.scope.as_ref()) {
        Some("scope")
    } else if differ(one.id.as_ref(), other.id.as_ref()) {
        Some("id")
    } else if differ(one.version.as_ref(), other.version.as_ref()) {
        Some("version")
    } else if differ(one.keys.as_ref(), other.keys.as_ref()) {
        Some("keys")
    } else {
        None
    }
}

/// Says whether an error is the one that a write onto a taken name should get.
pub(super) fn says_taken(error: &PluginError) -> bool {
    error.class == Class::Invalid || error.reason == Some(Reason::Exists)
}
