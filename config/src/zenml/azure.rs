//! A secrets store of type `azure`.

use zeroize::Zeroizing;

use super::secrets_store::auth;
use super::section::Section;
use crate::environment::Environment;
use crate::mistake::Mistake;
use crate::settings::{AzureLogin, AzureSettings, Layout, SecretText};

/// The ways of ZenML's Azure connector.
const METHODS: &[&str] = &["implicit", "service-principal", "access-token"];

pub(super) fn read(
    section: &mut Section,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
) -> Option<AzureSettings> {
    let before = mistakes.len();
    let vault = section.required("key_vault_name", mistakes).map(str::to_owned);
    if let Some(name) = &vault
        && !(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && name.len() <= 63)
    {
        let what = "is no name of a vault: letters, digits and dashes";
        mistakes.extend(section.origin("key_vault_name").map(|origin| origin.mistake(what)));
    }
    let login = login(section, environment, mistakes);
    if mistakes.len() > before {
        return None;
    }
    let vault_url = format!("https://{}.vault.azure.net", vault?);
    Some(AzureSettings { vault_url, login: login?, authority: None, layout: Layout::Store })
}

fn login(section: &mut Section, environment: &Environment, mistakes: &mut Vec<Mistake>) -> Option<AzureLogin> {
    // The keys of 0.35 to 0.52; later versions take them too, and before the others. There was no `auth_method` then,
    // and without all three Azure's own chain was asked.
    let legacy = ["azure_client_id", "azure_client_secret", "azure_tenant_id"];
    let written = legacy.iter().filter(|key| section.origin(key).is_some()).count();
    if written == legacy.len() {
        return Some(AzureLogin::ServicePrincipal {
            client_id: section.owned("azure_client_id", mistakes)?,
            client_secret: section.secret("azure_client_secret", mistakes)?,
            tenant_id: section.owned("azure_tenant_id", mistakes)?,
        });
    }
    if section.origin("auth_method").is_none() {
        return Some(implicit(environment, None));
    }
    let auth = auth(section, METHODS, mistakes)?;
    let config = &auth.config;
    match auth.method.as_str() {
        "service-principal" => {
            let client_id = config.required("client_id", mistakes).map(str::to_owned);
            let tenant_id = config.required("tenant_id", mistakes).map(str::to_owned);
            let client_secret = config.required_secret("client_secret", mistakes);
            Some(AzureLogin::ServicePrincipal {
                client_id: client_id?,
                tenant_id: tenant_id?,
                client_secret: client_secret?,
            })
        }
        "access-token" => config.required_secret("token", mistakes).map(AzureLogin::Token),
        _ => Some(implicit(environment, config.owned("tenant_id", mistakes))),
    }
}

/// Azure's own chain, which begins with a service principal in three variables.
fn implicit(environment: &Environment, tenant_id: Option<String>) -> AzureLogin {
    const SECRET: &str = "AZURE_CLIENT_SECRET";
    let variable = |name: &str| {
        let text = environment.get(name).and_then(|value| value.to_str());
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (client_id, tenant) = (variable("AZURE_CLIENT_ID"), variable("AZURE_TENANT_ID"));
    match (client_id, tenant, variable(SECRET)) {
        (Some(client_id), Some(tenant_id), Some(secret)) => {
            let text = Zeroizing::new(secret);
            let client_secret = SecretText { text, origin: format!("variable {SECRET}"), file: None };
            AzureLogin::ServicePrincipal { client_id, tenant_id, client_secret }
        }
        (client_id, tenant, _) => AzureLogin::Default { client_id, tenant_id: tenant_id.or(tenant) },
    }
}
