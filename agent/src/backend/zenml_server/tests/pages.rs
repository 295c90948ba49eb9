//! Lists: pages of any size, that change while they are read, and what is asked for.

use std::sync::Mutex;

use super::*;
use crate::backend::faulty::Faulty;
use crate::request_id::{self, RequestIds};

/// Name, and when it was changed: a minute of one hour.
type Secrets = Vec<(String, u64)>;

/// What happens to them before a list is answered.
type Event = Box<dyn FnMut(&mut Secrets) + Send>;

/// A server with many secrets that pages them as ZenML does.
struct Store {
    secrets: Mutex<Secrets>,
    /// The most that a page may have.
    most: u64,
    /// What happens before the answer to the n-th list.
    events: Mutex<Vec<Event>>,
}

fn id_of(name: &str) -> String {
    let sum = name.bytes().fold(7_u128, |sum, byte| sum.wrapping_mul(1_000_003).wrapping_add(u128::from(byte)));
    crate::layout::zenml_rest::uuid(&format!("{sum:032x}")).expect("a UUID")
}

impl Store {
    fn of(count: usize, most: u64) -> Arc<Self> {
        let secrets = (0..count).map(|number| (format!("name-{number:05}"), 0)).collect();
        Arc::new(Self { secrets: Mutex::new(secrets), most, events: Mutex::default() })
    }

    async fn serve(self: &Arc<Self>) -> Faulty {
        let store = Arc::clone(self);
        Faulty::start(move |request| match request.path() {
            "/api/v1/secrets" => store.page(request.query()),
            _ => healthy(request),
        })
        .await
    }

