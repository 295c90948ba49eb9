use super::*;

const TTL: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Tick {
    Tick::at(Duration::from_secs(1000 + seconds))
}

fn mark(revision: u64, confirmed: u64) -> Mark {
    Mark {
        place: 0,
        id: Some("id".to_owned()),
        version: format!("v{revision}"),
        revision,
        confirmed: at(confirmed),
        ttl: TTL,
        failing: false,
    }
}

fn present(mark: Mark) -> Outlook {
    let due = mark.confirmed.after(mark.ttl);
    Outlook { sight: Sight::Present(mark), due: Some(due), ttl: TTL, lacking: Vec::new() }
}

fn absent() -> Outlook {
    Outlook { sight: Sight::Absent, due: None, ttl: TTL, lacking: Vec::new() }
}

fn unknown() -> Outlook {
    Outlook { sight: Sight::Unknown, due: None, ttl: TTL, lacking: Vec::new() }
}

struct Scene {
    board: Board,
}

impl Scene {
    fn new() -> Self {
        Self { board: Board::default() }
    }

    /// Takes in what is seen of `a`, and begins the call that is due.
    fn settle(&mut self, outlook: Outlook, now: Tick) -> bool {
        let ask = self.board.settle("a", outlook, now);
        if ask {
            self.board.asking("a");
        }
        ask
    }

    /// A watcher of `names` that has said hello.
    fn watcher(&mut self, names: &[&str]) -> u64 {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let id = self.board.enter(1, 100, &names, Arc::default()).expect("room");
        self.board.hello(id);
        id
    }

    fn told(&mut self, id: u64) -> Vec<String> {
        std::iter::from_fn(|| self.board.next_event(id))
            .map(|event| match event {
                Event::Change { name, revision, .. } => format!("change {name} {revision}"),
                Event::Delete { name, revision, .. } => format!("delete {name} {revision}"),
                Event::Stale { name, revision, .. } => format!("stale {name} {revision}"),
                Event::Fresh { name, revision, .. } => format!("fresh {name} {revision}"),
            })
            .collect()
    }
}

#[test]
fn what_appears_changes_goes_and_comes_back_is_told_once_each() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a"]);
    for (outlook, told) in [
        (absent(), vec![]),
        (present(mark(1, 0)), vec!["change a 1"]),
        (present(mark(1, 1)), vec![]),
        (present(mark(2, 2)), vec!["change a 2"]),
        (unknown(), vec![]),
        (absent(), vec!["delete a 2"]),
        (absent(), vec![]),
        (present(mark(3, 3)), vec!["change a 3"]),
    ] {
        scene.board.settle("a", outlook, at(5));
        assert_eq!(scene.told(id), told);
    }
}

#[test]
fn a_slow_watcher_finds_the_latest_state_and_nothing_in_between() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a", "b"]);
    for revision in 1..1000 {
        scene.board.settle("a", present(mark(revision, 0)), at(1));
        scene.board.settle("b", present(mark(revision, 0)), at(1));
        scene.board.settle("b", absent(), at(1));
    }
    assert!(scene.board.watchers[&id].news.len() <= 2, "at most one entry a name waits");
    assert_eq!(scene.told(id), ["change a 999"], "what came and went again is no news");
    scene.board.settle("a", absent(), at(2));
    scene.board.settle("a", present(mark(2000, 0)), at(2));
    assert_eq!(scene.told(id), ["change a 2000"], "gone and made again is a change");
}

#[test]
fn a_value_that_was_evicted_or_only_touched_is_no_change() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a"]);
    scene.board.settle("a", present(mark(1, 0)), at(0));
    assert_eq!(scene.told(id), ["change a 1"]);
    let evicted = Mark { revision: 9, ..mark(1, 3) };
    scene.board.settle("a", present(evicted), at(3));
    let touched = Mark { revision: 9, version: "touched".to_owned(), ..mark(1, 4) };
    scene.board.settle("a", present(touched), at(4));
    assert_eq!(scene.told(id), [""; 0]);
    let elsewhere = Mark { place: 1, revision: 10, version: "touched".to_owned(), ..mark(1, 5) };
    scene.board.settle("a", present(elsewhere), at(5));
    assert_eq!(scene.told(id), ["change a 10"], "another back-end's secret is another");
}

