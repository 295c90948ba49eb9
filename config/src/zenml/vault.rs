//! A secrets store of type `hashicorp`.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::section::Section;
use crate::backend::url;
use crate::environment::Environment;
use crate::key_material;
use crate::mistake::Mistake;
use crate::settings::{Layout, NetworkSettings, SecretText, VaultLogin, VaultSettings};

/// Reads the settings. What ZenML's documents promise and its library did before 0.53 holds here for all versions:
/// VAULT_ADDR, VAULT_NAMESPACE, VAULT_TOKEN, `~/.vault-token` and VAULT_CACERT stand in for what is not set.
pub(super) fn read(
    section: &mut Section,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
) -> Option<(VaultSettings, NetworkSettings)> {
    let before = mistakes.len();
    let url = address(section, environment, mistakes);
    let namespace = section.owned("vault_namespace", mistakes).or_else(|| variable(environment, "VAULT_NAMESPACE"));
    let mount = mount(section, "mount_point", mistakes);
    let auth_mount = mount_of(section, "auth_mount_point", mistakes);
    let login = login(section, environment, mistakes);
    let ca_file = variable(environment, "VAULT_CACERT").and_then(|path| std::path::absolute(path).ok());
    if mistakes.len() > before {
        return None;
    }
    let settings =
        VaultSettings { url: url?, mount, namespace, kv: 2, login: login?, auth_mount, layout: Layout::Store };
    Some((settings, NetworkSettings { ca_file, ..NetworkSettings::default() }))
}

fn address(section: &Section, environment: &Environment, mistakes: &mut Vec<Mistake>) -> Option<String> {
    const VARIABLE: &str = "VAULT_ADDR";
    if section.origin("vault_addr").is_some() {
        return section.address("vault_addr", mistakes);
    }
    let Some(text) = variable(environment, VARIABLE) else {
        mistakes.push(section.missing("vault_addr"));
        return None;
    };
    url::address(&text, false).map_err(|what| mistakes.push(Mistake::of_variable(VARIABLE, what))).ok()
}

fn login(section: &Section, environment: &Environment, mistakes: &mut Vec<Mistake>) -> Option<VaultLogin> {
    match section.text("auth_method", mistakes).unwrap_or("token") {
        "token" => match section.secret("vault_token", mistakes).or_else(|| own_token(environment)) {
            Some(token) => Some(VaultLogin::Token(token)),
            None => {
                mistakes.push(section.missing("vault_token"));
                None
            }
        },
        "app_role" => {
            let role_id = section.required("app_role_id", mistakes).map(str::to_owned);
            let secret_id = section.required_secret("app_secret_id", mistakes);
            Some(VaultLogin::AppRole { role_id: role_id?, secret_id: Some(secret_id?) })
        }
        "aws" => {
            let header_value = section.owned("aws_header_value", mistakes);
            if header_value.as_deref().is_some_and(|value| !url::is_header_value(value)) {
                let what = format!("must be {}", url::HEADER_VALUE);
                mistakes.extend(section.origin("aws_header_value").map(|origin| origin.mistake(&what)));
            }
            Some(VaultLogin::Aws { role: section.owned("aws_role", mistakes), header_value })
        }
        _ => {
            let what = "unknown way to log in; known are \"token\", \"app_role\", \"aws\"";
            mistakes.extend(section.origin("auth_method").map(|origin| origin.mistake(what)));
            None
        }
    }
}

/// The token that Vault's own programs take.
fn own_token(environment: &Environment) -> Option<SecretText> {
    const VARIABLE: &str = "VAULT_TOKEN";
    if let Some(text) = variable(environment, VARIABLE) {
        return Some(SecretText { text: Zeroizing::new(text), origin: format!("variable {VARIABLE}"), file: None });
    }
    let file = PathBuf::from(environment.get("HOME")?).join(".vault-token");
    let text = key_material::text_of(&file).ok()?;
    Some(SecretText {
        text,
        origin: format!("file {}", file.display()),
        file: Some(file).filter(|file| is_whole(file)),
    })
}

/// Only a file by its absolute path can be read again.
fn is_whole(file: &Path) -> bool {
    file.is_absolute()
}

fn mount(section: &Section, key: &str, mistakes: &mut Vec<Mistake>) -> String {
    mount_of(section, key, mistakes).unwrap_or_else(|| "secret".to_owned())
}

fn mount_of(section: &Section, key: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
    let text = section.text(key, mistakes)?;
    let path = url::mount(text);
    if path.is_none() {
        let what = "is no path of a mount, such as \"secret\" or \"team/kv\"";
        mistakes.extend(section.origin(key).map(|origin| origin.mistake(what)));
    }
    path
}

fn variable(environment: &Environment, name: &str) -> Option<String> {
    let text = environment.get(name).and_then(|value| value.to_str());
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}
