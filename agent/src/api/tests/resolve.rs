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
