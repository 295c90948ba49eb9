//! What a resolve refuses without asking any back-end.

use super::*;

#[tokio::test]
async fn what_no_secret_or_key_can_be_called_is_an_invalid_reference_without_a_call() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(OWN_UID, &[("*", None)]), grant(9, &[("db", None)])]);
    let long = "ü".repeat(256);
    for text in ["{{a\0.b}}", "{{a\u{1b}.b}}", "{{db.b\0}}", &format!("{{{{{long}.b}}}}")] {
        for body in [
            serde_json::json!({ "references": { "A": text } }),
            serde_json::json!({ "templates": { "A": format!("x{text}") } }),
        ] {
            for uid in [OWN_UID, 9] {
                let answer = setting.ask_as(uid, "POST", "/v1/resolve", &[], &body.to_string()).await;
                assert_eq!((answer.status, answer.code().as_str()), (422, "unresolved"));
                let failures = answer.json()["failures"].clone();
                assert_eq!(failures.as_array().map(Vec::len), Some(1), "{failures}");
                let failure = &failures[0];
                assert_eq!((&failure["code"], &failure["reference"]), (&"invalid_reference".into(), &text.into()));
                assert_eq!(failure["backends"], serde_json::json!([]));
                assert!(failure["hint"].as_str().is_some_and(|hint| hint.contains("not a ")), "{failure}");
            }
        }
    }
    assert_eq!(store.calls(), 0);
}

#[tokio::test]
async fn a_key_outside_the_grant_fails_the_same_beside_one_inside_whether_it_exists_or_not() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(9, &[("db", Some(&["user"]))])]);
    let mut answers = Vec::new();
    for key in ["password", "passwort"] {
        let body = format!(r#"{{"references":{{"A":"{{{{db.user}}}}","B":"{{{{db.{key}}}}}"}}}}"#);
        let answer = setting.ask_as(9, "POST", "/v1/resolve", &[], &body).await;
        assert_eq!(answer.status, 422);
        answers.push(String::from_utf8_lossy(&answer.body).replace(key, "KEY"));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn references_between_templates_of_none_one_and_more_get_their_own_values() {
    let store = store();
    let setting = setting(&[("store", &store, false)], vec![grant(OWN_UID, &[("*", None)])]);
    let (user, password) = ("{{db.user}}", "{{db.password}}");
    let body = serde_json::json!({
        "references": { "b": user, "d": password, "f": user, "h": password },
        "templates": { "a": "none", "c": format!("{password} {user} {password}"), "e": user, "g": format!("{password}!") },
    });
    let answer = setting.ask_as(OWN_UID, "POST", "/v1/resolve", &[], &body.to_string()).await;
    assert_eq!(answer.status, 200);
    let expected = serde_json::json!({
        "a": "none", "b": "u", "c": "p u p", "d": "p", "e": "u", "f": "u", "g": "p!", "h": "p",
    });
    assert_eq!(answer.json()["values"], expected);
}
