//! The four calls of AWS Secrets Manager that are made, each with what it tells in our own words.

use std::future::Future;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::primitives::{Blob, DateTime};
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry, Tag};
use keyside_protocol::value::SecretValue;

use super::super::BackendError;
use super::error::{Action, Class, Failure, class_of};
use super::session::Session;
use crate::layout::aws::Payload;

/// Secrets in one page of a list: the most that AWS gives.
const PAGE: i32 = 100;

/// Pages of one list: far more than any account has, and an end to a list without one.
const MOST_PAGES: usize = 10_000;

/// Secrets in one call of BatchGetSecretValue.
pub(super) const BATCH: usize = 20;

/// The stage of the version that is in force.
const CURRENT: &str = "AWSCURRENT";

/// Makes the calls of one back-end.
pub(super) struct Calls {
    pub(super) backend: String,
    pub(super) session: Session,
}

/// What is known of a secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) arn: String,
    pub(super) place: String,
    pub(super) version: String,
    /// Seconds of Unix time.
    pub(super) created: i64,
    tags: Vec<(String, String)>,
}

impl Seen {
    /// Returns the tags, in no order.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// `None` for one that is marked for deletion or has no value yet, which is no secret to anybody.
    fn of_entry(entry: SecretListEntry) -> Result<Option<Self>, Failure> {
        let stages = entry.secret_versions_to_stages.unwrap_or_default();
        let Some(version) = current(stages.into_iter()).filter(|_| entry.deleted_date.is_none()) else {
            return Ok(None);
        };
        Self::whole(entry.arn, entry.name, version, entry.created_date, entry.tags).map(Some)
    }

    fn of_description(output: DescribeSecretOutput) -> Result<Option<Self>, Failure> {
        let stages = output.version_ids_to_stages.unwrap_or_default();
        let Some(version) = current(stages.into_iter()).filter(|_| output.deleted_date.is_none()) else {
            return if output.name.is_some() { Ok(None) } else { Err(incomplete()) };
        };
        Self::whole(output.arn, output.name, version, output.created_date, output.tags).map(Some)
    }

    fn whole(
        arn: Option<String>,
        place: Option<String>,
        version: String,
        created: Option<DateTime>,
        tags: Option<Vec<Tag>>,
    ) -> Result<Self, Failure> {
        let (Some(arn), Some(place)) = (arn, place) else { return Err(incomplete()) };
        let tags = tags.unwrap_or_default().into_iter().filter_map(|tag| tag.key.zip(tag.value)).collect();
        Ok(Self { arn, place, version, created: created.map_or(i64::MAX, |created| created.secs()), tags })
    }
}

fn current(mut stages: impl Iterator<Item = (String, Vec<String>)>) -> Option<String> {
    stages.find(|(_, stages)| stages.iter().any(|stage| stage == CURRENT)).map(|(version, _)| version)
}

/// A value, and whose it is.
pub(super) struct Read {
    pub(super) arn: String,
    pub(super) version: String,
    pub(super) payload: Payload,
    place: String,
}

impl Read {
    fn of(
        arn: Option<String>,
        place: Option<String>,
        version: Option<String>,
        text: Option<String>,
        bytes: Option<Blob>,
    ) -> Result<Self, Failure> {
        // Into memory that is wiped, before anything can fail.
        let text = text.map(|text| Payload::Text(SecretValue::new(text.into_bytes())));
        let payload = text.or_else(|| bytes.map(|blob| Payload::Bytes(SecretValue::new(blob.into_inner()))));
        match (arn, place, version, payload) {
            (Some(arn), Some(place), Some(version), Some(payload)) => Ok(Self { arn, version, payload, place }),
            _ => Err(incomplete()),
        }
    }

    fn is_of(&self, id: &str) -> bool {
        self.arn == id || self.place == id
    }
}

/// A success that lacks what it must have says nothing.
fn incomplete() -> Failure {
    Failure::no_answer("its reply lacks what it must have")
}

impl Calls {
    /// Makes one call, and once more with other credentials where AWS no longer takes those it took before.
    async fn call<T, E, F>(&self, attempt: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut login = self.session.login();
        let mut may_renew = true;
        loop {
            let client = self.session.client(&login).await.map_err(Failure::Ours)?.clone();
            let failure = match Box::pin(attempt(client)).await {
                Ok(output) => {
                    login.accepted();
                    return Ok(output);
                }
                Err(error) => Failure::of(&error),
            };
            if failure.is_bad_login() && may_renew && self.session.renew(&login) {
                may_renew = false;
                login = self.session.login();
                continue;
            }
            if failure.class().is_some_and(|class| !matches!(class, Class::BadLogin | Class::Busy)) {
                login.accepted();
            }
            return Err(failure);
        }
    }

