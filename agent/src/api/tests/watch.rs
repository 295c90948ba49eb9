//! Streams of events.

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::*;
use crate::refresh;
use crate::timer::Timer;

/// A client that watches.
struct Watcher {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    serving: JoinHandle<()>,
    head: String,
}

impl Setting {
    /// Has the agent attend to its watchers, without polling.
    fn attended(self) -> (Self, JoinHandle<()>) {
        let resolver = Arc::clone(&self.agent.resolver);
        let attending = tokio::spawn(async move {
            let timer = Timer::start().expect("a thread");
            refresh::attend(&resolver, &timer).await;
        });
        (self, attending)
    }

    fn connect(&self, uid: u32) -> (UnixStream, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let current = Arc::clone(&self.current);
        (ours, tokio::spawn(crate::serve::serve_one(current, theirs, connection(uid), Arc::default())))
    }

    async fn watch_as(&self, uid: u32, query: &str) -> Watcher {
        let (stream, serving) = self.connect(uid);
        let (read, mut write) = stream.into_split();
        let request = format!("GET /v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        write.write_all(request.as_bytes()).await.expect("taken");
        let mut watcher = Watcher { read: BufReader::new(read), write, serving, head: String::new() };
        watcher.head = watcher.block().await.join("\n");
        watcher
    }

    async fn watch(&self, query: &str) -> Watcher {
        self.watch_as(OWN_UID, query).await
    }
}

impl Watcher {
    /// Reads lines up to an empty one; nothing at the end of the stream.
    async fn block(&mut self) -> Vec<String> {
        use tokio::io::AsyncBufReadExt as _;
        let mut lines = Vec::new();
        let mut line = String::new();
        while self.read.read_line(&mut line).await.is_ok_and(|count| count > 0) {
            let text = line.trim_end().to_owned();
            line.clear();
            if text.is_empty() {
                break;
            }
            lines.push(text);
        }
        lines
    }

    /// Reads the next event: its name and its data.
    async fn event(&mut self) -> (String, Value) {
        loop {
            let lines = self.block().await;
            let part = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            match (part("event: "), part("data: ")) {
                (Some(event), Some(data)) => return (event, serde_json::from_str(&data).expect("JSON")),
                _ if lines.is_empty() => return ("end".to_owned(), Value::Null),
                _ => assert!(lines[0].starts_with(':'), "{lines:?}"),
            }
        }
    }

    async fn told(&mut self) -> String {
        let (event, data) = self.event().await;
        format!("{event} {}", data["secret"].as_str().unwrap_or_default())
    }
}

#[tokio::test]
async fn a_watcher_is_greeted_with_revisions_and_told_of_what_happens_without_a_value() {
    let store = store();
    let (setting, _attending) = setting(&[("store", &store, true)], Vec::new()).attended();
    let mut watcher = setting.watch("secret=db&secret=new&secret=db&secret=With%20Spaces").await;
    assert!(watcher.head.starts_with("HTTP/1.1 200 OK\nContent-Type: text/event-stream\nCache-Control: no-store"));
    assert!(watcher.head.contains("Keyside-Protocol: 1"));
    let (event, hello) = watcher.event().await;
    assert_eq!((event.as_str(), &hello["instance"]), ("hello", &setting.agent.resolver.instance().into()));
    let names: Vec<_> = hello["revisions"].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["With Spaces", "db"]);
    assert_eq!(setting.agent.resolver.watches().watchers(), 1);

    store.put("db", Scope::Public, &[("user", "changed")]);
    setting.agent.resolver.list(0).await.expect("listed");
    let (event, data) = watcher.event().await;
    assert_eq!((event.as_str(), &data["secret"]), ("change", &"db".into()));
    assert!(data["revision"].as_u64() > hello["revisions"]["db"].as_u64());
    let read = setting.get("/v1/secrets/db").await.json();
    assert_eq!((&read["revision"], &read["version"]), (&data["revision"], &data["version"]));
    assert_eq!(data.as_object().map(serde_json::Map::len), Some(3), "{data}");

