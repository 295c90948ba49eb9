//! A ZenML server as the store.

use super::section::Section;
use super::sql::pem;
use crate::mistake::Mistake;
use crate::settings::{NetworkSettings, Pem, SecretText, ServerLogin, ZenmlServerSettings};

/// Reads the address of the server.
pub(super) fn address(store: &Section, mistakes: &mut Vec<Mistake>) -> Option<String> {
    store.address("url", mistakes)
}

/// Reads what the store says beside the address.
pub(super) fn read(
    url: String,
    store: &Section,
    login: Option<ServerLogin>,
    workspace: Option<String>,
    mistakes: &mut Vec<Mistake>,
) -> (ZenmlServerSettings, NetworkSettings) {
    let network = network(&url, store, mistakes);
    (ZenmlServerSettings { url, login, workspace }, network)
}

/// Reads the login. In ZenML an API key takes the place of a password, and a password that of a token.
pub(super) fn login(section: &Section, mistakes: &mut Vec<Mistake>) -> Option<ServerLogin> {
    if let Some(key) = section.secret("api_key", mistakes) {
        return Some(ServerLogin::ApiKey(key));
    }
    let username = section.owned("username", mistakes);
    // A user's password may be empty; ZenML's own first user has such a one.
    let password = section.raw_text("password", mistakes).map(|text| text.to_owned().into());
    let password: Option<SecretText> = password.map(|text| section.as_secret("password", text));
    let token = api_token(section, mistakes);
    match (username, password, token) {
        (Some(username), Some(password), _) => Some(ServerLogin::Password { username, password }),
        (_, _, Some(token)) => Some(ServerLogin::ApiToken(token)),
        (Some(_), None, None) => {
            mistakes.push(section.missing("password"));
            None
        }
        (None, Some(password), None) if !password.text.is_empty() => {
            mistakes.push(section.missing("username"));
            None
        }
        (None, ..) => None,
    }
}

/// The text itself, or in `credentials.yaml` a table of it and its times.
fn api_token(section: &Section, mistakes: &mut Vec<Mistake>) -> Option<SecretText> {
    match section.within("api_token", "access_token") {
        Some(token) => Some(section.as_secret("api_token", token)),
        None => section.secret("api_token", mistakes),
    }
}

/// ZenML takes `verify_ssl` as true, as false, as a file of authorities or as their text. Without a check the server may
/// be anybody, so false is not for us.
fn network(url: &str, store: &Section, mistakes: &mut Vec<Mistake>) -> NetworkSettings {
    const KEY: &str = "verify_ssl";
    let mut network = NetworkSettings::default();
    match store.switch(KEY) {
        Ok(None | Some(true)) => {}
        Ok(Some(false)) if url.starts_with("http://") => {}
        Ok(Some(false)) => {
            let what = "the server's certificate is always checked; name the file of the authority that signed it, \
                        or put its PEM text here";
            mistakes.extend(store.origin(KEY).map(|origin| origin.mistake(what)));
        }
        Err(_) => match pem(store, KEY, mistakes) {
            Some(Pem::File(path)) => network.ca_file = Some(path),
            Some(Pem::Text(text)) => network.ca_text = Some(text.text.as_str().to_owned()),
            None => {}
        },
    }
    network
}
