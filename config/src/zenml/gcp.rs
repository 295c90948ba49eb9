//! A secrets store of type `gcp`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::given::{Given, Table};
use super::secrets_store::auth;
use super::section::Section;
use crate::mistake::Mistake;
use crate::settings::{GcpLogin, GcpSettings, Layout};

/// The ways of ZenML's GCP connector.
const METHODS: &[&str] =
    &["implicit", "user-account", "service-account", "external-account", "oauth2-token", "impersonation"];

pub(super) fn read(section: &mut Section, mistakes: &mut Vec<Mistake>) -> Option<GcpSettings> {
    let before = mistakes.len();
    // The key of 0.35 to 0.52; later versions take it too, and before the others. GOOGLE_APPLICATION_CREDENTIALS, which
    // ZenML reads beside it, is part of Google's own chain.
    if let Some(project) = section.owned("project_id", mistakes) {
        return Some(settings(project, GcpLogin::Default, None));
    }
    let auth = auth(section, METHODS, mistakes)?;
    let config = &auth.config;
    let (key, kind) = match auth.method.as_str() {
        "user-account" => ("user_account_json", "authorized_user"),
        "external-account" => ("external_account_json", "external_account"),
        "service-account" | "impersonation" => ("service_account_json", "service_account"),
        _ => ("", ""),
    };
    let mut project = config.owned("project_id", mistakes);
    let login = match auth.method.as_str() {
        "implicit" => Some(GcpLogin::Default),
        "oauth2-token" => config.required_secret("token", mistakes).map(GcpLogin::Token),
        _ => credentials(config, key, kind, mistakes).map(|(text, of_account)| {
            if kind == "service_account" {
                project = project.take().or(of_account);
            }
            GcpLogin::Json(config.as_secret(key, text))
        }),
    };
    let impersonate = match auth.method.as_str() {
        "impersonation" => config.required("target_principal", mistakes).map(str::to_owned),
        _ => None,
    };
    if project.is_none() && login.is_some() {
        mistakes.push(config.missing("project_id"));
    }
    if mistakes.len() > before {
        return None;
    }
    Some(settings(project?, login?, impersonate))
}

fn settings(project: String, login: GcpLogin, impersonate: Option<String>) -> GcpSettings {
    GcpSettings { project, endpoint: None, login, impersonate, layout: Layout::Store }
}

/// Reads a JSON document of credentials, which ZenML also takes as a table or in base64, and the project in it.
fn credentials(
    config: &Section,
    key: &str,
    kind: &str,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Zeroizing<String>, Option<String>)> {
    let before = mistakes.len();
    let Some(text) = config.json(key, mistakes) else {
        if mistakes.len() == before {
            mistakes.push(config.missing(key));
        }
        return None;
    };
    let text = plain(text);
    let document: Option<Table> = match text.as_deref().map(|text| serde_json::from_str(text)) {
        Some(Ok(Given::Table(document))) => Some(document),
        _ => None,
    };
    let word = |key: &str| match document.as_ref()?.get(key)? {
        Given::Text(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    if word("type").as_deref() != Some(kind) {
        let what = format!("must be credentials as JSON with \"type\": \"{kind}\"");
        mistakes.extend(config.origin(key).map(|origin| origin.mistake(&what)));
        return None;
    }
    let project = word("project_id");
    Some((text?, project))
}

/// Undoes the base64, where the text is that.
fn plain(text: Zeroizing<String>) -> Option<Zeroizing<String>> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
        return Some(text);
    }
    let bytes = STANDARD.decode(text.as_bytes()).ok()?;
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}