    store.remove("db", Scope::Public);
    setting.agent.resolver.list(0).await.expect("listed");
    assert_eq!(watcher.told().await, "delete db");
    store.put("db", Scope::Public, &[("user", "again")]);
    setting.agent.resolver.list(0).await.expect("listed");
    assert_eq!(watcher.told().await, "change db");
    assert_eq!(setting.post("/v1/secrets", r#"{"name":"new","values":{"k":"1"}}"#).await.status, 201);
    assert_eq!(watcher.told().await, "change new", "after a write nobody waits for the next poll");
}

#[tokio::test]
async fn what_a_listing_says_of_an_absent_secret_or_of_a_better_back_end_is_looked_after() {
    let (store, legacy) = (Arc::new(FakeBackend::new()), Arc::new(FakeBackend::new().with("db", &[("k", "old")])));
    let (setting, _attending) = setting(&[("store", &store, false), ("legacy", &legacy, false)], Vec::new()).attended();
    let mut watcher = setting.watch("secret=db&secret=late").await;
    let (_, hello) = watcher.event().await;
    store.put("db", Scope::Public, &[("k", "new")]);
    legacy.put("late", Scope::Public, &[("k", "v")]);
    setting.agent.resolver.list(0).await.expect("listed");
    let (event, data) = watcher.event().await;
    assert_eq!((event.as_str(), &data["secret"]), ("change", &"db".into()));
    setting.agent.resolver.list(1).await.expect("listed");
    assert_eq!(watcher.told().await, "change late");
    store.remove("db", Scope::Public);
    setting.agent.resolver.list(0).await.expect("listed");
    let (event, back) = watcher.event().await;
    assert_eq!((event.as_str(), &back["secret"]), ("change", &"db".into()), "what it hid is there again");
    assert!(back["revision"].as_u64() > data["revision"].as_u64(), "a revision never goes back: {hello} {data} {back}");
    assert_eq!(setting.get("/v1/secrets/db").await.json()["revision"], back["revision"]);
}

#[tokio::test]
async fn what_the_first_back_end_lost_is_looked_for_in_the_next_at_once_though_that_one_is_not_listed() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", "first")]).with("x", &[("k", "v")]));
    let legacy = Arc::new(FakeBackend::new().with("db", &[("k", "second")]));
    let (setting, _attending) = setting(&[("store", &store, false), ("legacy", &legacy, false)], Vec::new()).attended();
    let mut watcher = setting.watch("secret=db&secret=x").await;
    let (_, hello) = watcher.event().await;
    assert_eq!(hello["revisions"].as_object().map(serde_json::Map::len), Some(2), "{hello}");
    assert_eq!(legacy.calls(), 0);
    store.remove("db", Scope::Public);
    store.remove("x", Scope::Public);
    setting.agent.resolver.list(0).await.expect("listed");
    let both = async { std::collections::BTreeSet::from([watcher.told().await, watcher.told().await]) };
    let told =
        tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("long before the ttl is over");
    assert_eq!(told, ["change db".to_owned(), "delete x".to_owned()].into());
    assert_eq!((legacy.fetches_of("db"), legacy.fetches_of("x"), legacy.lists()), (1, 1, 0));
}

#[tokio::test]
async fn a_name_outside_the_grant_closes_the_door_for_all_before_any_call() {
    let store = store();
    let grants = vec![grant(9, &[("db", Some(&["user"])), ("gone", None)])];
    let setting = setting(&[("store", &store, false)], grants);
    let mut answers = Vec::new();
    for query in ["secret=With%20Spaces", "secret=absent", "secret=db&secret=absent"] {
        let answer = setting.ask_as(9, "GET", &format!("/v1/watch?{query}"), &[], "").await;
        answers.push((answer.status, answer.head, answer.body));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let read = setting.ask_as(9, "GET", "/v1/secrets/absent", &[], "").await;
    assert_eq!((answers[0].0, &answers[0].2), (404, &read.body));
    assert_eq!(store.calls(), 0);
    let mut watcher = setting.watch_as(9, "secret=db").await;
    assert_eq!(watcher.event().await.0, "hello", "some of its keys are enough");
}

#[tokio::test]
async fn what_is_no_request_for_a_stream_is_refused() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    let many: String = (0..1001).map(|number| format!("secret=s{number}&")).collect();
    for query in [
        "",
        "?",
        "?secret=",
        "?secret=..",
        "?secret=a%00",
        "?secret=db&x=1",
        "?name=db",
        "?secret",
        &format!("?{many}"),
    ] {
        let answer = setting.get(&format!("/v1/watch{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{query}");
    }
    assert_eq!(setting.post("/v1/watch?secret=db", "").await.status, 405);
    assert_eq!(setting.ask_as(99, "GET", "/v1/watch?secret=db", &[], "").await.code(), "peer_refused");
}

#[tokio::test]
async fn watchers_of_one_uid_are_bounded_and_room_comes_back() {
    let setting = setting(&[("store", &store(), false)], Vec::new());
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let mut watcher = setting.watch("secret=db").await;
        assert_eq!(watcher.event().await.0, "hello");
        watchers.push(watcher);
    }
    let answer = setting.get("/v1/watch?secret=db").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "too_many_requests"));
    let Watcher { read, write, serving, .. } = watchers.pop().expect("ten");
    drop((read, write));
    serving.await.expect("it is noticed that the client has gone");
    assert_eq!(setting.watch("secret=db").await.event().await.0, "hello");
}

#[tokio::test]
async fn hundreds_of_watchers_cost_one_call_and_each_is_told() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let (setting, _attending) = reloaded(setting, Vec::new(), 500).attended();
    let mut watchers = Vec::new();
    for _ in 0..300 {
        let mut watcher = setting.watch("secret=db").await;
        assert_eq!(watcher.event().await.0, "hello");
        watchers.push(watcher);
    }
    assert_eq!(store.fetches(), 1);
    store.put("db", Scope::Public, &[("user", "changed")]);
    setting.agent.resolver.list(0).await.expect("listed");
    for watcher in &mut watchers {
        assert_eq!(watcher.told().await, "change db");
    }
    assert_eq!(store.fetches(), 2);
}

