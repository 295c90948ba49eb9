//! ZenML's secrets store beside its tables: which back-end holds the values.

use std::time::Duration;

use super::aws;
use super::azure;
use super::gcp;
use super::section::Section;
use super::vault;
use crate::environment::Environment;
use crate::mistake::Mistake;
use crate::settings::{BackendKind, BackendSettings, NetworkSettings};

/// Where values lie.
pub(super) enum Holder {
    /// In ZenML's own tables.
    Tables,
    /// There is none.
    None,
    /// In a back-end of its own.
    Other(Box<BackendSettings>),
}

/// Reads the secrets store, or the backup of it; `None` when a mistake was reported.
pub(super) fn read(
    section: &mut Section,
    name: &str,
    default: Holder,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
) -> Option<Holder> {
    let before = mistakes.len();
    let Some(kind) = section.owned("type", mistakes) else {
        return (mistakes.len() == before).then_some(default);
    };
    section.noun = format!("{} (type \"{kind}\")", section.noun);
    let (kind, network) = match kind.as_str() {
        // `rest` is what older clients wrote; ZenML itself takes it for `sql` beside an SQL store.
        "sql" | "rest" => return Some(Holder::Tables),
        "none" => return Some(Holder::None),
        "aws" => (BackendKind::Aws(aws::read(section, mistakes)?), NetworkSettings::default()),
        "gcp" => (BackendKind::Gcp(gcp::read(section, mistakes)?), NetworkSettings::default()),
        "azure" => (BackendKind::Azure(azure::read(section, environment, mistakes)?), NetworkSettings::default()),
        "hashicorp" => {
            let (vault, network) = vault::read(section, environment, mistakes)?;
            (BackendKind::Vault(vault), network)
        }
        "custom" => {
            let what = "a secrets store of type \"custom\" is Python code inside of ZenML, which Keyside cannot run; \
                        a [backend.NAME] of type \"plugin\" asks a program of yours";
            mistakes.extend(section.origin("type").map(|origin| origin.mistake(what)));
            return None;
        }
        _ => {
            let what = "unknown type of secrets store; known are \"sql\", \"aws\", \"gcp\", \"azure\", \"hashicorp\"";
            mistakes.extend(section.origin("type").map(|origin| origin.mistake(what)));
            return None;
        }
    };
    (mistakes.len() == before).then(|| Holder::Other(Box::new(settings(name, kind, network))))
}

/// A back-end with every default but these.
pub(super) fn settings(name: &str, kind: BackendKind, network: NetworkSettings) -> BackendSettings {
    BackendSettings {
        name: name.to_owned(),
        kind,
        required: true,
        parallelism: 8,
        timeout: Duration::from_secs(8),
        ttl: None,
        writable: false,
        denied_means_absent: false,
        network,
    }
}

/// The way to log in that a secrets store names, and its own settings; since 0.53.
pub(super) struct Auth {
    pub(super) method: String,
    pub(super) config: Section,
}

/// Reads `auth_method` and `auth_config`; a method that is none of `known` is reported.
pub(super) fn auth(section: &mut Section, known: &[&str], mistakes: &mut Vec<Mistake>) -> Option<Auth> {
    let method = section.required("auth_method", mistakes)?.to_owned();
    let before = mistakes.len();
    if !known.contains(&method.as_str()) {
        let known = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let what = format!("unknown way to log in; known are {known}");
        mistakes.extend(section.origin("auth_method").map(|origin| origin.mistake(&what)));
        return None;
    }
    let config = section.table("auth_config", mistakes);
    (mistakes.len() == before).then_some(Auth { method, config })
}