#[test]
fn stale_is_told_when_a_call_failed_or_does_not_come_back_and_fresh_when_it_is_confirmed() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a"]);
    scene.board.settle("a", present(mark(1, 0)), at(0));
    scene.told(id);
    assert_eq!(scene.board.next_look(), Some(at(60)));
    assert_eq!(scene.board.take_due(at(59)), []);
    assert_eq!(scene.board.take_due(at(60)), ["a".into()]);
    assert!(scene.board.settle("a", present(mark(1, 0)), at(60)), "a call is made first");
    assert_eq!(scene.told(id), [""; 0]);
    let failing = Mark { failing: true, ..mark(1, 0) };
    scene.board.settle("a", present(failing), at(60));
    assert_eq!(scene.told(id), ["stale a 1"]);
    scene.board.settle("a", present(mark(1, 0)), at(100));
    assert_eq!(scene.told(id), [""; 0], "once");
    scene.board.settle("a", present(mark(1, 100)), at(100));
    assert_eq!(scene.told(id), ["fresh a 1"]);

    scene.board.settle("a", present(mark(1, 100)), at(160));
    assert_eq!(scene.told(id), [""; 0]);
    assert_eq!(scene.board.take_due(at(161)), ["a".into()], "looked at again after the grace");
    scene.board.settle("a", present(mark(1, 100)), at(161));
    assert_eq!(scene.told(id), ["stale a 1"]);
    scene.board.settle("a", present(mark(2, 162)), at(162));
    assert_eq!(scene.told(id), ["change a 2"], "a new value is fresh by itself");
    scene.board.settle("a", present(mark(2, 162)), at(163));
    assert_eq!(scene.told(id), [""; 0]);
}

#[test]
fn a_hello_names_what_is_there_and_what_is_stale_follows_it() {
    let mut scene = Scene::new();
    let first = scene.watcher(&["a", "b"]);
    scene.board.settle("a", present(mark(4, 0)), at(0));
    scene.board.settle("a", present(mark(4, 0)), at(70));
    scene.board.settle("b", absent(), at(70));
    assert_eq!(scene.told(first), ["change a 4", "stale a 4"]);
    let names = ["a".to_owned(), "b".to_owned()];
    let second = scene.board.enter(1, 100, &names, Arc::default()).expect("room");
    scene.board.settle("a", present(mark(5, 71)), at(71));
    assert_eq!(scene.told(second), [""; 0], "nothing before the hello");
    scene.board.settle("a", present(mark(5, 0)), at(73));
    assert_eq!(scene.board.hello(second), [("a".into(), 5)]);
    assert_eq!(scene.told(second), ["stale a 5"]);
}

#[test]
fn one_call_is_asked_for_at_a_time_and_failures_back_off() {
    let mut scene = Scene::new();
    scene.watcher(&["a"]);
    scene.watcher(&["a"]);
    assert!(scene.settle(unknown(), at(0)));
    assert!(!scene.settle(unknown(), at(0)), "one is under way");
    scene.board.asked("a", false, at(0), 1.0);
    assert!(!scene.settle(unknown(), at(0)));
    let again = scene.board.next_look().expect("it is tried again");
    assert!(again > at(0));
    scene.board.take_due(again);
    assert!(scene.settle(unknown(), again));
    scene.board.asked("a", true, again, 1.0);
    scene.settle(present(mark(1, 0)), at(1));
    assert!(!scene.settle(unknown(), at(2)), "purged or evicted: it rests until its ttl");
    assert!(scene.settle(unknown(), at(61)));
    scene.board.asked("a", true, at(61), 1.0);
    scene.board.touch("a", true);
    assert!(scene.settle(unknown(), at(62)), "something says that it is another now");
}

