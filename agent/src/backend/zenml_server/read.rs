//! Reading one secret: its id by its name, then its values by its id.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keyside_protocol::value::SecretValues;
use reqwest::StatusCode;
use reqwest::header::DATE;
use tokio::time::sleep;

use super::super::http::Reply;
use super::super::{BackendError, Description, Scopes, Secret};
use super::ZenmlServer;
use super::client::Request;
use super::error::{Doing, is_own_404};
use super::list::{choose, description, is_visible, version};
use super::session::Session;
use crate::layout::zenml_rest::{Item, Values, secret};

/// How often a fetch starts again when the secret changes under it.
const ATTEMPTS: usize = 5;

/// Between two attempts. ZenML commits a new secret before its values.
const PAUSE: Duration = Duration::from_millis(100);

/// ZenML commits a change of `updated` and the new values one after the other: values read this soon after `updated` may
/// still be the old ones, and would pass for the new ones until they expire. A server's own clock tells only seconds.
const DOUBT: SignedDuration = SignedDuration::from_secs(5);

/// Ends the version of a secret that was read while its change was young. No listing shows such a version, so change
/// detection reads the secret again until it is past doubt.
pub(super) const IN_DOUBT: char = '~';

/// What a look at one id has shown.
pub(super) enum Look {
    There(Item, Values, Age),
    /// ZenML itself says that there is nothing of this id; or that it cannot read its values, in the same words.
    Nothing,
}

/// How long ago a secret was changed, by the server's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Young,
    Settled,
}

impl ZenmlServer {
    pub(super) async fn read_secret(&self, name: &str, scopes: Scopes) -> Result<Secret, BackendError> {
        let mut nothing = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let session = self.client.session().await?;
            let items = self.named(&session, name).await?;
            let Some(item) = choose(&items, name, scopes) else { return Err(BackendError::NotFound) };
            match self.look(&session, &item.id).await? {
                Look::There(now, values, age) if is_same(item, &now) && is_visible(&session.server, &now) => {
                    let values = self.readable(name, values)?;
                    return Ok(Secret { description: self.describe_read(&now, age), values });
                }
                // Renamed or moved to another scope since: look again.
                Look::There(..) => {}
                Look::Nothing => nothing += 1,
            }
        }
        if nothing == ATTEMPTS {
            return Err(BackendError::Unusable {
                what: self.client.place.text(&format!("the server lists secret `{name}` but cannot read its values")),
                hint: Some(
                    "were they lost, or the server's encryption key changed? `zenml secret get` says what the server \
                     finds"
                        .to_owned(),
                ),
            });
        }
        Err(self.client.place.transient(&format!("secret `{name}` is being written"), "try again"))
    }

    /// Reads the secret with this id.
    pub(super) async fn look(&self, session: &Session, id: &str) -> Result<Look, BackendError> {
        let reply = self.client.ask(session, &Request::get(format!("/secrets/{id}"))).await?;
        if reply.status == StatusCode::NOT_FOUND && is_own_404(&reply) {
            return Ok(Look::Nothing);
        }
        if !reply.status.is_success() {
            return Err(self.client.place.refusal(Doing::OneSecret, &reply));
        }
        let (item, values) = self.read_reply(&reply)?;
        if item.id != id {
            return Err(self.client.place.malformed());
        }
        let age = age(&item, &reply);
        Ok(Look::There(item, values, age))
    }

    pub(super) fn read_reply(&self, reply: &Reply) -> Result<(Item, Values), BackendError> {
        // expose: decoded into values.
        secret(reply.body.expose()).map_err(|_| self.client.place.malformed())
    }

    fn describe_read(&self, item: &Item, age: Age) -> Description {
        let mut description = description(item);
        if age == Age::Young && !self.own_writes.contains(&version(item)) {
            description.version.push(IN_DOUBT);
        }
        description
    }

    /// Returns the values, where we may read them and none is too large.
    fn readable(&self, name: &str, values: Values) -> Result<SecretValues, BackendError> {
        let Values::Readable(values) = values else { return Err(self.client.place.values_withheld(name)) };
        if let Some((key, value)) = values.iter().find(|(_, value)| value.len() as u64 > self.max_value) {
            let (size, most) = (value.len(), self.max_value);
            return Err(BackendError::Unusable {
                what: format!(
                    "the value of key `{key}` of secret `{name}` is too large: {size} bytes, allowed are {most}"
                ),
                hint: Some("raise `[limits] value`".into()),
            });
        }
        Ok(values)
    }
}

fn is_same(listed: &Item, now: &Item) -> bool {
    listed.id == now.id && listed.name == now.name && listed.place == now.place
}

fn age(item: &Item, reply: &Reply) -> Age {
    let date = reply.headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
    let now = now.unwrap_or_else(Timestamp::now).to_zoned(TimeZone::UTC).datetime();
    match item.updated.parse::<DateTime>() {
        // A clock that is far behind for good says nothing.
        Ok(updated) if now.duration_since(updated).abs() <= DOUBT => Age::Young,
        _ => Age::Settled,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;
    use crate::layout::zenml_rest::Place;
    use keyside_protocol::json::SecretBuffer;

    #[test]
    fn a_change_is_young_for_five_seconds_by_the_servers_own_clock() {
        let check = |updated: &str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, HeaderValue::from_static("Sun, 22 Nov 2026 19:14:17 GMT"));
            let reply = Reply { status: StatusCode::OK, headers, body: SecretBuffer::with_capacity(0) };
            let item = Item {
                id: String::new(),
                name: String::new(),
                place: Place::Public,
                created: String::new(),
                updated: updated.to_owned(),
                owner: None,
            };
            assert_eq!(age(&item, &reply), expected, "{updated}");
        };
        check("2026-11-22T19:14:17.357763", Age::Young);
        check("2026-11-22T19:14:12.000000", Age::Young);
        check("2026-11-22T19:14:11.999999", Age::Settled);
        check("2026-11-22T20:14:17.357763", Age::Settled);
        check("yesterday", Age::Settled);
    }
}
