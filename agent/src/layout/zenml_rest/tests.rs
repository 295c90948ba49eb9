//! On what the real servers sent.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// The body of one recorded reply.
fn recorded(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/zenml/rest");
    let text = fs::read(folder.join(format!("{name}.json"))).expect("the fixture");
    let exchange: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    exchange["json"].to_string().into_bytes()
}

fn shown(values: &Values) -> Vec<(String, String)> {
    let Values::Readable(values) = values else { panic!("not permitted") };
    let text = |value: &SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
    values.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

fn values(pairs: &[(&str, Option<&str>)]) -> Vec<(String, Option<SecretValue>)> {
    let value = |value: &str| SecretValue::copy_of(value.as_bytes());
    pairs.iter().map(|(key, text)| ((*key).to_owned(), text.map(value))).collect()
}

#[test]
fn a_secret_of_either_shape_is_read() {
    let check = |name: &str, place, id: &str, updated: &str, owner: &str, pairs: &[(&str, &str)]| {
        let (item, found) = secret(&recorded(name)).expect(name);
        let expected: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(shown(&found), expected, "{name}");
        assert_eq!((item.place, item.id.as_str(), item.updated.as_str()), (place, id, updated), "{name}");
        assert_eq!(item.owner.as_deref(), Some(owner), "{name}");
    };
    let (new, old) = ("11be8523-7e1c-46a2-89c5-74b124f573a8", "9b3e2a6f-871e-435b-89d3-e17f5dcbe4ce");
    let (owner, old_owner) = ("c8a56173-ecb5-4035-927e-9e597d2218db", "9fcf5e9e-2e7b-4651-8181-2603b389f1ef");
    let db = [("pass", "p w"), ("uni", "é🔐"), ("user", "u")];
    for name in ["v0.98.0/get", "v0.98.0/get_hydrate_false", "v0.98.0/create"] {
        check(name, Place::Public, new, "2026-11-22T19:14:17.357763", owner, &db);
    }
    let changed = [("new", "n"), ("uni", "é🔐"), ("user", "u")];
    check("v0.98.0/put_patch", Place::Public, new, "2026-11-22T19:14:21.068498", owner, &changed);
    for name in ["v0.43.1/get", "v0.43.1/create"] {
        check(name, Place::Workspace, old, "2026-11-22T19:15:13.010901", old_owner, &db);
    }
    let (item, _) = secret(&recorded("v0.43.1/put_scope")).expect("a secret");
    assert_eq!(item.place, Place::User);
    assert!(shown(&secret(&recorded("v0.98.0/create_no_values")).expect("a secret").1).is_empty());
}

#[test]
fn a_page_of_either_shape_is_read() {
    let check = |name: &str, total, names: &[(&str, Place)]| {
        let page = page(&recorded(name)).expect(name);
        assert_eq!((page.index, page.total), (1, total), "{name}");
        let found: Vec<_> = page.items.iter().map(|item| (item.name.as_str(), item.place)).collect();
        assert_eq!(found, names, "{name}");
        assert!(page.items.iter().all(|item| item.owner.is_some()), "{name}");
    };
    let (private, public) = (Place::Private, Place::Public);
    let six = [
        ("mlflow_secret", public),
        ("mine", private),
        ("db", public),
        ("db", private),
        ("novals", public),
        ("nullval", public),
    ];
    check("v0.98.0/list", 6, &six);
    check("v0.98.0/list_hydrate", 6, &six[..2]);
    check("v0.43.1/list_scope_user", 2, &[("mine", Place::User), ("db", Place::User)]);
    assert_eq!(page(&recorded("v0.43.1/list")).expect("a page").items.len(), 6);
}

#[test]
fn a_secret_of_the_versions_in_between_is_read() {
    let item = |more: &str| format!(r#"{{"id":"11be85237e1c46a289c574b124f573a8","name":"a",{more}}}"#);
    let body = r#""created":"2026-01-01T00:00:00","updated":"2026-01-01T00:00:01""#;
    let check = |more: &str, place, owner: Option<&str>| {
        let (item, _) = secret(item(more).as_bytes()).expect(more);
        assert_eq!((item.place, item.owner.as_deref()), (place, owner), "{more}");
        assert_eq!(item.id, "11be8523-7e1c-46a2-89c5-74b124f573a8", "{more}");
    };
    let id = "c8a56173-ecb5-4035-927e-9e597d2218db";
    check(
        &format!(r#""permission_denied":false,"body":{{{body},"scope":"user","values":{{}},"user":{{"id":"{id}"}}}}"#),
        Place::User,
        Some(id),
    );
    check(&format!(r#""body":{{{body},"scope":"workspace","values":{{}}}},"metadata":null"#), Place::Workspace, None);
    check(
        &format!(r#""body":{{{body},"private":true,"values":{{}}}},"resources":{{"user":{{"id":"{id}"}}}}"#),
        Place::Private,
        Some(id),
    );
}

#[test]
fn a_null_is_a_missing_right_and_never_an_empty_value() {
    let secret = |values: &str| {
        let text = format!(
            r#"{{"id":"11be85237e1c46a289c574b124f573a8","name":"a","created":"x","updated":"y","scope":"user","values":{values}}}"#
        );
        secret(text.as_bytes()).map(|(_, values)| values)
    };
    let check = |values: &str| assert!(matches!(secret(values), Ok(Values::NotPermitted)), "{values}");
    check(r#"{"a":null}"#);
    check(r#"{"a":"1","b":null}"#);
    check(r#"{"a":null,"b":""}"#);
    assert_eq!(shown(&secret(r#"{"a":""}"#).expect("readable")), [("a".to_owned(), String::new())]);
    for malformed in [r#"{"a":1}"#, r#"{"a":["x"]}"#, r#"{"a":"1","a":"2"}"#, "null", "[]", r#"{"a":"\ud800"}"#] {
        assert!(secret(malformed).is_err(), "{malformed}");
    }
}

#[test]
fn what_is_no_secret_is_malformed() {
    let whole = String::from_utf8(recorded("v0.98.0/get")).expect("text");
    for length in 0..whole.len() {
        assert!(secret(&whole.as_bytes()[..length]).is_err(), "{length}");
    }
    let mut not_text = recorded("v0.98.0/get");
    let place = whole.find("default").expect("a skipped word");
    not_text[place] = 0xff;
    assert!(secret(&not_text).is_err());
    for text in [
        "",
        "null",
        "<html></html>",
        "{}",
        "[]",
        &whole.replace("\"name\"", "\"nome\""),
        &whole.replace("\"private\"", "\"id\""),
    ] {
        assert!(secret(text.as_bytes()).is_err(), "{text}");
        assert!(page(text.as_bytes()).is_err(), "{text}");
    }
    assert!(secret(whole.replace("11be8523", "../etc").as_bytes()).is_err(), "an id goes into a path");
    assert!(secret(whole.replacen("\"body\"", "\"body\":null,\"body\"", 1).as_bytes()).is_err(), "a key stands twice");
}

#[test]
fn the_version_and_ids_and_tokens_are_read() {
    assert_eq!(info(&recorded("v0.98.0/info")).expect("info").version, (0, 98));
    assert_eq!(info(&recorded("v0.43.1/info")).expect("info").version, (0, 43));
    assert_eq!(info(br#"{"version":"1.2.0.dev20260101"}"#).expect("info").version, (1, 2));
    for text in [r#"{"version":"new"}"#, r#"{"version":""}"#, "{}", "<html>"] {
        assert_eq!(info(text.as_bytes()), Err(Malformed), "{text}");
    }
    assert_eq!(id(&recorded("v0.43.1/workspace_default")).expect("an id"), "d949d376-1cf4-4c9a-a1e5-b804470a87dd");
    assert_eq!(id(&recorded("v0.43.1/current_user")).expect("an id"), "9fcf5e9e-2e7b-4651-8181-2603b389f1ef");
    for name in ["v0.98.0/login_password", "v0.43.1/login_password"] {
        assert_eq!(token(&recorded(name)).expect("a token").as_str(), "header.payload.signature");
    }
    assert!(token(br#"{"access_token":""}"#).is_err());
}

#[test]
fn errors_are_told_apart_by_who_made_them() {
    let check = |names: &[&str], shape| {
        for name in names {
            assert_eq!(error_shape(&recorded(name)), shape, "{name}");
        }
    };
    check(
        &[
            "v0.98.0/get_404",
            "v0.98.0/get_others_private",
            "v0.98.0/login_bad",
            "v0.98.0/create_dup",
            "v0.98.0/list_page_oob",
            "v0.98.0/put_private_by_bob",
            "v0.98.0/secrets_bad_token",
            "v0.43.1/get_404",
            "v0.43.1/create_dup",
            "v0.43.1/create_wrong_user",
        ],
        ErrorShape::Api,
    );
    check(
        &[
            "v0.98.0/not_found_route",
            "v0.98.0/method_not_allowed",
            "v0.98.0/secrets_no_auth",
            "v0.43.1/login_bad",
            "v0.43.1/secrets_bad_token",
        ],
        ErrorShape::Framework,
    );
    check(
        &["v0.98.0/get_422", "v0.98.0/list_size_big", "v0.43.1/get_422", "v0.43.1/list_size0"],
        ErrorShape::Validation,
    );
    for text in
        ["", "null", "[]", "404 page not found", "<html></html>", r#"{"error":"x"}"#, r#"{"detail":["a b","c"]}"#]
    {
        assert_eq!(error_shape(text.as_bytes()), ErrorShape::Foreign, "{text}");
    }
}

#[test]
fn a_change_is_written_as_zenmls_client_writes_it() {
    let check = |change: &Change<'_>, pairs: &[(&str, Option<&str>)], json: &str| {
        let pairs = values(pairs);
        let text = write(change, pairs.iter().map(|(key, value)| (key.as_str(), value.as_ref()))).expect("text");
        assert_eq!(String::from_utf8_lossy(text.expose()), json);
    };
    check(&Change::default(), &[], "{}");
    check(
        &Change { name: Some("a\"b"), place: Some(Place::Private), ownership: None },
        &[("k", Some("v\n")), ("gone", None)],
        r#"{"name":"a\"b","private":true,"values":{"k":"v\n","gone":null}}"#,
    );
    let ownership = Some(Ownership { user: "u", workspace: "w" });
    check(
        &Change { name: Some("a"), place: Some(Place::Workspace), ownership },
        &[],
        r#"{"name":"a","scope":"workspace","user":"u","workspace":"w"}"#,
    );
    let bytes = SecretValue::new(vec![0xff]);
    assert_eq!(write(&Change::default(), [("k", Some(&bytes))]).err(), Some("k".to_owned()));
}

#[test]
fn an_id_is_shown_as_zenml_shows_it() {
    assert_eq!(uuid("11BE85237e1c46a289c574b124f573a8").as_deref(), Some("11be8523-7e1c-46a2-89c5-74b124f573a8"));
    for text in ["", "not-a-uuid", "11be8523-7e1c-46a2-89c5-74b124f573a", "11be8523-7e1c-46a2-89c5-74b124f573ag"] {
        assert_eq!(uuid(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(
        pairs in proptest::collection::btree_map("\\PC{0,8}|[\\x00-\\x7f]{0,4}", "(?s).{0,40}", 0..6),
    ) {
        let given: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
        let given = values(&given);
        let body = write(&Change { name: Some("a"), place: Some(Place::User), ownership: None },
            given.iter().map(|(key, value)| (key.as_str(), value.as_ref()))).expect("text");
        let text = String::from_utf8(body.expose().to_vec()).expect("text");
        let none = if pairs.is_empty() { r#","values":{}"# } else { "" };
        let reply = format!(r#"{{"id":"11be85237e1c46a289c574b124f573a8","created":"x","updated":"y"{none},{}"#, &text[1..]);
        let (_, found) = secret(reply.as_bytes()).expect("a secret");
        prop_assert_eq!(shown(&found), pairs.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = (secret(&bytes).is_ok(), page(&bytes), info(&bytes), error_shape(&bytes), token(&bytes).is_ok());
    }
}