    /// Says what failed for the secret `name`, or for no one secret.
    pub(super) fn say(&self, failure: &Failure, action: Action, name: Option<&str>) -> BackendError {
        match (failure.say(&self.backend, action, name), self.session.profile()) {
            (BackendError::Identity { what, .. }, Some(profile)) if matches!(failure, Failure::NoLogin(_)) => {
                let hint = "is it in `~/.aws/config` or `~/.aws/credentials` of the agent's user, with keys, a role or a program?";
                BackendError::Identity { what: format!("{what} (profile `{profile}`)"), hint: Some(hint.to_owned()) }
            }
            (error, _) => error,
        }
    }

    /// Reads one value; `id` is a name in AWS or an ARN, `name` what it is called in messages.
    pub(super) async fn read(&self, id: &str, name: &str) -> Result<Read, BackendError> {
        let output = self.call(|client| client.get_secret_value().secret_id(id).send()).await;
        let read = output.and_then(|output| {
            Read::of(output.arn, output.name, output.version_id, output.secret_string, output.secret_binary)
        });
        match read {
            Ok(read) if read.is_of(id) => Ok(read),
            Ok(_) => Err(self.say(&incomplete(), Action::Get, Some(name))),
            Err(failure) => Err(self.settle(id, name, &failure).await),
        }
    }

    /// Turns a failure to read into what it means for the secret. A state that forbids reading may be a mark for deletion,
    /// which only a description tells without looking at the message's words; where that is refused too, there is no other
    /// such state that AWS documents.
    async fn settle(&self, id: &str, name: &str, failure: &Failure) -> BackendError {
        if failure.class() != Some(Class::WrongState) {
            return self.say(failure, Action::Get, Some(name));
        }
        match self.describe(id).await {
            Ok(Some(_)) => self.say(failure, Action::Get, Some(name)),
            Ok(None) => BackendError::NotFound,
            Err(failure) if failure.class() == Some(Class::Denied) => BackendError::NotFound,
            Err(failure) => self.say(&failure, Action::Describe, Some(name)),
        }
    }

    /// Reads up to [`BATCH`] values in one call, in the order asked; `None` where the reply is silent about one.
    pub(super) async fn read_batch(
        &self,
        wanted: &[(&str, &str)],
    ) -> Result<Vec<Option<Result<Read, BackendError>>>, Failure> {
        let ids: Vec<String> = wanted.iter().map(|(id, _)| (*id).to_owned()).collect();
        let output = self.call(|client| client.batch_get_secret_value().set_secret_id_list(Some(ids.clone())).send());
        let output = output.await?;
        let mut answers: Vec<Option<Result<Read, Failure>>> = wanted.iter().map(|_| None).collect();
        for entry in output.secret_values.unwrap_or_default() {
            let read = Read::of(entry.arn, entry.name, entry.version_id, entry.secret_string, entry.secret_binary)?;
            if let Some(at) = wanted.iter().position(|(id, _)| read.is_of(id)) {
                answers[at] = Some(Ok(read));
            }
        }
        for error in output.errors.unwrap_or_default() {
            let (Some(id), Some(code)) = (error.secret_id, error.error_code) else { continue };
            if let Some(at) = wanted.iter().position(|(wanted, _)| *wanted == id) {
                answers[at].get_or_insert_with(|| Err(Failure::Refused(class_of(&code, 400), code)));
            }
        }
        let mut settled = Vec::with_capacity(wanted.len());
        for ((id, name), answer) in wanted.iter().zip(answers) {
            settled.push(match answer {
                None => None,
                Some(Ok(read)) => Some(Ok(read)),
                Some(Err(failure)) => Some(Err(self.settle(id, name, &failure).await)),
            });
        }
        Ok(settled)
    }

    /// Describes one secret; `None` where it is absent.
    pub(super) async fn describe(&self, id: &str) -> Result<Option<Seen>, Failure> {
        match self.call(|client| client.describe_secret().secret_id(id).send()).await {
            Ok(output) => Seen::of_description(output),
            Err(failure) if failure.class() == Some(Class::NotFound) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Lists what every one of `filters` lets through, a page at a time, until `take` has enough. Tells whether the list
    /// came to its end.
    pub(super) async fn list(
        &self,
        filters: &[Filter],
        mut take: impl FnMut(Vec<Seen>) -> bool,
    ) -> Result<bool, Failure> {
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let filters = (!filters.is_empty()).then(|| filters.to_vec());
            let page = self.call(|client| {
                let page = client.list_secrets().max_results(PAGE).set_filters(filters.clone());
                page.set_next_token(token.clone()).send()
            });
            let page = page.await?;
            let Some(entries) = page.secret_list else { return Err(incomplete()) };
            let seen = entries.into_iter().map(Seen::of_entry).filter_map(Result::transpose);
            let is_enough = take(seen.collect::<Result<_, _>>()?);
            match page.next_token.filter(|next| !next.is_empty()) {
                None => return Ok(true),
                Some(_) if is_enough => return Ok(false),
                Some(next) if token.as_deref() == Some(next.as_str()) => break,
                Some(next) => token = Some(next),
            }
        }
        Err(Failure::no_answer("its list has no end"))
    }
}

/// A filter of a list: what begins with one of `values`.
pub(super) fn filter(key: FilterNameStringType, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder().key(key).set_values(Some(values.into_iter().collect())).build()
}
