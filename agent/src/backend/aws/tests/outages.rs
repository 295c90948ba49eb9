//! What this back-end makes of a server in trouble: as every other one that speaks HTTP.

use super::faults::{refusal, value};
use super::{error, open, plain, settings};
use crate::backend::faulty::{Answer, Faulty, Request};
use crate::backend::outages::{self, Subject};

const SUBJECT: Subject = Subject {
    open: |url, network, timeout| {
        let mut settings = settings(url, plain(""));
        (settings.network, settings.timeout) = (network, timeout);
        open(&settings).reader
    },
    sound: |_: &Request| value("db").into(),
    name: "db",
};

#[tokio::test]
async fn a_server_that_is_not_to_be_believed_is_an_outage_and_says_why() {
    outages::of_tls(&SUBJECT).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_outage() {
    outages::of_the_way_there(&SUBJECT).await;
}

#[tokio::test]
async fn what_says_nothing_of_a_secret_is_an_outage_that_costs_one_call_and_passes() {
    outages::of_replies(&SUBJECT).await;
}

#[tokio::test]
async fn a_storm_costs_one_call_a_read_and_passes() {
    outages::of_a_storm(&SUBJECT).await;
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_for_a_minute_at_most_and_nonsense_is_not() {
    outages::of_retry_after(&SUBJECT).await;
}

#[tokio::test]
async fn a_pause_may_also_be_asked_for_with_the_status_by_which_aws_throttles() {
    let server = Faulty::start(SUBJECT.sound).await;
    let backend = open(&settings(&server.url(), plain(""))).reader;
    server.follow(|_| match refusal(400, "ThrottlingException") {
        Answer::Reply(reply) => reply.header("Retry-After", "30").into(),
        other => other,
    });
    outages::check(&error(&*backend, "db").await, "throttled", "(ThrottlingException)", "this passes by itself");
    server.follow(SUBJECT.sound);
    outages::check(&error(&*backend, "db").await, "in the pause", "asked to be left alone", "try again then");
    assert_eq!(server.calls(), 1);
}
