//! The tables of `keyside.toml` that the wrapper reads too: `[agent] socket`, `[exec]` and `[profile.NAME]`.
//!
//! Keys are the long flags of `keyside exec` with `_` for `-`. A profile lies over `[exec]`, flags lie over both;
//! tables merge, lists are replaced.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::units::Span;

/// `[exec]` or one `[profile.NAME]`, as written. Everything is optional; an absent key leaves the layer below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecSettings {
    /// VAR = TEMPLATE.
    pub env: Option<BTreeMap<String, String>>,
    /// NAME or PREFIX=NAME; the order is the order of injection.
    pub secret: Option<Vec<String>>,
    /// Paths of dotenv files whose values are templates.
    pub env_file: Option<Vec<String>>,
    /// NAME = TEMPLATE.
    pub file: Option<BTreeMap<String, String>>,
    /// VAR = TEMPLATE.
    pub file_env: Option<BTreeMap<String, String>>,
    /// NAME = path of a template.
    pub template: Option<BTreeMap<String, String>>,
    /// Whole secrets written as NAME/KEY.
    pub secret_files: Option<Vec<String>>,
    /// `auto`, `private`, `dir` or `memfd`.
    pub files: Option<String>,
    /// The directory of the files.
    pub files_dir: Option<String>,
    /// Permits a disk.
    pub insecure_files: Option<bool>,
    /// Leaves a malformed `{{` in `--template` files as it stands.
    pub lenient: Option<bool>,
    /// Leaves references in the inherited environment alone.
    pub no_resolve_env: Option<bool>,
    /// `ignore`, `rewrite`, `signal:SIG`, `restart`.
    pub on_change: Option<Vec<String>>,
    /// The signal that ends the child before a restart.
    pub restart_signal: Option<String>,
    /// How long the child may take to end.
    pub restart_grace: Option<Span>,
    /// How long to gather changes.
    pub debounce: Option<Span>,
    /// A random delay before acting on a change.
    pub splay: Option<Span>,
    /// Hides values in the child's output.
    pub mask: Option<bool>,
    /// `auto`, `always` or `never`: the duties of PID 1.
    pub init: Option<String>,
    /// How long to wait for the agent.
    pub wait: Option<Span>,
    /// How long one resolve may take.
    pub timeout: Option<Span>,
    /// Starts from an empty environment.
    pub pristine: Option<bool>,
    /// UID or UID:GID.
    pub user: Option<String>,
    /// The child's working directory.
    pub chdir: Option<String>,
    /// Where failures are written as JSON.
    pub report: Option<String>,
    /// The exit code when only transient failures stood in the way.
    pub unavailable_exit: Option<u8>,
    /// `auto`, `socket` or `embedded`.
    pub agent: Option<String>,
    /// Whom to trust as server beside root and oneself.
    pub agent_uid: Option<u32>,
}

impl ExecSettings {
    /// Lays `upper` over `self`: tables merge key by key, everything else is replaced where `upper` has it.
    #[must_use]
    pub fn overlaid_with(self, upper: Self) -> Self {
        fn merged(
            lower: Option<BTreeMap<String, String>>,
            upper: Option<BTreeMap<String, String>>,
        ) -> Option<BTreeMap<String, String>> {
            match (lower, upper) {
                (Some(mut lower), Some(upper)) => {
                    lower.extend(upper);
                    Some(lower)
                }
                (lower, upper) => upper.or(lower),
            }
        }
        Self {
            env: merged(self.env, upper.env),
            file: merged(self.file, upper.file),
            file_env: merged(self.file_env, upper.file_env),
            template: merged(self.template, upper.template),
            secret: upper.secret.or(self.secret),
            env_file: upper.env_file.or(self.env_file),
            secret_files: upper.secret_files.or(self.secret_files),
            files: upper.files.or(self.files),
            files_dir: upper.files_dir.or(self.files_dir),
            insecure_files: upper.insecure_files.or(self.insecure_files),
            lenient: upper.lenient.or(self.lenient),
            no_resolve_env: upper.no_resolve_env.or(self.no_resolve_env),
            on_change: upper.on_change.or(self.on_change),
            restart_signal: upper.restart_signal.or(self.restart_signal),
            restart_grace: upper.restart_grace.or(self.restart_grace),
            debounce: upper.debounce.or(self.debounce),
            splay: upper.splay.or(self.splay),
            mask: upper.mask.or(self.mask),
            init: upper.init.or(self.init),
            wait: upper.wait.or(self.wait),
            timeout: upper.timeout.or(self.timeout),
            pristine: upper.pristine.or(self.pristine),
            user: upper.user.or(self.user),
            chdir: upper.chdir.or(self.chdir),
            report: upper.report.or(self.report),
            unavailable_exit: upper.unavailable_exit.or(self.unavailable_exit),
            agent: upper.agent.or(self.agent),
            agent_uid: upper.agent_uid.or(self.agent_uid),
        }
    }
}

/// Tells whether a text is a signal as `on_change` and `restart_signal` name one: with or without `SIG`, in any case, or
/// a number from 1 to 64.
pub fn is_signal(text: &str) -> bool {
    const NAMES: &[&str] = &[
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    NAMES.contains(&upper.strip_prefix("SIG").unwrap_or(&upper))
        || text.parse().is_ok_and(|number: u8| (1..=64).contains(&number))
}
