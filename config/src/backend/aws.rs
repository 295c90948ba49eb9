//! `type = "aws"`.

use super::Reader;
use crate::settings::{AwsSettings, BackendKind};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let endpoint_url = match reader.text("endpoint_url") {
        None => None,
        Some(url) => Some(reader.address("endpoint_url", url)?),
    };
    Some(BackendKind::Aws(AwsSettings {
        region: reader.owned("region"),
        endpoint_url,
        profile: reader.owned("profile"),
        role_arn: reader.owned("role_arn"),
        keys: None,
        layout: reader.layout("namespace")?,
    }))
}
