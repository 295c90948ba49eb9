//! Refresh, purge, shutdown.

use super::*;

fn operator(uid: u32) -> GrantSettings {
    GrantSettings { name: "operator".to_owned(), admin: true, ..grant(uid, &[]) }
}

#[tokio::test]
async fn who_may_not_is_refused_by_name_and_nothing_happens() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(9, &[("*", None)]), operator(10)]);
    for (uid, target, status) in [
        (9, "/v1/refresh", 403),
        (9, "/v1/purge", 403),
        (9, "/v1/shutdown", 403),
        (99, "/v1/purge", 403),
        (OWN_UID, "/v1/purge", 403),
        (OWN_UID, "/v1/shutdown", 403),
        (OWN_UID, "/v1/refresh", 200),
        (10, "/v1/purge", 200),
    ] {
        let answer = setting.ask_as(uid, "POST", target, &[], "").await;
        assert_eq!(answer.status, status, "{uid} {target}");
        if status == 403 {
            assert_eq!(answer.code(), "peer_refused");
        }
    }
    assert!(!*setting.agent.stop.borrow());
    assert_eq!(setting.ask_as(10, "POST", "/v1/shutdown", &[], "{}").await.status, 202);
    assert!(*setting.agent.stop.subscribe().borrow());
}

#[tokio::test]
async fn what_is_no_request_for_an_operation_is_refused() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    for target in ["/v1/refresh", "/v1/purge", "/v1/shutdown"] {
        for body in ["[]", "{", r#"{"secrets":"db"}"#, r#"{"secrets":[1]}"#, r#"{"secrets":[".."]}"#] {
            let answer = setting.post(target, body).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{target} {body}");
        }
        assert_eq!(setting.get(target).await.status, 405);
        assert_eq!(setting.post(&format!("{target}?x=1"), "").await.status, 400);
    }
    assert!(!*setting.agent.stop.borrow());
}

#[tokio::test]
async fn a_refresh_asks_again_for_values_and_absences_and_names_what_failed() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    assert_eq!(setting.get("/v1/secrets/db/user").await.body, b"u");
    assert_eq!(setting.get("/v1/secrets/late").await.status, 404);
    store.put("db", Scope::Public, &[("user", "new")]);
    store.put("late", Scope::Public, &[("k", "v")]);
    store.fail_name("With Spaces", FakeBackend::transient());
    let body = r#"{"secrets":["db","late","db","none","With Spaces"],"unknown":1}"#;
    let answer = setting.post("/v1/refresh", body).await.json();
    assert_eq!(answer["refreshed"], 2);
    let expected = serde_json::json!([
        { "secret": "With Spaces", "code": "backend_unavailable", "retry": true },
        { "secret": "none", "code": "secret_not_found", "retry": false },
    ]);
    assert_eq!(answer["failed"], expected);
    assert_eq!(store.fetches_of("db"), 2, "named twice, asked for once");
    let calls = store.fetches();
    assert_eq!(setting.get("/v1/secrets/db/user").await.body, b"new");
    assert_eq!(setting.get("/v1/secrets/late/k").await.body, b"v");
    assert_eq!(store.fetches(), calls);
}

#[tokio::test]
async fn a_refresh_of_everything_lists_what_is_polled_and_reads_what_is_held() {
    let (store, cloud) = (store(), Arc::new(FakeBackend::new().cheap_list(false).with("cloudy", &[("k", "v")])));
    let setting = setting(&[("store", &store, false), ("cloud", &cloud, false)], Vec::new());
    assert_eq!(setting.get("/v1/secrets/db").await.status, 200);
    assert_eq!(setting.get("/v1/secrets/cloudy").await.status, 200);
    assert_eq!(setting.get("/v1/secrets/late").await.status, 404);
    store.put("late", Scope::Public, &[("k", "v")]);
    cloud.put("cloudy", Scope::Public, &[("k", "changed")]);
    let lists = store.lists();
    let answer = setting.post("/v1/refresh", "").await.json();
    assert_eq!((&answer["refreshed"], &answer["failed"]), (&2.into(), &serde_json::json!([])));
    assert_eq!((store.lists(), cloud.lists()), (lists + 1, 0));
    assert_eq!(setting.get("/v1/secrets/cloudy/k").await.body, b"changed");
    assert_eq!(setting.get("/v1/secrets/late").await.status, 200);
    cloud.fail_always(FakeBackend::transient());
    store.fail_always(FakeBackend::transient());
    let answer = setting.post("/v1/refresh", "").await.json();
    assert_eq!(answer["refreshed"], 0);
    let failed: Vec<_> = answer["failed"].as_array().expect("a list").iter().map(|one| one["secret"].clone()).collect();
    assert_eq!(failed, ["cloudy".into(), "db".into(), "late".into(), Value::Null], "{answer}");
    assert_eq!(answer["failed"][3]["backend"], "store");
    assert_eq!(setting.get("/v1/secrets/cloudy/k").await.body, b"changed", "what is known stays");
}

#[tokio::test]
async fn an_operation_tells_nothing_of_a_secret_that_its_peer_may_not_read() {
    let store = store();
    let mut grant = operator(9);
    grant.read = vec![SecretPattern { secret: "mine*".to_owned(), keys: None }];
    let setting = setting(&[("store", &store, false)], vec![grant]);
    let ask = async |target: &str, name: &str| {
        let body = format!(r#"{{"secrets":["{name}"]}}"#);
        setting.ask_as(9, "POST", target, &[], &body).await
    };
    let (there, absent) = (ask("/v1/refresh", "db").await, ask("/v1/refresh", "absent").await);
    assert_eq!((there.status, &there.body), (200, &absent.body));
    assert_eq!(ask("/v1/refresh", "mine").await.json()["failed"][0]["secret"], "mine");
    let (there, absent) = (ask("/v1/purge", "db").await, ask("/v1/purge", "absent").await);
    assert_eq!(there.body, absent.body);
}

#[tokio::test]
async fn a_purge_forgets_values_and_absences_and_what_is_under_way() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    for name in ["db", "With%20Spaces", "none"] {
        setting.get(&format!("/v1/secrets/{name}")).await;
    }
    assert_eq!(setting.post("/v1/purge", r#"{"secrets":["db","none"]}"#).await.json()["purged"], 1);
    let status = setting.get("/v1/status").await.json();
    assert_eq!(status["cache"]["names"], serde_json::json!(["With Spaces"]));
    assert_eq!(setting.post("/v1/purge", "").await.json()["purged"], 1);
    let calls = store.fetches();
    let hold = store.hold();
    let arrived = store.calls();
    let reading = setting.get("/v1/secrets/db/user");
    let purging = async {
        store.calls_reach(arrived + 1).await;
        assert_eq!(setting.post("/v1/purge", "{}").await.status, 200);
        hold.release();
    };
    let (answer, ()) = tokio::join!(reading, purging);
    assert_eq!(answer.body, b"u", "who waited for the call is answered");
    assert_eq!(setting.get("/v1/status").await.json()["cache"]["entries"], 0, "and nothing of it is kept");
    setting.get("/v1/secrets/db").await;
    setting.get("/v1/secrets/none").await;
    assert_eq!(store.fetches(), calls + 3);
}
