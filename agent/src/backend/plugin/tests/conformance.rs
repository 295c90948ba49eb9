//! What `keyside plugin test` sees of plug-ins that keep the protocol, and of those that do not.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::super::conformance::{Finding, Options, Verdict, examine};
use super::{PRELUDE, TIMEOUT, has_python, peer};

fn look(command: Vec<String>, writes: bool, timeout: Duration) -> Vec<Finding> {
    let options = Options { command, env: BTreeMap::new(), timeout, max_value: 1 << 20, writes };
    examine(options).expect("a runtime")
}

fn shell(script: &str) -> Vec<Finding> {
    look(vec!["/bin/sh".into(), "-c".into(), format!("{PRELUDE}\n{script}")], true, TIMEOUT)
}

fn of<'f>(findings: &'f [Finding], check: &str) -> &'f Finding {
    findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

fn failed(findings: &[Finding], check: &str, words: &str) {
    let finding = of(findings, check);
    assert!(finding.verdict == Verdict::Failed && finding.what.contains(words), "{finding:?}");
}

#[test]
fn the_plug_in_in_python_keeps_every_promise() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store.json");
    let text = r#"{"secrets":[
        {"name":"a","scope":"public","id":"1","version":"1","values":{"k":"v","raw":{"base64":"/wA="}}},
        {"name":"a","scope":"private","id":"2","version":"1","values":{}},
        {"name":"b","scope":"private","id":"3","version":"7","values":{"ключ":""}}], "denied":["b"]}"#;
    fs::write(&store, text).expect("room");
    let command = ["/usr/bin/env", "python3", &peer("plugin.py"), &store.display().to_string()].map(str::to_owned);
    let findings = look(command.to_vec(), true, TIMEOUT);
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Passed), "{findings:?}");
    assert_eq!(of(&findings, "fetch").what, "2 secrets, as listed; 1 denied");
    let after: serde_json::Value = serde_json::from_slice(&fs::read(&store).expect("a file")).expect("JSON");
    assert_eq!(after["secrets"].as_array().map(Vec::len), Some(3), "the test's own secret is gone");
}

#[test]
fn the_plug_in_in_shell_keeps_every_promise_that_it_makes() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("secrets"), "\"a\"\tpublic\ti\t1\t[\"k\"]\t{\"k\":\"v\"}\n").expect("room");
    let findings = look(vec![peer("plugin.sh"), folder.path().display().to_string()], true, TIMEOUT);
    let bad: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Passed).collect();
    assert_eq!(bad.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["update"], "{bad:?}");
    assert_eq!(bad[0].verdict, Verdict::Skipped);
}

#[test]
fn what_cannot_be_run_or_does_not_greet_is_one_finding() {
    for (command, words) in [
        (vec!["/nonexistent/plug-in"], "cannot be executed"),
        (vec!["/bin/sh", "-c", "exit 7"], "exit status 7"),
        (vec!["/bin/cat"], "a reply with neither `result` nor `error`"),
    ] {
        let findings = look(command.into_iter().map(str::to_owned).collect(), false, TIMEOUT);
        assert_eq!(findings.len(), 1, "{findings:?}");
        failed(&findings, "initialize", words);
    }
    let hung = look(vec!["/bin/sleep".into(), "60".into()], false, Duration::from_millis(200));
    failed(&hung, "initialize", "did not answer `initialize` within 200ms");
}

#[test]
fn each_broken_promise_is_found() {
    // Answers each method with a text of its own; `R` is for a name that is there.
    let findings = |list: &str, describe: &str, fetch: &str, other: &str, end: &str| {
        let absent = r#""error":{"class":"not_found"}"#;
        shell(&format!(
            r#"greet
            while next; do case $line in
                *'"list"'*) reply '{list}';;
                *'"describe"'*'"name":"db"'*) reply '{describe}';;
                *'"fetch"'*'"name":"db"'*) reply '{fetch}';;
                *'"no-such-method"'*) reply '{other}';;
                *) reply '{absent}';;
            esac; done; {end}"#
        ))
    };
    let list = r#""result":[{"name":"db","version":"1","keys":["k"]}]"#;
    let describe = r#""result":{"version":"1","keys":["k"]}"#;
    let fetch = r#""result":{"version":"1","values":{"k":"secret-value"}}"#;
    let other = r#""error":{"class":"invalid"}"#;
    let good = findings(list, describe, fetch, other, ":");
    assert!(good.iter().all(|finding| finding.verdict != Verdict::Failed), "{good:?}");
    assert_eq!(of(&good, "scopes").verdict, Verdict::Skipped);

    failed(&findings(r#""result":{}"#, describe, fetch, other, ":"), "list", "the result of `list` is not");
    failed(&findings(r#""result":["db","db"]"#, describe, fetch, other, ":"), "list", "`db` is listed twice");
    failed(&findings(r#""result":[".."]"#, describe, fetch, other, ":"), "list", "cannot be asked for");
    let open = r#""result":{"secrets":[{"name":"db","values":{"k":"secret-value"}}]}"#;
    let open = findings(open, describe, fetch, other, ":");
    failed(&open, "list", "`list` shows values");
    assert!(!format!("{open:?}").contains("secret-value"));

    let changed = findings(list, r#""result":{"version":"2"}"#, fetch, other, ":");
    failed(&changed, "describe", "a different `version` of `db`");
    failed(&changed, "concurrency", "otherwise than alone");
    let gone = findings(list, r#""error":{"class":"not_found","message":"gone"}"#, fetch, other, ":");
    failed(&gone, "describe", "`db`: `describe` was answered with the error `not_found`: gone");
    let keys = findings(list, describe, r#""result":{"values":{"other":"secret-value"}}"#, other, ":");
    failed(&keys, "fetch", "the listed `keys` of `db` are not those of its values");
    let number = findings(list, describe, r#""result":{"values":{"k":5432}}"#, other, ":");
    failed(&number, "fetch", "the value of key `k` is neither a string nor");
    failed(&findings(list, describe, fetch, r#""result":null"#, ":"), "unknown method", "has a result");

    let everything = shell(r#"greet; while next; do reply '"result":{"values":{}}'; done"#);
    failed(&everything, "absent", "which is not there");
    let transient = shell(r#"greet; while next; do reply '"error":{"class":"transient"}'; done"#);
    failed(&transient, "absent", "the error `transient`, not `not_found`");
}

#[test]
fn one_that_outlives_its_standard_input_is_found() {
    let script = r#"
        greet; while IFS= read -r line; do id=${line#'{"id":'}; id=${id%%,*}; reply '"error":{"class":"not_found"}'; done
        exec sleep 60"#;
    failed(&shell(script), "end", "did not end when its standard input was closed");
}