#[test]
fn a_secret_that_its_back_end_lost_is_asked_for_at_once_where_memory_does_not_know_what_it_hid() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a"]);
    let lost = |places: &[usize]| Outlook { lacking: places.to_vec(), ..unknown() };
    scene.board.settle("a", present(mark(1, 0)), at(0));
    assert!(!scene.settle(lost(&[]), at(1)), "evicted: it rests until its ttl");
    assert!(!scene.settle(lost(&[5]), at(1)), "another never had it");
    assert!(scene.settle(lost(&[0]), at(2)));
    assert!(!scene.settle(lost(&[0]), at(2)), "one call at a time");
    scene.board.asked("a", false, at(2), 1.0);
    assert!(!scene.settle(lost(&[0]), at(2)), "a failure backs off");
    let again = scene.board.next_look().expect("it is tried again");
    assert!(again < at(60), "not only when its ttl is over");
    assert!(scene.settle(lost(&[0]), again));
    scene.board.settle("a", present(Mark { place: 1, ..mark(2, 3) }), at(3));
    scene.board.asked("a", true, at(3), 1.0);
    assert_eq!(scene.told(id), ["change a 2"]);
    assert!(!scene.settle(lost(&[0]), at(4)), "what is told is of another now: evicted");
    assert!(scene.settle(lost(&[0, 1]), at(5)));
    scene.board.settle("a", absent(), at(5));
    scene.board.asked("a", true, at(5), 1.0);
    assert_eq!(scene.told(id), ["delete a 2"]);
    assert!(!scene.settle(lost(&[0, 1]), at(6)), "nothing is told any more that could be wrong");
}

#[test]
fn what_failed_is_asked_for_at_once_when_its_back_end_answers_again() {
    let mut scene = Scene::new();
    scene.watcher(&["a"]);
    assert!(!scene.board.recovered(), "nothing failed");
    assert!(scene.settle(unknown(), at(0)));
    scene.board.asked("a", false, at(0), 1.0);
    assert!(!scene.settle(unknown(), at(0)));
    assert!(scene.board.recovered());
    assert_eq!(scene.board.take_due(at(0)), ["a".into()]);
    assert!(scene.settle(unknown(), at(0)));
}

#[test]
fn an_older_answer_that_comes_late_is_not_told() {
    let mut scene = Scene::new();
    let id = scene.watcher(&["a"]);
    scene.board.settle("a", present(mark(7, 0)), at(0));
    scene.board.settle("a", present(mark(6, 0)), at(0));
    assert_eq!(scene.told(id), ["change a 7"]);
}

#[test]
fn a_uid_has_at_most_its_limit_and_what_is_left_leaves_nothing() {
    let mut scene = Scene::new();
    let names = ["a".to_owned()];
    let first = scene.board.enter(1, 1, &names, Arc::default()).expect("room");
    assert!(scene.board.enter(1, 1, &names, Arc::default()).is_none());
    assert!(scene.board.enter(3, 0, &names, Arc::default()).is_none());
    let other = scene.board.enter(2, 1, &names, Arc::default()).expect("another uid is not touched");
    scene.board.settle("a", present(mark(1, 0)), at(0));
    scene.board.leave(first);
    assert!(scene.board.enter(1, 1, &names, Arc::default()).is_some());
    scene.board.leave(other);
    scene.board.leave(2);
    let board = &scene.board;
    assert!(board.names.is_empty() && board.watchers.is_empty() && board.of_uid.is_empty() && board.looks.is_empty());
    assert!(!scene.board.touch("a", true));
}

#[test]
fn every_watcher_is_reminded_once_in_fifteen_seconds() {
    let mut scene = Scene::new();
    let ids: Vec<u64> = (0..40).map(|_| scene.watcher(&["a"])).collect();
    let mut reminded = vec![0; 40];
    for _ in 0..15 {
        scene.board.beat();
        for id in &ids {
            let beat = scene.board.watchers.get_mut(id).is_some_and(|watcher| std::mem::take(&mut watcher.beat));
            reminded[*id as usize] += usize::from(beat);
        }
    }
    assert!(reminded.iter().all(|count| *count == 1), "{reminded:?}");
}
