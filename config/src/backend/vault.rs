//! `type = "vault"`.

use std::path::PathBuf;

use super::Reader;
use crate::settings::{BackendKind, Layout, VaultLogin, VaultSettings};

const TOKEN: &[&str] = &["token_env", "token_file", "token_credential"];
const OF_AWS: &[&str] = &["aws_header_value"];
const SECRET_ID: &[&str] = &["secret_id_env", "secret_id_file", "secret_id_credential"];

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let url = reader.required("url").and_then(|url| reader.address("url", url));
    let mount = mount(reader, "mount");
    let auth_mount = mount_of(reader, "auth_mount");
    let login = login(reader);
    let layout = reader.layout("scope_namespace");
    let kv = u8::try_from(reader.written.count("kv").unwrap_or(2)).unwrap_or(2);
    if kv == 1 && layout.as_ref().is_some_and(|layout| !matches!(layout, Layout::Plain { .. })) {
        reader.mistake("kv", "ZenML writes to version 2 alone; 1 goes with layout \"plain\"");
        return None;
    }
    Some(BackendKind::Vault(VaultSettings {
        url: url?,
        mount: mount?,
        namespace: reader.owned("namespace"),
        kv,
        login: login?,
        auth_mount: auth_mount?,
        layout: layout?,
    }))
}

fn mount(reader: &mut Reader<'_>, key: &str) -> Option<String> {
    mount_of(reader, key).map(|mount| mount.unwrap_or_else(|| "secret".to_owned()))
}

/// Returns a mount's path without slashes around it; the outer `None` says that a mistake was reported.
#[expect(clippy::option_option, reason = "the outer one is a mistake, the inner one an absence")]
fn mount_of(reader: &mut Reader<'_>, key: &str) -> Option<Option<String>> {
    let Some(text) = reader.text(key) else { return Some(None) };
    if let Some(path) = super::url::mount(text) {
        return Some(Some(path));
    }
    reader.mistake(key, "is no path of a mount, such as \"secret\" or \"team/kv\"");
    None
}

fn login(reader: &mut Reader<'_>) -> Option<VaultLogin> {
    let auth = reader.word("auth")?;
    let what = format!("login by \"{auth}\"");
    let mut refuse = |keys: &[&[&str]]| reader.refuse(&keys.concat(), &what);
    match auth {
        "approle" => {
            refuse(&[TOKEN, OF_AWS, &["role", "jwt_file"]]);
            let secret_id = reader.secret("secret_id");
            let role_id = reader.required("role_id")?.to_owned();
            Some(VaultLogin::AppRole { role_id, secret_id: secret_id? })
        }
        "kubernetes" => {
            refuse(&[TOKEN, SECRET_ID, OF_AWS, &["role_id"]]);
            let role = reader.required("role")?.to_owned();
            let jwt_file = reader.text("jwt_file").unwrap_or("/var/run/secrets/kubernetes.io/serviceaccount/token");
            Some(VaultLogin::Kubernetes { role, jwt_file: PathBuf::from(jwt_file) })
        }
        "jwt" => {
            refuse(&[TOKEN, SECRET_ID, OF_AWS, &["role_id"]]);
            let jwt_file = PathBuf::from(reader.required("jwt_file")?);
            Some(VaultLogin::Jwt { role: reader.owned("role"), jwt_file })
        }
        "aws" => {
            refuse(&[TOKEN, SECRET_ID, &["role_id", "jwt_file"]]);
            Some(VaultLogin::Aws { role: reader.owned("role"), header_value: reader.owned("aws_header_value") })
        }
        _ => {
            refuse(&[SECRET_ID, OF_AWS, &["role", "role_id", "jwt_file"]]);
            match reader.secret("token")? {
                Some(token) => Some(VaultLogin::Token(token)),
                None => {
                    let what = format!(
                        "[backend.{}] has no token; write `token_env`, `token_file` or `token_credential`, or another `auth`",
                        reader.name
                    );
                    reader.report.mistake_at(&["backend", reader.name], what);
                    None
                }
            }
        }
    }
}
