//! `type = "azure"`.

use super::Reader;
use crate::settings::{AzureLogin, AzureSettings, BackendKind};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let vault_url = reader.required("vault_url").and_then(|url| reader.address("vault_url", url));
    let authority = match reader.text("authority") {
        None => None,
        Some(url) => Some(reader.address("authority", url)?),
    };
    let (client_id, tenant_id) = (reader.owned("client_id"), reader.owned("tenant_id"));
    let login = match reader.secret("client_secret")? {
        None => AzureLogin::Default { client_id, tenant_id },
        Some(client_secret) => {
            let (client_id, tenant_id) = (reader.required("client_id"), reader.required("tenant_id"));
            AzureLogin::ServicePrincipal {
                client_id: client_id?.to_owned(),
                tenant_id: tenant_id?.to_owned(),
                client_secret,
            }
        }
    };
    if reader.written.writable {
        reader.mistake("writable", "Key Vault can only be read in this version");
        return None;
    }
    let layout = reader.layout("namespace");
    Some(BackendKind::Azure(AzureSettings { vault_url: vault_url?, login, authority, layout: layout? }))
}
