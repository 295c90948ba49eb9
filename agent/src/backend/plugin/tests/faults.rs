//! Plug-ins that break off, hang, babble and lie: each costs its own callers an error in words, and nobody else anything.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::super::{Backend, BackendError, Scopes};
use super::{check_error, error, fetch, plugin_of, shell, shell_within};

/// Long beside the start of a shell, short beside a test.
const SHORT: Duration = Duration::from_secs(2);

const SERVE: &str = r#"while next; do reply '"result":{"values":{"k":"v"}}'; done"#;

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_a_wrong_setting() {
    for command in [&["/nonexistent/plugin"][..], &["/etc/passwd"], &["no-such-program-on-the-path"]] {
        let plugin = plugin_of(command.iter().map(|part| (*part).to_owned()).collect(), 1000);
        let error = error(&plugin, "db").await;
        check_error(&error, "identity", &format!("`{}` cannot be executed: ", command[0]));
        assert!(error.hint().is_some_and(|hint| hint.contains("[backend.own]")), "{error:?}");
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_in_words_at_once() {
    for (script, words) in [
        ("exit 3", "it ended with exit status 3"),
        ("greet; next; exit 4", "it ended with exit status 4"),
        ("greet; next; kill -9 $$", "it was ended by signal 9"),
        ("echo hello; next", "it wrote a line that is no JSON object to its standard output"),
        ("greet; next; echo '{\"id\":'; next", "it wrote a line that is no JSON to its standard output"),
        ("greet; next; printf '{\"id\":2,\"result\":\"\\377\"}\\n'; next", "a line that is not UTF-8 text"),
        ("greet; next; printf '{\"id\":2,\"result\":'; exec >&-; next; next", "it closed its standard output"),
        ("greet; next; id=77; reply '\"result\":{}'; next", "an answer to a request that was never made"),
        ("greet; next; id=0; reply '\"result\":{}'; next", "an answer to a request that was never made"),
        ("greet; next; id=null; reply '\"error\":{}'; next", "a reply without the `id` of a request"),
        ("greet; next; reply '\"neither\":1'; next", "a reply with neither `result` nor `error`"),
        ("greet; next; head -c 200000000 /dev/zero | tr '\\0' x; next", "a line without end"),
        ("next; exec <&-; reply '\"result\":{}'; sleep 60", "it closed its standard input"),
    ] {
        let plugin = shell(script);
        check_error(&error(&plugin, "db").await, "transient", words);
        plugin.close().await;
    }
}

#[tokio::test]
async fn a_plug_in_that_does_not_want_us_is_a_wrong_setting() {
    for (answer, words) in [
        (r#""error":{"class":"denied","message":"no token"}"#, "it answered `initialize` with denied: no token"),
        (r#""error":{"class":"invalid","message":"no file"}"#, "it answered `initialize` with invalid: no file"),
        (r#""result":{"protocol":2}"#, "it speaks version 2 of the protocol, not 1"),
    ] {
        check_error(&error(&shell(&format!("answer '{answer}'; next")), "db").await, "identity", words);
    }
    let plugin = shell(r#"answer '"error":{"class":"transient","message":"not yet"}'; next"#);
    check_error(&error(&plugin, "db").await, "transient", "it answered `initialize` with transient: not yet");
}

#[tokio::test]
async fn a_hang_costs_at_most_the_time_out_and_names_what_was_asked() {
    let plugin = shell_within("sleep 60", SHORT);
    check_error(&error(&plugin, "db").await, "transient", "it did not answer `initialize` within 1.8s");
    plugin.close().await;
    let plugin = shell_within("greet; while next; do :; done", SHORT);
    check_error(&error(&plugin, "db").await, "transient", "it did not answer `fetch` within 1.8s");
    plugin.close().await;
}

#[tokio::test]
async fn a_plug_in_that_leaves_three_requests_without_an_answer_is_started_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("started-once");
    // The first one hangs after its greeting; the second one serves.
    let script = format!("greet; [ -f '{0}' ] || {{ : >'{0}'; exec sleep 60; }}; {SERVE}", mark.display());
    let plugin = shell_within(&script, SHORT);
    let errors = join_all((0..3).map(|_| error(&plugin, "db"))).await;
    errors.iter().for_each(|error| check_error(error, "transient", ""));
    fetch(&plugin, "db").await.expect("the second one serves");
    plugin.close().await;
}

#[tokio::test]
async fn a_plug_in_that_reads_nothing_blocks_nobody_for_longer_than_the_time_out() {
    let plugin = shell_within("greet; exec sleep 60", SHORT);
    let long = "n".repeat(20_000);
    let errors = join_all((0..40).map(|_| error(&plugin, &long))).await;
    assert!(errors.iter().all(BackendError::is_transient));
    plugin.close().await;
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order_and_a_second_answer_is_dropped() {
    let plugin = shell(
        r#"greet
        noted() { next; name=${line#*'"name":"'}; name=${name%%'"'*}; }
        tell() { id=$1; reply "\"result\":{\"values\":{\"name\":\"$2\"}}"; }
        noted; first=$id first_name=$name; noted; second=$id second_name=$name; noted
        tell $id $name; tell $first $first_name; tell $second $second_name; tell $first twice
        noted; tell $id again; next"#,
    );
    let one = async |name: &str| {
        let secret = fetch(&plugin, name).await.expect("found");
        String::from_utf8(secret.values.get("name").expect("a name").expose().to_vec()).expect("text")
    };
    let (first, second, third) = tokio::join!(one("a"), one("b"), one("c"));
    assert_eq!([first.as_str(), &second, &third], ["a", "b", "c"]);
    assert_eq!(one("d").await, "again");
    plugin.close().await;
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_the_next_call_gets_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let script = format!(
        r#"greet; next; late=$id; until [ -f '{}' ]; do sleep 0.02; done
        next; now=$id
        id=$late reply '"result":{{"values":{{"k":"late"}}}}'
        id=$now reply '"result":{{"values":{{"k":"now"}}}}'
        next"#,
        go.display()
    );
    let plugin = shell(&script);
    let left = tokio::time::timeout(Duration::from_millis(100), fetch(&plugin, "db")).await;
    assert!(left.is_err(), "nothing is answered yet");
    fs::write(&go, "").expect("room");
    let secret = fetch(&plugin, "db").await.expect("found");
    assert_eq!(secret.values.get("k").map(|value| value.expose().to_vec()), Some(b"now".to_vec()));
    plugin.close().await;
}

#[tokio::test]
async fn a_secret_that_is_too_large_for_a_line_disturbs_no_other() {
    let plugin = shell(
        r#"greet
        while next; do case $line in
            *large*) printf '{"result":{"values":{"k":"'; head -c 20000000 /dev/zero | tr '\0' x; printf '"}},"id":%s}\n' "$id";;
            *) reply '"result":{"values":{"k":"v"}}';;
        esac; done"#,
    );
    let (large, other) = tokio::join!(error(&plugin, "large"), fetch(&plugin, "small"));
    check_error(&large, "unusable", "its answer to `fetch` is longer than any that is expected");
    other.expect("found");
    fetch(&plugin, "small").await.expect("the same plug-in serves");
    plugin.close().await;
}

#[tokio::test]
async fn a_plug_in_that_ends_again_and_again_is_started_less_and_less_often() {
    let folder = tempfile::tempdir().expect("a folder");
    let starts = folder.path().join("starts");
    let plugin = shell(&format!("echo x >>'{}'; exit 1", starts.display()));
    for _ in 0..300 {
        check_error(&error(&plugin, "db").await, "transient", "exit status 1");
        let started = fs::read(&starts).expect("started").len() / 2;
        if started >= 3 {
            // By now a pause may be longer than a call waits for; what is left fails at once, with the same words.
            break;
        }
    }
    plugin.close().await;
    check_error_closed(&plugin.fetch("db", Scopes::PrivateFirst).await.map(|secret| secret.description));
}

fn check_error_closed(outcome: &Result<super::super::super::Description, BackendError>) {
    let Err(BackendError::Transient { what, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(what.contains("is closed"), "{what}");
}

#[tokio::test]
async fn many_callers_of_a_plug_in_that_is_not_there_cost_one_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let starts = folder.path().join("starts");
    let plugin = shell(&format!("echo x >>'{}'; greet; {SERVE}", starts.display()));
    let outcomes = join_all((0..200).map(|_| fetch(&plugin, "db"))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(fs::read(&starts).expect("started").len() / 2, 1);
    plugin.close().await;
}
