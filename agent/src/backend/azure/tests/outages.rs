//! What this back-end makes of a vault and of a login service in trouble: as every other one that speaks HTTP.

use super::*;
use crate::backend::faulty::Faulty;
use crate::backend::outages::{self, Subject};

const SUBJECT: Subject = Subject {
    open: |url, network, timeout| {
        let mut settings = settings(url, principal("right"), plain());
        (settings.network, settings.timeout) = (network, timeout);
        open(&settings).reader
    },
    sound: |request| azure(request, |_, _| secret("db", "canary").into()),
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
async fn a_login_service_that_is_not_to_be_believed_is_an_outage_and_says_why() {
    outages::of_certificates(SUBJECT.sound, async |url, network| {
        let vault = Faulty::start(SUBJECT.sound).await;
        let mut settings = settings(&vault.url(), principal("canary-secret"), plain());
        settings.network = network;
        let BackendKind::Azure(azure) = &mut settings.kind else { panic!("Azure's") };
        azure.authority = Some(url.to_owned());
        fetch(&open(&settings), "db").await.map(|_| ())
    })
    .await;
}
