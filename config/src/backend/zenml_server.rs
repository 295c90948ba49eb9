//! `type = "zenml-server"`.

use super::Reader;
use crate::settings::{BackendKind, ServerLogin, ZenmlServerSettings};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let url = reader.required("url").and_then(|url| reader.address("url", url));
    let (api_key, password, token) = (reader.secret("api_key"), reader.secret("password"), reader.secret("api_token"));
    let (api_key, password, token) = (api_key?, password?, token?);
    let username = reader.owned("username");
    let login = match (api_key, username, password, token) {
        (None, None, None, None) => None,
        (Some(key), None, None, None) => Some(ServerLogin::ApiKey(key)),
        (None, Some(username), Some(password), None) => Some(ServerLogin::Password { username, password }),
        (None, None, None, Some(token)) => Some(ServerLogin::ApiToken(token)),
        (None, Some(_), None, None) => {
            reader.mistake("username", "needs `password_env`, `password_file` or `password_credential` beside it");
            return None;
        }
        (None, None, Some(_), None) => {
            reader.required("username");
            return None;
        }
        _ => {
            let what = format!(
                "[backend.{}] has two ways to log in; keep one of `api_key_*`, `username` with `password_*`, `api_token_*`",
                reader.name
            );
            reader.report.mistake_at(&["backend", reader.name], what);
            return None;
        }
    };
    Some(BackendKind::ZenmlServer(ZenmlServerSettings { url: url?, login, workspace: reader.owned("workspace") }))
}
