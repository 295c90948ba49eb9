//! `type = "gcp"`.

use super::Reader;
use crate::settings::{BackendKind, GcpLogin, GcpSettings};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let project = reader.required("project").map(str::to_owned);
    let endpoint = match reader.text("endpoint") {
        None => None,
        Some(url) => Some(reader.address("endpoint", url)?),
    };
    let login = match reader.text("credentials_file") {
        Some(path) => {
            reader.report.files.push(path.into());
            GcpLogin::File(path.into())
        }
        None => GcpLogin::Default,
    };
    let layout = reader.layout("namespace");
    Some(BackendKind::Gcp(GcpSettings {
        project: project?,
        endpoint,
        login,
        impersonate: reader.owned("impersonate"),
        layout: layout?,
    }))
}
