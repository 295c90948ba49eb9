//! A secrets store of type `aws`.

use super::secrets_store::auth;
use super::section::Section;
use crate::mistake::Mistake;
use crate::settings::{AwsKeys, AwsSettings, Layout};

/// The ways of ZenML's AWS connector. Those for temporary tokens of one's own (`session-token`, `federation-token`) log
/// in with the same keys that ZenML would ask for the token with: the agent needs no more than they may do.
const METHODS: &[&str] = &["implicit", "secret-key", "sts-token", "iam-role", "session-token", "federation-token"];

pub(super) fn read(section: &mut Section, mistakes: &mut Vec<Mistake>) -> Option<AwsSettings> {
    let before = mistakes.len();
    // The keys of 0.35 to 0.52; later versions take them too, and before the others.
    if let Some(region) = section.owned("region_name", mistakes) {
        let written =
            ["aws_access_key_id", "aws_secret_access_key"].into_iter().any(|key| section.origin(key).is_some());
        let keys = if written { Some(keys(section, mistakes)?) } else { None };
        return (mistakes.len() == before).then_some(AwsSettings {
            region: Some(region),
            endpoint_url: None,
            profile: None,
            role_arn: None,
            keys,
            layout: Layout::Store,
        });
    }
    let auth = auth(section, METHODS, mistakes)?;
    let config = &auth.config;
    let region = config.required("region", mistakes).map(str::to_owned);
    let endpoint_url = config.address("endpoint_url", mistakes);
    let method = auth.method.as_str();
    let keys = if method == "implicit" { None } else { keys(config, mistakes) };
    if method == "sts-token" {
        config.required("aws_session_token", mistakes);
    }
    let role_arn = match method {
        "iam-role" => config.required("role_arn", mistakes).map(str::to_owned),
        "implicit" => config.owned("role_arn", mistakes),
        _ => None,
    };
    let profile = if method == "implicit" { config.owned("profile_name", mistakes) } else { None };
    (mistakes.len() == before).then_some(AwsSettings {
        region,
        endpoint_url,
        profile,
        role_arn,
        keys,
        layout: Layout::Store,
    })
}

fn keys(section: &Section, mistakes: &mut Vec<Mistake>) -> Option<AwsKeys> {
    let id = section.required("aws_access_key_id", mistakes).map(str::to_owned);
    let key = section.required_secret("aws_secret_access_key", mistakes);
    let session_token = section.secret("aws_session_token", mistakes);
    Some(AwsKeys { access_key_id: id?, secret_access_key: key?, session_token })
}
