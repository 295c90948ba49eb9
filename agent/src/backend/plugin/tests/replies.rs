//! What a plug-in may say, and what is made of it.

use std::fmt::Write as _;

use keyside_protocol::json::SecretBuffer;
use proptest::prelude::*;

use super::super::super::{Backend, BackendError, Description, Scope, ScopeLabel, Scopes};
use super::super::reply::{Class, Declared, Line, Outcome, PluginError, Reason, parse};
use super::{check_error, error, fetch, shell};

fn line(text: &str) -> Line {
    let mut line = SecretBuffer::with_capacity(text.len());
    line.push(text.as_bytes());
    parse(line)
}

fn outcome(result: &str) -> Outcome {
    match line(&format!("{{\"id\":1,\"result\":{result}}}")) {
        Line::Reply { id: 1, answer: Ok(outcome) } => outcome,
        _ => panic!("no result: {result}"),
    }
}

fn refusal(error: &str) -> PluginError {
    match line(&format!("{{\"error\":{error},\"id\":\"1\"}}")) {
        Line::Reply { id: 1, answer: Err(error) } => error,
        _ => panic!("no error: {error}"),
    }
}

#[test]
fn a_line_is_a_reply_a_notice_or_a_breach_of_the_protocol() {
    let shown = |text: &str| match line(text) {
        Line::Reply { id, answer } => format!("{id} {}", if answer.is_ok() { "result" } else { "error" }),
        Line::Notice => "notice".to_owned(),
        Line::Broken(what) => what.to_owned(),
    };
    for (text, expected) in [
        (r#"{"id":1,"result":null}"#, "1 result"),
        (r#" { "jsonrpc": "2.0", "result": {}, "id": "18446744073709551615" } "#, "18446744073709551615 result"),
        (r#"{"id":2,"error":{},"result":null}"#, "2 error"),
        (r#"{"id":2,"error":null,"result":{}}"#, "2 result"),
        (r#"{"id":2,"error":"no"}"#, "2 error"),
        (r#"{"method":"log","params":{}}"#, "notice"),
        (r#"{"id":null}"#, "notice"),
        (r#"{"id":3}"#, "a reply with neither `result` nor `error`"),
        (r#"{"result":{}}"#, "a reply without the `id` of a request"),
        (r#"{"id":-1,"result":{}}"#, "a reply without the `id` of a request"),
        (r#"{"id":1.5,"error":{}}"#, "a reply without the `id` of a request"),
        (r#"{"id":18446744073709551616,"result":{}}"#, "a reply without the `id` of a request"),
        (r#"{"id":1,"id":2,"result":{}}"#, "a reply with a field twice"),
        (r#"{"id":1,"result":{"#, "a line that is no JSON"),
        (r#"{"id":1,"result":{}} trailing"#, "a line that is no JSON"),
        ("Traceback (most recent call last):", "a line that is no JSON object"),
        ("[1]", "a line that is no JSON object"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    let mut bytes = SecretBuffer::with_capacity(0);
    bytes.push(b"{\"id\":1,\"result\":\"\xff\"}");
    assert!(matches!(parse(bytes), Line::Broken("a line that is not UTF-8 text")));
}

#[test]
fn an_error_without_a_class_that_is_known_is_transient() {
    let check = |error: &str, class: Class, message: &str, reason: Option<Reason>| {
        assert_eq!(refusal(error), PluginError { class, message: message.to_owned(), reason }, "{error}");
    };
    check(r#"{"class":"not_found","message":"no"}"#, Class::NotFound, "no", None);
    check(r#"{"class":"denied"}"#, Class::Denied, "", None);
    check(r#"{"class":"invalid","message":"m","reason":"exists"}"#, Class::Invalid, "m", Some(Reason::Exists));
    check(r#"{"class":"invalid","reason":"another"}"#, Class::Invalid, "", None);
    for class in [r#""transient""#, r#""NOT_FOUND""#, "null", "404", "[]", "{}"] {
        check(&format!(r#"{{"class":{class},"message":"m"}}"#), Class::Transient, "m", None);
    }
    check(r#"{"code":-32601,"message":"m"}"#, Class::Transient, "m", None);
    check(r#""just words""#, Class::Transient, "just words", None);
    check(r#"["no"]"#, Class::Transient, "", None);
    check(r#"{"message":" two\nlines\u0007 "}"#, Class::Transient, "two lines", None);
    let long = refusal(&format!(r#"{{"message":"{}"}}"#, "é".repeat(5000))).message;
    assert_eq!(long.chars().count(), 301);
}

#[test]
fn a_list_may_be_written_in_several_ways() {
    let names = |result: &str| {
        let list = outcome(result).list().expect("a list");
        list.into_iter().map(|one| one.name.expect("a name")).collect::<Vec<_>>()
    };
    assert_eq!(names(r#"{"secrets":[{"name":"a"},{"name":"b","scope":"private"}],"next":null}"#), ["a", "b"]);
    assert_eq!(names(r#"{"secrets":["a","b"]}"#), ["a", "b"]);
    assert_eq!(names(r#"[{"name":"a","more":1},"b"]"#), ["a", "b"]);
    assert_eq!(names("[]"), [""; 0]);
    for wrong in ["null", "{}", r#"{"secrets":null}"#, r#"{"secrets":[1]}"#, r#"{"secrets":{"a":{}}}"#, "1", "\"a\""] {
        assert!(outcome(wrong).list().is_err(), "{wrong}");
    }
}

#[test]
fn a_description_may_lack_everything_and_an_unknown_scope_is_refused() {
    let described = outcome(r#"{"secret":{"name":"a","scope":"user","id":7,"version":3,"keys":["b","a","b"]}}"#)
        .description()
        .expect("a description");
    assert_eq!(described.scope, Some((Scope::Private, ScopeLabel::User)));
    assert_eq!((described.id.as_deref(), described.version.as_deref()), (Some("7"), Some("3")));
    assert_eq!(described.keys, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert!(outcome("{}").description().expect("nothing is due").name.is_none());
    for wrong in ["null", r#"{"scope":"team"}"#, r#"{"name":5}"#, r#"{"keys":"a"}"#, "[]", "true"] {
        assert!(outcome(wrong).description().is_err(), "{wrong}");
    }
}

#[test]
fn values_are_strings_or_base64_and_nothing_else() {
    let values = |result: &str| outcome(result).secret(10).map(|(_, values)| values);
    let pairs = values(r#"{"values":{"b":"","a":"x\ty","raw":{"base64":"/wA="}},"version":"1"}"#).expect("values");
    let shown: Vec<_> = pairs.iter().map(|(key, value)| (key, value.expose())).collect();
    assert_eq!(shown, [("a", b"x\ty".as_slice()), ("b", b""), ("raw", &[0xff, 0])]);
    assert_eq!(values(r#"{"secret":{"name":"n","values":{"k":"v"}}}"#).expect("inside").len(), 1);
    let error = |result: &str| values(result).err().expect("no values").to_string();
    let of_k = "the value of key `k` is neither a string nor {\"base64\": \"...\"}";
    for wrong in ["5432", "true", "null", "[\"v\"]", "{\"base64\":\"*\"}", "{\"text\":\"v\"}", "{}"] {
        assert_eq!(error(&format!(r#"{{"values":{{"k":{wrong}}}}}"#)), of_k, "{wrong}");
    }
    assert_eq!(error(r#"{"values":{"k":"12345678901"}}"#), "the value of key `k` is larger than allowed");
    for wrong in ["null", "{}", r#"{"values":null}"#, r#"{"values":["k"]}"#, r#"{"values":{"k":"v","k":"w"}}"#] {
        assert_eq!(error(wrong), "not what the protocol promises", "{wrong}");
    }
}

#[test]
fn what_a_plug_in_declares_may_be_written_in_several_ways() {
    let declared = |result: &str| outcome(result).declared().expect("a declaration");
    let all = ["create", "update", "delete"];
    for result in [
        r#"{"protocol":1,"methods":["create","update","delete"]}"#,
        r#"{"protocol":"1","capabilities":["create","update","delete","other"]}"#,
        r#"{"protocol_version":1,"capabilities":{"create":true,"update":true,"delete":true,"x":false}}"#,
        r#"{"writable":true}"#,
    ] {
        let declared = declared(result);
        assert!(all.iter().all(|method| declared.has(method)) && !declared.has("x"), "{result}");
    }
    for nothing in ["null", "{}", "true", r#"{"methods":null}"#] {
        assert_eq!(declared(nothing), Declared::default(), "{nothing}");
    }
    assert!(declared(r#"{"cheap_list":true}"#).cheap_list);
    assert!(outcome("[]").declared().is_err() && outcome("\"ok\"").declared().is_err());
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(
        text in prop_oneof![
            ".*",
            r#"\{("id"|"result"|"error"|"secrets"|"values"|"name"|"scope"|:|,|\{|\}|\[|\]|"[a-z]{0,3}"|[0-9]{1,3}|null|true){0,20}\}"#,
        ],
    ) {
        if let Line::Reply { answer: Ok(_), .. } = line(&text) {
            let again = || match line(&text) {
                Line::Reply { answer: Ok(outcome), .. } => outcome,
                _ => unreachable!("the same line"),
            };
            let _ = (again().list(), again().description(), again().secret(100).is_ok(), again().declared());
        }
    }

    #[test]
    fn any_pairs_come_through_as_they_are(pairs in proptest::collection::btree_map(".*", ".*", 0..5)) {
        let (_, values) = outcome(&serde_json::json!({"values": pairs}).to_string()).secret(1 << 20).expect("values");
        let found: Vec<_> = values.iter().map(|(key, value)| (key.to_owned(), value.expose().to_vec())).collect();
        let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
        prop_assert_eq!(found, pairs);
    }
}

#[tokio::test]
async fn each_class_of_error_has_its_meaning_for_a_secret() {
    for (class, expected, words) in [
        ("not_found", "not found", "no such secret"),
        ("denied", "denied", "secret `db` is refused: the words"),
        ("transient", "transient", "the words"),
        ("invalid", "unusable", "secret `db` cannot be served: the words"),
        ("teapot", "transient", "the words"),
    ] {
        let script = format!(r#"greet; answer '"error":{{"class":"{class}","message":"the words"}}'; next"#);
        check_error(&error(&shell(&script), "db").await, expected, words);
    }
    let plugin = shell(r#"greet; answer '"error":{"class":"denied","message":"may not"}'; next"#);
    check_error(&plugin.list().await.expect_err("denied"), "identity", "it may not list secrets: may not");
}

#[tokio::test]
async fn a_plug_in_that_says_the_least_is_served() {
    let plugin = shell(
        r#"answer '"result":null'
        while next; do case $line in
            *list*) reply '"result":{"secrets":["db"]}';;
            *describe*) reply '"result":{}';;
            *) reply '"result":{"values":{"k":"v"}}';;
        esac; done"#,
    );
    let secret = fetch(&plugin, "db").await.expect("found");
    let Description { name, scope, scope_label, id, version, keys } = secret.description;
    assert_eq!((name.as_str(), scope, scope_label, id, keys), ("db", Scope::Public, None, None, None));
    assert_eq!(version.len(), 32, "a keyed hash of the values stands in for a version");
    assert_eq!(fetch(&plugin, "db").await.expect("found").description.version, version);
    let described = plugin.describe(&["db"], Scopes::PublicFirst).await.expect("described");
    assert_eq!(described[0].as_ref().map(|one| (one.version.as_str(), one.keys.as_ref())), Some(("", None)));
    assert_eq!(plugin.describe(&["db"], Scopes::PrivateOnly).await.expect("described"), [None], "it has no scopes");
    assert_eq!(plugin.list().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_version_is_made_of_keys_and_values_alone_and_never_holds_them() {
    let version = async |values: &str| {
        let script = format!(r#"greet; answer '"result":{{"values":{values}}}'; next"#);
        fetch(&shell(&script), "db").await.expect("found").description.version
    };
    let mut seen = std::collections::BTreeSet::new();
    for values in [r#"{}"#, r#"{"a":"b"}"#, r#"{"a":"","b":""}"#, r#"{"ab":""}"#, r#"{"a":"c"}"#] {
        assert!(seen.insert(version(values).await), "{values}");
    }
    assert_eq!(version(r#"{"a":"b","c":"d"}"#).await, version(r#"{"c":"d","a":"b"}"#).await);
}

#[tokio::test]
async fn an_answer_about_another_secret_or_scope_is_no_answer() {
    for result in [
        r#"{"name":"other","values":{}}"#,
        r#"{"name":"db","scope":"elsewhere","values":{}}"#,
        r#"{"name":"db"}"#,
        "null",
        "\"a text\"",
    ] {
        let script = format!(r#"greet; answer '"result":{result}'; next"#);
        let words = "its answer to `fetch` is not what the protocol promises";
        check_error(&error(&shell(&script), "db").await, "transient", words);
    }
    let plugin = shell(r#"greet; answer '"result":{"scope":"private","values":{}}'; next"#);
    let outcome = plugin.fetch("db", Scopes::PublicOnly).await.map(|secret| secret.description);
    assert!(matches!(outcome, Err(BackendError::Transient { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_cheap_list_stands_in_for_many_descriptions() {
    let plugin = shell(
        r#"answer '"result":{"cheap_list":true}'
        next; case $line in
            *'"list"'*) reply '"result":[{"name":"a","keys":["k"]},{"name":"b","scope":"private"},{"name":"b"}]';;
        esac
        next; exit 1"#,
    );
    let described = plugin.describe(&["b", "a", "missing"], Scopes::PrivateFirst).await.expect("described");
    let shown: Vec<_> = described.iter().map(|one| one.as_ref().map(|one| (one.name.as_str(), one.scope))).collect();
    assert_eq!(shown, [Some(("b", Scope::Private)), Some(("a", Scope::Public)), None]);
}

#[tokio::test]
async fn names_that_nothing_can_be_asked_for_are_left_out_of_a_list() {
    let mut list = String::from(r#"["fine","..","","a\u0000b","fine""#);
    write!(list, ",\"{}\"]", "x".repeat(300)).expect("room");
    let plugin = shell(&format!(r#"greet; answer '"result":{list}'; next"#));
    let names: Vec<_> = plugin.list().await.expect("listed").into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["fine"]);
}
