//! What is refused before any call.

use keyside_config::settings::{GcpLogin, Layout, ManagerScope, NetworkSettings};
use zeroize::Zeroizing;

use super::{Options, class, namespace, text};

const USER: &str = r#"{"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}"#;

fn proxied() -> NetworkSettings {
    NetworkSettings { proxy: Some(Zeroizing::new("http://127.0.0.1:9".into())), ..NetworkSettings::default() }
}

fn refused(options: Options, words: &str) {
    let error = options.try_open().err().unwrap_or_else(|| panic!("opened: {words}"));
    assert_eq!(class(&error), "identity");
    let all = format!("{error} {:?}", error.hint());
    assert!(all.contains(words), "{all}");
}

fn options() -> Options {
    Options::at("http://127.0.0.1:9")
}

#[test]
fn nothing_is_written_in_the_cloud() {
    refused(Options { writable: true, ..options() }, "`writable`");
}

#[test]
fn settings_that_cannot_be_are_named() {
    refused(Options { project: "a/b", ..options() }, "`project`");
    refused(Options { project: "", ..options() }, "`project`");
    refused(options().layout(Layout::Plain { prefix: "a/b".into() }), "`prefix`");
    refused(options().layout(namespace("Team A")), "`namespace`");
    refused(options().layout(Layout::Manager(ManagerScope::Component("{x}".into()))), "`component`");
}

#[test]
fn a_proxy_that_the_login_would_not_use_is_refused() {
    let login = |login| Options { login, network: proxied(), ..options() };
    refused(login(GcpLogin::Json(text(USER))), "HTTPS_PROXY");
    refused(Options { impersonate: Some("r@p".into()), ..login(GcpLogin::Token(text("t"))) }, "`proxy`");
    let account = r#"{"type": "service_account"}"#;
    assert!(login(GcpLogin::Json(text(account))).try_open().is_ok(), "it signs its tokens itself");
    assert!(login(GcpLogin::Token(text("t"))).try_open().is_ok());
    // What cannot be read is said when it is needed.
    assert!(login(GcpLogin::File("/nonexistent/key.json".into())).try_open().is_ok());
}

#[test]
fn authorities_that_the_login_would_not_know_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    // The certificate is another part's to judge; here none is looked at before the login.
    std::fs::write(&file, "no certificate").expect("written");
    let network = || NetworkSettings { ca_file: Some(file.clone()), ..NetworkSettings::default() };
    refused(Options { network: network(), ..options() }, "`ca_file`");
}

#[test]
fn opening_needs_no_credentials_and_no_runtime() {
    for login in [GcpLogin::Default, GcpLogin::File("/nonexistent".into()), GcpLogin::Json(text("no JSON"))] {
        assert!(Options { login, ..options() }.try_open().is_ok());
    }
}