/// The same agent after a reload.
fn reloaded(setting: Setting, grants: Vec<GrantSettings>, watchers_per_uid: usize) -> Setting {
    let old = &setting.agent;
    let agent = Arc::new(Agent {
        resolver: Arc::clone(&old.resolver),
        access: Access::new(OWN_UID, grants, vec![("agent".to_owned(), None)]),
        audit: Arc::clone(&old.audit),
        limits: LimitSettings { watchers_per_uid, ..old.limits.clone() },
        listeners: Vec::new(),
        connections: Arc::default(),
        stop: old.stop.clone(),
        metrics: Arc::clone(&old.metrics),
        ..**old
    });
    setting.current.replace(Arc::clone(&agent));
    agent.resolver.watches().reloaded();
    Setting { agent, current: setting.current }
}

#[tokio::test]
async fn a_back_end_that_is_down_does_not_keep_a_stream_from_opening() {
    let store = store();
    store.fail_always(FakeBackend::transient());
    let (setting, _attending) = setting(&[("store", &store, false)], Vec::new()).attended();
    let mut watcher = setting.watch("secret=db").await;
    let (event, hello) = watcher.event().await;
    assert_eq!((event.as_str(), &hello["revisions"]), ("hello", &serde_json::json!({})));
    store.recover();
    assert_eq!(watcher.told().await, "change db", "it is told when it comes");
}

#[tokio::test]
async fn a_purge_is_no_news_and_ends_no_stream() {
    let store = store();
    let (setting, _attending) = setting(&[("store", &store, false)], Vec::new()).attended();
    let mut watcher = setting.watch("secret=db").await;
    watcher.event().await;
    assert_eq!(setting.post("/v1/purge", "").await.json()["purged"], 1);
    setting.get("/v1/secrets/db").await;
    store.put("db", Scope::Public, &[("user", "changed")]);
    setting.agent.resolver.list(0).await.expect("listed");
    assert_eq!(watcher.told().await, "change db", "the next that is heard");
}

#[tokio::test]
async fn a_grant_that_is_taken_away_ends_the_stream() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(9, &[("*", None)])]);
    let (setting, _attending) = setting.attended();
    let mut watcher = setting.watch_as(9, "secret=db").await;
    assert_eq!(watcher.event().await.0, "hello");
    store.put("db", Scope::Public, &[("user", "not for them")]);
    let _setting = reloaded(setting, vec![grant(9, &[("other", None)])], 10);
    assert_eq!(watcher.event().await.0, "end");
    watcher.serving.await.expect("no panic");
}

#[tokio::test]
async fn a_client_that_closed_its_half_is_still_told_and_noticed_when_it_goes() {
    let store = store();
    let (setting, _attending) = setting(&[("store", &store, false)], Vec::new()).attended();
    let Watcher { read, mut write, serving, .. } = setting.watch("secret=db").await;
    write.shutdown().await.expect("half");
    let mut watcher = Watcher { read, write, serving, head: String::new() };
    assert_eq!(watcher.event().await.0, "hello");
    store.put("db", Scope::Public, &[("user", "changed")]);
    setting.agent.resolver.list(0).await.expect("listed");
    assert_eq!(watcher.told().await, "change db");
    drop(watcher);
    gone(&setting).await;
}

/// Waits until nobody watches.
async fn gone(setting: &Setting) {
    while setting.agent.resolver.watches().watchers() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_behind_a_watch_is_executed_and_who_talks_on_is_cut_off() {
    let store = store();
    let setting = setting(&[("store", &store, false)], Vec::new());
    let (mut stream, serving) = setting.connect(OWN_UID);
    let watch = "GET /v1/watch?secret=none HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let read = "GET /v1/secrets/db HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(format!("{watch}{read}").as_bytes()).await.expect("taken");
    // The stream ends because of what is said on it, sooner or later than it is all written.
    while stream.write_all(&[b'x'; 1024]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    serving.await.expect("no panic");
    assert_eq!(store.fetches_of("db"), 0);
}

#[tokio::test]
async fn a_reply_that_is_not_taken_yet_comes_before_the_stream() {
    let store = Arc::new(FakeBackend::new().with("db", &[("k", &"x".repeat(1_000_000))]));
    let setting = setting(&[("store", &store, false)], Vec::new());
    setting.get("/v1/secrets/db/k").await;
    let (mut stream, _serving) = setting.connect(OWN_UID);
    let read = "GET /v1/secrets/db/k HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let watch = "GET /v1/watch?secret=db HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(format!("{read}{watch}").as_bytes()).await.expect("taken");
    let mut received = Vec::new();
    while !received.ends_with(b"}\n\n") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.expect("open");
        assert!(count > 0, "it ends too early, after {} bytes", received.len());
        received.extend(&bytes[..count]);
    }
    let text = String::from_utf8(received).expect("text");
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2);
    assert!(text.find(&"x".repeat(1_000_000)) < text.find("event: hello"));
}
