//! The back-end on plug-ins that behave, and on those that do not.

mod conformance;
mod contract;
mod faults;
mod process;
mod replies;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use keyside_config::settings::{BackendKind, BackendSettings, NetworkSettings, PluginSettings};

use super::super::{Backend, BackendError, Scopes, Secret};
use super::Plugin;

/// Long beside any answer on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The path of a program among the tests' peers.
fn peer(name: &str) -> String {
    format!("{}/../tests/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn has_python() -> bool {
    let found = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no python3");
    }
    found
}

fn settings(command: Vec<String>, timeout: Duration) -> BackendSettings {
    BackendSettings {
        name: "own".into(),
        kind: BackendKind::Plugin(PluginSettings { command, env: BTreeMap::new() }),
        required: true,
        parallelism: 8,
        timeout,
        ttl: None,
        writable: true,
        denied_means_absent: false,
        network: NetworkSettings::default(),
    }
}

fn plugin_within(command: Vec<String>, max_value: u64, timeout: Duration) -> Plugin {
    let settings = settings(command, timeout);
    let BackendKind::Plugin(plugin) = &settings.kind else { unreachable!("made above") };
    Plugin::new(&settings, plugin, max_value)
}

fn plugin_of(command: Vec<String>, max_value: u64) -> Plugin {
    plugin_within(command, max_value, TIMEOUT)
}

/// A plug-in that is a few lines of shell. `greet` in it answers `initialize`; `next` reads a request into `$line` and
/// `$id`, or ends; `reply TEXT` answers it; `answer TEXT` does both.
fn shell_within(script: &str, timeout: Duration) -> Plugin {
    plugin_within(vec!["/bin/sh".into(), "-c".into(), format!("{PRELUDE}\n{script}")], 1 << 20, timeout)
}

const PRELUDE: &str = r#"
    next() { IFS= read -r line || exit 0; id=${line#'{"id":'}; id=${id%%,*}; }
    reply() { printf '{"id":%s,%s}\n' "$id" "$1"; }
    answer() { next; reply "$1"; }
    greet() { answer '"result":{"protocol":1}'; }
"#;

fn shell(script: &str) -> Plugin {
    shell_within(script, TIMEOUT)
}

async fn fetch(plugin: &Plugin, name: &str) -> Result<Secret, BackendError> {
    plugin.fetch(name, Scopes::PrivateFirst).await
}

async fn error(plugin: &Plugin, name: &str) -> BackendError {
    match fetch(plugin, name).await {
        Ok(_) => panic!("{name} was found"),
        Err(error) => error,
    }
}

/// Checks class, words of the error, and that there is advice.
fn check_error(error: &BackendError, class: &str, words: &str) {
    let found = crate::backend::contract::class(error);
    let text = error.to_string();
    assert_eq!(found, class, "{text}");
    assert!(text.contains(words), "`{words}` is not in: {text}");
    if *error != BackendError::NotFound {
        assert!(text.contains("back-end `own`") && error.hint().is_some(), "{error:?}");
        assert!(!text.contains('\n') && !text.ends_with('.'), "one line without a stop: {text}");
    }
}
