//! One token: how long it lives and what is known of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyside_protocol::value::SecretValue;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::super::http;
use crate::clock::Tick;

/// A token as it is sent, and what its login said.
pub(super) struct Token {
    /// The token itself; marked so that nothing prints it.
    pub(super) header: HeaderValue,
    /// Another number for another token of the same back-end.
    pub(super) generation: u64,
    since: Tick,
    /// `None` for one that does not expire, or of which nothing is known.
    lease: Option<Duration>,
    /// The lease that the login gave, before any renewal.
    first_lease: Option<Duration>,
    renewable: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it was last known to be alive.
    alive: Option<Tick>,
    /// When the server was last seen not to know it.
    dead: Option<Tick>,
    /// Not to be renewed before.
    rest: Option<Tick>,
}

/// What a login or a renewal answers.
#[derive(Deserialize)]
pub(super) struct Granted {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretValue,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Token {
    /// A token that was given to us.
    pub(super) fn given(text: &str, generation: u64, now: Tick) -> Option<Self> {
        let header = http::sensitive(text)?;
        Some(Self {
            header,
            generation,
            since: now,
            lease: None,
            first_lease: None,
            renewable: false,
            state: Mutex::default(),
        })
    }

    /// The token of a login that was sent at `now`; `None` when the answer holds none.
    pub(super) fn granted(granted: &Granted, generation: u64, now: Tick) -> Option<Self> {
        let auth = granted.auth.as_ref()?;
        // expose: into the header of requests, which is marked as sensitive.
        let text = std::str::from_utf8(auth.client_token.expose()).ok().filter(|text| !text.is_empty())?;
        let header = http::sensitive(text)?;
        let lease = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
        let state = Mutex::new(State { alive: Some(now), ..State::default() });
        Some(Self { header, generation, since: now, lease, first_lease: lease, renewable: auth.renewable, state })
    }

    /// The same token after a renewal that was sent at `now`.
    pub(super) fn renewed(&self, granted: &Granted, generation: u64, now: Tick) -> Option<Self> {
        let renewed = Self::granted(granted, generation, now)?;
        Some(Self { first_lease: self.first_lease, ..renewed })
    }

    pub(super) fn is_renewable(&self) -> bool {
        self.renewable
    }

    pub(super) fn is_expired(&self, now: Tick) -> bool {
        self.lease.is_some_and(|lease| now.since(self.since) >= lease)
    }

    /// Tells whether 80 % of the lease are gone.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        let rests = self.state().rest.is_some_and(|rest| now < rest);
        !rests && self.lease.is_some_and(|lease| now.since(self.since) >= lease * 4 / 5)
    }

    /// Tells whether renewals come to an end: the largest life of a token cuts its last leases short.
    pub(super) fn is_fading(&self) -> bool {
        matches!((self.lease, self.first_lease), (Some(lease), Some(first)) if lease < first / 2)
    }

    /// Puts off the next renewal after one that failed.
    pub(super) fn rest(&self, now: Tick) {
        let pause = self.lease.unwrap_or_default() / 20;
        self.state().rest = Some(now.after(pause.max(Duration::from_secs(1))));
    }

    /// Notes that the server knew it at `now`.
    pub(super) fn lives(&self, now: Tick) {
        self.state().alive = Some(now);
    }

    /// Tells whether it was known to be alive `since` then or later.
    pub(super) fn lived_since(&self, since: Tick) -> bool {
        self.state().alive.is_some_and(|alive| alive >= since)
    }

    /// Notes that the server did not know it at `now`.
    pub(super) fn died(&self, now: Tick) {
        self.state().dead = Some(now);
    }

    /// Tells whether it was seen to be dead `since` then or later.
    pub(super) fn died_since(&self, since: Tick) -> bool {
        self.state().dead.is_some_and(|dead| dead >= since)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::at(Duration::from_secs(seconds))
    }

    fn granted(lease: u64) -> Granted {
        serde_json::from_str(&format!(
            r#"{{"auth": {{"client_token": "s.1", "lease_duration": {lease}, "renewable": true, "more": 1}}}}"#
        ))
        .expect("an answer")
    }

    #[test]
    fn a_token_is_due_at_four_fifths_of_its_lease_and_gone_at_its_end() {
        let token = Token::granted(&granted(100), 1, at(1000)).expect("a token");
        assert!(!token.is_due(at(1079)) && token.is_due(at(1080)));
        assert!(!token.is_expired(at(1099)) && token.is_expired(at(1100)));
        token.rest(at(1080));
        assert!(!token.is_due(at(1084)) && token.is_due(at(1085)), "a failed renewal is put off");
    }

    #[test]
    fn a_token_without_a_lease_is_never_due() {
        for token in [Token::granted(&granted(0), 1, at(0)), Token::given("s.1", 1, at(0))] {
            let token = token.expect("a token");
            assert!(!token.is_due(at(1_000_000)) && !token.is_expired(at(1_000_000)) && !token.is_fading());
        }
    }

    #[test]
    fn a_token_whose_renewals_get_shorter_comes_to_its_end() {
        let first = Token::granted(&granted(100), 1, at(0)).expect("a token");
        assert!(!first.is_fading());
        assert!(!first.renewed(&granted(60), 2, at(80)).expect("a token").is_fading());
        assert!(first.renewed(&granted(40), 2, at(80)).expect("a token").is_fading());
    }

    #[test]
    fn an_answer_without_a_token_is_none() {
        for text in
            [r#"{}"#, r#"{"auth": null}"#, r#"{"auth": {"client_token": ""}}"#, r#"{"auth": {"client_token": "a\nb"}}"#]
        {
            let granted: Granted = serde_json::from_str(text).expect("an answer");
            assert!(Token::granted(&granted, 1, at(0)).is_none(), "{text}");
        }
    }
}