    fn page(&self, query: &str) -> Answer {
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let mut secrets = self.secrets.lock().unwrap();
        let mut events = self.events.lock().unwrap();
        if !events.is_empty() {
            events.remove(0)(&mut secrets);
        }
        let number = |name: &str| parameter(name).map(|text| text.parse::<u64>().expect("a number"));
        let size = number("size").unwrap_or(20.min(self.most));
        if size > self.most {
            return Reply::json(422, r#"["ValueError","1 validation error"]"#).into();
        }
        let names = parameter("name");
        let since = parameter("updated").map(|text| {
            let minute = text.split("%3A").nth(1).expect("minutes");
            minute.parse::<u64>().expect("minutes")
        });
        let wanted: Vec<_> = secrets
            .iter()
            .filter(|(name, changed)| {
                let is_named = names.as_deref().is_none_or(|names| match names.split_once(':') {
                    Some(("equals", wanted)) => name == wanted,
                    Some(("oneof", list)) => list.contains(&format!("%22{name}%22")),
                    _ => false,
                });
                is_named && since.is_none_or(|since| *changed >= since)
            })
            .collect();
        let (page, total) = (number("page").unwrap_or(1), wanted.len() as u64);
        let pages = total.div_ceil(size).max(1);
        if page > pages {
            return raised(400, "ValueError");
        }
        let from = usize::try_from((page - 1) * size).expect("small");
        let items: Vec<_> = wanted
            .iter()
            .skip(from)
            .take(usize::try_from(size).expect("small"))
            .map(|(name, changed)| {
                item(&id_of(name), name, r#""private":false"#)
                    .replace("00:00:01.000000", &format!("00:{changed:02}:01.000000"))
            })
            .collect();
        let items = items.join(",");
        let text =
            format!(r#"{{"index":{page},"max_size":{size},"total_pages":{pages},"total":{total},"items":[{items}]}}"#);
        Reply::json(200, text).into()
    }

    fn then(&self, event: impl FnMut(&mut Secrets) + Send + 'static) {
        self.events.lock().unwrap().push(Box::new(event));
    }
}

async fn names(backend: &ZenmlServer) -> Vec<String> {
    let mut names: Vec<_> = backend.list().await.expect("list").into_iter().map(|one| one.name).collect();
    names.sort_unstable();
    names
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("name-{number:05}")).collect()
}

#[tokio::test]
async fn the_server_is_told_which_request_a_call_is_for() {
    let server = Faulty::start(healthy).await;
    let backend = open(&server.url(), None);
    let id = RequestIds::new("run").next();
    request_id::within(id, backend.fetch("a", Scopes::PrivateFirst)).await.expect("found");
    assert!(server.requests().iter().all(|request| request.header("x-request-id") == Some("run-1")));
    let asked = server.calls();
    backend.list().await.expect("a list");
    assert!(server.requests()[asked..].iter().all(|request| request.header("x-request-id").is_none()), "a poll");
}

#[tokio::test]
async fn the_size_of_a_page_decides_nothing() {
    for (count, most, calls) in
        [(0, 10_000, 1), (7, 10_000, 1), (7, 1, 8), (7, 7, 2), (2500, 10_000, 3), (250, 100, 14)]
    {
        let store = Store::of(count, most);
        let server = store.serve().await;
        let backend = open(&server.url(), None);
        assert_eq!(names(&backend).await, expected(count), "{count} {most}");
        assert_eq!(server.calls_to("/secrets"), calls, "{count} {most}");
        if let Some(last) = expected(count).last() {
            let described = backend.describe(&[last, "name"], Scopes::PublicOnly).await.expect("describe");
            assert_eq!(described.iter().flatten().count(), 1, "{count} {most}");
        }
    }
}

#[tokio::test]
async fn a_list_that_changes_while_it_is_read_is_read_again() {
    let store = Store::of(50, 20);
    let server = store.serve().await;
    let backend = open(&server.url(), None);
    assert_eq!(names(&backend).await.len(), 50);
    // Page 1 is as it was; before page 2 one of page 1 goes, so one of page 2 moves to where we have been.
    store.then(|_| ());
    store.then(|secrets| drop(secrets.remove(3)));
    let mut left = expected(50);
    left.remove(3);
    assert_eq!(names(&backend).await, left);
    // Before the last page, all that was on it goes: the server calls that page invalid.
    store.then(|_| ());
    store.then(|_| ());
    store.then(|secrets| secrets.truncate(10));
    assert_eq!(names(&backend).await.len(), 10);
}

#[tokio::test]
async fn a_list_that_never_holds_still_is_transient() {
    let store = Store::of(50, 20);
    let server = store.serve().await;
    for number in 0..100 {
        store.then(move |secrets| secrets.push((format!("more-{number:05}"), 0)));
    }
    let error = open(&server.url(), None).list().await.expect_err("it changes");
    check_error(&error, "transient", "changes all the time", "try again");
}

#[tokio::test]
async fn many_secrets_are_only_brought_up_to_date() {
    let store = Store::of(3000, 10_000);
    let server = store.serve().await;
    let backend = open(&server.url(), None);
    assert_eq!(names(&backend).await.len(), 3000);
    assert_eq!(server.calls_to("/secrets"), 3);
    store.secrets.lock().unwrap().iter_mut().for_each(|(_, changed)| *changed = 0);
    // Everything was changed in the same minute here, so that all of it is asked for once more.
    assert_eq!(names(&backend).await.len(), 3000);

    // Ten minutes later one is changed and one is new.
    let before = server.calls_to("/secrets");
    store.then(|secrets| {
        secrets[5].1 = 10;
        secrets.push(("new".into(), 10));
    });
    let listed = backend.list().await.expect("list");
    assert_eq!(listed.len(), 3001);
    let version = |name: &str| listed.iter().find(|one| one.name == name).expect("listed").version.clone();
    assert!(version("name-00005").ends_with("00:10:01.000000") && version("name-00006").ends_with("00:00:01.000000"));

    // From now on the latest change is ten minutes after all others: two small questions are enough.
    let settled = server.calls_to("/secrets");
    assert!(settled > before);
    assert_eq!(names(&backend).await.len(), 3001);
    assert_eq!(server.calls_to("/secrets"), settled + 2);
    let last = server.requests();
    let queries: Vec<_> = last.iter().rev().take(2).map(|request| request.query().to_owned()).collect();
    assert!(queries[1].contains("&updated=gte:2026-01-01%2000%3A05%3A01"), "{}", queries[1]);
    assert!(queries[0].contains("size=1"), "{}", queries[0]);

    // A deletion, and one that a creation hides, show at once: the numbers no longer agree.
    store.then(|secrets| drop(secrets.remove(0)));
    assert_eq!(names(&backend).await.len(), 3000);
    store.then(|secrets| {
        secrets.remove(0);
        secrets.push(("newer".into(), 11));
    });
    let listed = names(&backend).await;
    assert!(listed.contains(&"newer".to_owned()) && !listed.contains(&"name-00001".to_owned()));
}

#[tokio::test]
async fn a_thousand_names_are_few_questions() {
    let store = Store::of(1200, 10_000);
    let server = store.serve().await;
    let backend = open(&server.url(), None);
    let mut wanted = expected(1000);
    wanted.push("absent".into());
    wanted.push(wanted[0].clone());
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let described = backend.describe(&wanted, Scopes::PrivateFirst).await.expect("describe");
    let found: Vec<_> = described.iter().map(|one| one.as_ref().map(|one| one.name.as_str())).collect();
    for (name, found) in wanted.iter().zip(found) {
        assert_eq!(found, (*name != "absent").then_some(*name));
    }
    let calls = server.calls_to("/secrets");
    assert!(calls <= 6, "{calls}");
    assert!(server.requests().iter().all(|request| request.target.len() < 8000), "no URL too long for a proxy");
}

#[tokio::test]
async fn an_older_server_is_not_asked_what_it_would_not_understand() {
    let store = Store::of(30, 10_000);
    let listing = Arc::clone(&store);
    let server = Faulty::start(move |request| match request.path() {
        "/api/v1/info" => Reply::json(200, r#"{"version":"0.84.3"}"#).into(),
        "/api/v1/secrets" => listing.page(request.query()),
        _ => healthy(request),
    })
    .await;
    let wanted = expected(30);
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let described = open(&server.url(), None).describe(&wanted, Scopes::PublicOnly).await.expect("describe");
    assert_eq!(described.iter().flatten().count(), 30);
    assert!(server.requests().iter().all(|request| !request.target.contains("oneof")));
    assert_eq!(server.calls_to("/secrets"), 1);
}

#[tokio::test]
async fn a_listing_reads_no_value() {
    let server = Faulty::start(healthy).await;
    let backend = open(&server.url(), None);
    backend.list().await.expect("list");
    backend.describe(&["a", "b"], Scopes::PrivateFirst).await.expect("describe");
    assert_eq!(server.calls_to(ID), 0);
    assert_eq!(server.calls_to("/secrets"), 3);
}
