//! The configuration as an agent of ours would read it: mistakes, back-ends, grants, the audit log.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use keyside_config::Settings;
use keyside_config::settings::GrantSettings;

use super::finding::{Findings, Verdict};
use super::ownership::open_directory_above;
use crate::globals::Globals;
use crate::output::io_text;
use crate::session::load_request;

/// What the rest of the examination needs to know of the configuration.
pub(super) struct Configured {
    pub(super) budgets: Budgets,
    /// Whether it can be loaded.
    pub(super) is_sound: bool,
}

/// What limits are measured against; the defaults where the configuration says nothing.
pub(super) struct Budgets {
    pub(super) cache_bytes: u64,
    pub(super) connections_per_uid: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, connections_per_uid: 8192 }
    }
}

/// `elsewhere`: there is a socket, whose agent has a configuration of its own.
pub(super) fn look(globals: &Globals, elsewhere: bool, findings: &mut Findings) -> Configured {
    let file = written_file(globals);
    if let Some(path) = &file {
        directories_of(path, findings);
    }
    match keyside_config::load(&load_request(globals)) {
        Ok(settings) => {
            let from =
                if settings.sources.is_empty() { "defaults alone".to_owned() } else { settings.sources.join(", ") };
            findings.add("configuration", Verdict::Ok, format!("read from {from}"));
            for refusal in keyside_agent::backend::refusals(&settings) {
                let hint = refusal.hint().unwrap_or("correct it in the configuration");
                findings.advise("configuration", Verdict::Wrong, refusal.to_string(), hint);
            }
            say_settings(&settings, findings);
            let budgets = Budgets {
                cache_bytes: settings.cache.max_bytes,
                connections_per_uid: settings.limits.connections_per_uid,
            };
            Configured { budgets, is_sound: true }
        }
        // A step's container has nothing but the socket, and needs nothing else.
        Err(_) if elsewhere && file.is_none() && !is_in_variables() => {
            findings.add("configuration", Verdict::Ok, "none here; the agent behind the socket has its own");
            Configured { budgets: Budgets::default(), is_sound: true }
        }
        Err(error) => {
            for mistake in &error.mistakes {
                let what = mistake.to_string();
                match &mistake.hint {
                    Some(hint) => findings.advise("configuration", Verdict::Wrong, what, hint),
                    None => findings.add("configuration", Verdict::Wrong, what),
                }
            }
            Configured { budgets: Budgets::default(), is_sound: false }
        }
    }
}

/// Returns the configuration file, named or found at a default path.
fn written_file(globals: &Globals) -> Option<PathBuf> {
    if let Some(path) = &globals.config {
        return Some(path.clone());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let user = base.map(|base| base.join("keyside/keyside.toml"));
    user.into_iter().chain([PathBuf::from("/etc/keyside/keyside.toml")]).find(|path| path.exists())
}

/// Tells whether any variable is configuration: those have a double underscore.
fn is_in_variables() -> bool {
    std::env::vars_os().any(|(name, _)| {
        let name = name.to_string_lossy().to_uppercase();
        name.strip_prefix("KEYSIDE_").is_some_and(|rest| rest.contains("__"))
    })
}

fn directories_of(path: &Path, findings: &mut Findings) {
    let own = rustix::process::geteuid().as_raw();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(open) = open_directory_above(&path, &[own]) {
        findings.advise(
            "configuration file",
            Verdict::Weak,
            format!("the directory {} above {} {}", open.path.display(), path.display(), open.why),
            "whoever may write there decides whom the agent serves: keep the file below directories of root or the agent",
        );
    }
}

fn say_settings(settings: &Settings, findings: &mut Findings) {
    findings.add("validation level", Verdict::Ok, settings.agent.validation_level.to_string());
    for backend in &settings.backends {
        let writable = if backend.writable { ", may be written to" } else { "" };
        let required = if backend.required { "" } else { ", not required" };
        findings.add(
            "back-end",
            Verdict::Ok,
            format!("{} ({}{required}{writable})", backend.name, backend.kind.type_name()),
        );
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    findings.add("grants", Verdict::Ok, grants(&settings.grants, own, &groups()));
    audit(settings, findings);
}

fn groups() -> Vec<u32> {
    rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw).collect()
}

/// Says whether one of the grants is ours: an operator need not have one, a step must.
fn grants(grants: &[GrantSettings], (uid, gid): (u32, u32), groups: &[u32]) -> String {
    if grants.is_empty() {
        return "none: the agent's own uid may read everything, nobody else anything".to_owned();
    }
    let ours: Vec<_> = grants
        .iter()
        .filter(|grant| {
            // One that goes by program or cgroup alone is for any uid.
            grant.uids.is_empty() && grant.gids.is_empty()
                || grant.uids.contains(&uid)
                || grant.gids.iter().any(|granted| *granted == gid || groups.contains(granted))
        })
        .map(|grant| grant.name.as_str())
        .collect();
    let all = grants.len();
    match ours.as_slice() {
        [] => format!("{all}, none of them for uid {uid}: it may not read"),
        names => format!("{all}; for uid {uid}: {}", names.join(", ")),
    }
}

fn audit(settings: &Settings, findings: &mut Findings) {
    const CHECK: &str = "audit log";
    let Some(path) = &settings.audit.path else {
        findings.add(CHECK, Verdict::Ok, "none: denials and writes are in the agent's own log");
        return;
    };
    let shown = path.display();
    let required = if settings.audit.required { ", required" } else { "" };
    match may_append(path) {
        Ok(()) => match path.metadata().map(|found| found.permissions().mode() & 0o022) {
            Ok(open) if open != 0 => findings.advise(
                CHECK,
                Verdict::Weak,
                format!("others may write to {shown}"),
                "take the write bits of group and others away",
            ),
            _ => findings.add(CHECK, Verdict::Ok, format!("{shown}{required}, can be written by this user")),
        },
        Err(error) => findings.advise(
            CHECK,
            Verdict::Wrong,
            format!("{shown} cannot be written by this user: {}", io_text(&error)),
            "make its directory writable for the agent's user; run doctor as that user to judge this",
        ),
    }
}

/// Asks whether `path` may be appended to, or made, without doing either.
fn may_append(path: &Path) -> std::io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let may_write = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).map_err(Into::into);
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => may_write(path),
        Ok(_) => Err(std::io::Error::other("it is no regular file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => may_write(path.parent().unwrap_or(path)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, uids: &[u32], gids: &[u32]) -> GrantSettings {
        GrantSettings {
            name: name.to_owned(),
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            exes: Vec::new(),
            cgroups: Vec::new(),
            read: Vec::new(),
            write: Vec::new(),
            admin: false,
        }
    }

    #[test]
    fn the_grants_that_cover_us_are_named() {
        let all = [grant("team", &[7], &[]), grant("group", &[], &[50]), grant("other", &[8], &[])];
        assert_eq!(grants(&all, (7, 1), &[50]), "3; for uid 7: team, group");
        assert_eq!(grants(&all, (9, 1), &[]), "3, none of them for uid 9: it may not read");
        assert!(grants(&[], (9, 1), &[]).starts_with("none"));
    }

    #[test]
    fn a_log_can_be_appended_to_where_its_directory_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        assert!(may_append(&path).is_ok());
        assert!(!path.exists(), "nothing was made");
        assert!(may_append(&directory.path().join("none/audit.jsonl")).is_err());
        assert!(may_append(directory.path()).is_err());
    }
}
