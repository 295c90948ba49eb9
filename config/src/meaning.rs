//! What the merged layers mean together: what needs another key, names that must exist, secrets that are pointed at.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::accounts::{self, OVERFLOW_ID};
use crate::check::Report;
use crate::settings::{
    AgentSettings, AuditSettings, BackendSettings, CacheSettings, GrantSettings, LimitSettings, ListenerSettings,
    MetricsSettings, OnIdentityFailure, Poll, ScopeOrder, SecretPattern,
};
use crate::written::{
    Written, WrittenAgent, WrittenAudit, WrittenCache, WrittenGrant, WrittenLimits, WrittenListener, WrittenMetrics,
    WrittenPattern,
};

/// Returns `[agent]`; the validation level is the caller's to override.
pub(crate) fn agent(written: &Written, flag_socket: Option<PathBuf>, report: &mut Report) -> AgentSettings {
    let WrittenAgent { socket, socket_mode, socket_group, validation_level, scope_order, request_timeout, .. } =
        &written.agent;
    group_exists(socket_group.as_deref(), &["agent", "socket_group"], report);
    let mut listeners = Vec::new();
    let mut owners: BTreeMap<PathBuf, String> = BTreeMap::new();
    if let Some(path) = flag_socket.or_else(|| socket.as_ref().map(PathBuf::from)) {
        owners.insert(path.clone(), OWN_LISTENER.to_owned());
        listeners.push(ListenerSettings {
            name: OWN_LISTENER.to_owned(),
            path,
            mode: *socket_mode,
            group: socket_group.clone(),
            grants: None,
        });
    }
    for (name, listener) in &written.listener {
        if let Some(settings) = one_listener(name, listener, written, report) {
            match owners.entry(settings.path.clone()) {
                Entry::Occupied(other) => {
                    let what = format!("[listener.{name}] has the same `path` as `{}`", other.get());
                    report.mistake_at(&["listener", name, "path"], what);
                }
                Entry::Vacant(vacant) => {
                    vacant.insert(name.clone());
                    listeners.push(settings);
                }
            }
        }
    }
    AgentSettings {
        listeners,
        socket_mode: *socket_mode,
        socket_group: socket_group.clone(),
        validation_level: *validation_level,
        scope_order: match scope_order.as_str() {
            "public-first" => ScopeOrder::PublicFirst,
            _ => ScopeOrder::PrivateFirst,
        },
        request_timeout: request_timeout.0,
    }
}

/// The name of the listener that `[agent] socket` stands for.
const OWN_LISTENER: &str = "agent";

fn one_listener(name: &str, written: &WrittenListener, all: &Written, report: &mut Report) -> Option<ListenerSettings> {
    if name == OWN_LISTENER {
        let what = "the name `agent` stands for `socket` in [agent]; give this listener another one";
        report.mistake_at(&["listener", name], what);
    }
    group_exists(written.group.as_deref(), &["listener", name, "group"], report);
    for (index, grant) in written.grants.iter().flatten().enumerate() {
        if !all.grant.contains_key(grant) && report.place(&["grant", grant]).is_none() {
            let near = report.nearest(grant, all.grant.keys().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let what = format!("`grants` in [listener.{name}] names `{grant}`, but there is no [grant.{grant}]{near}");
            report.mistake_at(&["listener", name, "grants", &index.to_string()], what);
        }
    }
    required(written.path.as_ref(), "path", "listener", name, report).map(|path| ListenerSettings {
        name: name.to_owned(),
        path: PathBuf::from(path),
        mode: written.mode,
        group: written.group.clone(),
        grants: written.grants.clone(),
    })
}

/// Returns a key that must be there; a wrong one has been reported already.
fn required<'v>(
    value: Option<&'v String>,
    key: &str,
    table: &str,
    name: &str,
    report: &mut Report,
) -> Option<&'v String> {
    if value.is_none() && report.place(&[table, name, key]).is_none() {
        report.mistake_at(&[table, name], format!("[{table}.{name}] has no `{key}`"));
    }
    value
}

fn group_exists(group: Option<&str>, path: &[&str], report: &mut Report) {
    let Some(group) = group else { return };
    if group.parse::<u32>().is_ok() {
        return;
    }
    if let Err(what) = accounts::gid_of(group) {
        report.mistake_at(path, format!("group `{}`: {what}", crate::mistake::shown(group)));
    }
}

/// Returns `[cache]`.
pub(crate) fn cache(written: &WrittenCache) -> CacheSettings {
    CacheSettings {
        ttl: written.ttl.0,
        max_stale: written.max_stale.0,
        negative_ttl: written.negative_ttl.0,
        max_bytes: written.max_bytes,
        poll: match written.poll.as_str() {
            "on" => Poll::On,
            "off" => Poll::Off,
            _ => Poll::Auto,
        },
        poll_interval: written.poll_interval.0,
        jitter: written.jitter,
        on_identity_failure: match written.on_identity_failure.as_str() {
            "deny" => OnIdentityFailure::Deny,
            _ => OnIdentityFailure::Stale,
        },
    }
}

/// Puts the back-ends into the order of `precedence`, which must name each of `names` exactly once; it may name those
/// that only hold another's values, which changes nothing.
pub(crate) fn in_precedence(
    backends: Vec<BackendSettings>,
    names: &[String],
    attached: &[&str],
    written: &WrittenAgent,
    report: &mut Report,
) -> Vec<BackendSettings> {
    let Some(precedence) = &written.precedence else {
        if let [_, second, ..] = names
            && report.place(&["agent", "precedence"]).is_none()
        {
            let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            let what = format!(
                "with two back-ends or more, `precedence` in [agent] must say their order, such as precedence = [{list}]"
            );
            report.mistake_at(&["backend", second], what);
        }
        return backends;
    };
    let known: BTreeSet<&String> = names.iter().collect();
    let mut seen = BTreeSet::new();
    for (index, name) in precedence.iter().enumerate() {
        let path = ["agent", "precedence", &index.to_string()];
        if !known.contains(name) && !attached.contains(&name.as_str()) {
            let near = report.nearest(name, names.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let name = crate::mistake::shown(name);
            report.mistake_at(&path, format!("`precedence` in [agent] names `{name}`, which is no back-end{near}"));
        } else if !seen.insert(name) {
            report.mistake_at(&path, format!("`precedence` in [agent] names `{name}` twice"));
        }
    }
    let missing: Vec<String> =
        names.iter().filter(|name| !seen.contains(name)).map(|name| format!("`{name}`")).collect();
    if !missing.is_empty() {
        let what = format!("`precedence` in [agent] leaves out {}", missing.join(", "));
        report.mistake_at(&["agent", "precedence"], what);
    }
    let mut backends = backends;
    let rank: BTreeMap<&String, usize> = precedence.iter().enumerate().map(|(rank, name)| (name, rank)).collect();
    backends.sort_by_key(|backend| rank.get(&backend.name).copied());
    backends
}

/// Returns every `[grant.*]`, with names of users and groups looked up.
pub(crate) fn grants(written: &Written, report: &mut Report) -> Vec<GrantSettings> {
    written.grant.iter().map(|(name, grant)| one_grant(name, grant, report)).collect()
}

fn one_grant(name: &str, written: &WrittenGrant, report: &mut Report) -> GrantSettings {
    // A key that was written and is not here has been reported as wrong, or as one that is not supported yet.
    let reported = [
        ("uid", written.uid.is_none()),
        ("user", written.user.is_none()),
        ("gid", written.gid.is_none()),
        ("group", written.group.is_none()),
        ("exe", written.exe.is_none()),
        ("cgroup", written.cgroup.is_none()),
        ("k8s_namespace", true),
        ("k8s_serviceaccount", true),
    ]
    .iter()
    .any(|&(key, is_absent)| is_absent && report.place(&["grant", name, key]).is_some());
    let numbers = [&written.uid, &written.gid].into_iter().flatten().map(Vec::len);
    let names = [&written.user, &written.group].into_iter().flatten().map(Vec::len);
    let accounts: Vec<usize> = numbers.chain(names).collect();
    // Lists that are all empty name nobody, whatever else is there: left out, they would mean everybody.
    let names_nobody = if accounts.is_empty() {
        written.exe.is_none() && written.cgroup.is_none()
    } else {
        accounts.iter().all(|&length| length == 0)
    };
    if !reported && names_nobody {
        let what = format!("[grant.{name}] names nobody; give it `uid`, `user`, `gid`, `group`, `exe` or `cgroup`");
        report.mistake_at(&["grant", name], what);
    }
    GrantSettings {
        name: name.to_owned(),
        uids: ids(name, ("uid", &written.uid), ("user", &written.user), accounts::uid_of, report),
        gids: ids(name, ("gid", &written.gid), ("group", &written.group), accounts::gid_of, report),
        exes: written.exe.iter().flatten().map(PathBuf::from).collect(),
        cgroups: written.cgroup.clone().unwrap_or_default(),
        read: patterns(&written.read),
        write: patterns(&written.write),
        admin: written.admin,
    }
}

/// Returns the ids of one kind, given as numbers under one key and as names under another.
fn ids(
    grant: &str,
    (number_key, numbers): (&str, &Option<Vec<u32>>),
    (name_key, names): (&str, &Option<Vec<String>>),
    look_up: fn(&str) -> Result<u32, String>,
    report: &mut Report,
) -> Vec<u32> {
    let numbers = numbers.iter().flatten().enumerate().map(|(index, &id)| (number_key, index, Ok(id), String::new()));
    let names = names.iter().flatten().enumerate().map(|(index, account)| {
        (name_key, index, look_up(account), format!(" (`{}`)", crate::mistake::shown(account)))
    });
    let mut ids = Vec::new();
    for (key, index, id, account) in numbers.chain(names) {
        let what = match id {
            Ok(OVERFLOW_ID) => format!(
                "`{key}` in [grant.{grant}] names id {OVERFLOW_ID}{account}, which stands for every stranger and \
                 satisfies no grant"
            ),
            Ok(id) => {
                ids.push(id);
                continue;
            }
            Err(what) => format!("`{key}` in [grant.{grant}]{account}: {what}"),
        };
        report.mistake_at(&["grant", grant, key, &index.to_string()], what);
    }
    ids
}

fn patterns(written: &[WrittenPattern]) -> Vec<SecretPattern> {
    written.iter().map(|pattern| SecretPattern { secret: pattern.secret.clone(), keys: pattern.keys.clone() }).collect()
}

/// Returns `[limits]`.
pub(crate) fn limits(written: &WrittenLimits) -> LimitSettings {
    LimitSettings {
        value: written.value,
        request: written.request,
        header: written.header,
        entries: written.entries,
        connections_per_uid: written.connections_per_uid,
        watchers_per_uid: written.watchers_per_uid,
        grace: written.grace.0,
    }
}

/// Returns `[metrics]`.
pub(crate) fn metrics(written: &WrittenMetrics) -> MetricsSettings {
    MetricsSettings { listen: written.listen }
}

/// Returns `[audit]`.
pub(crate) fn audit(written: &WrittenAudit, report: &mut Report) -> AuditSettings {
    if written.required && written.path.is_none() && report.place(&["audit", "path"]).is_none() {
        report.mistake_at(&["audit", "required"], "`required` in [audit] needs a `path`");
    }
    AuditSettings { path: written.path.as_ref().map(PathBuf::from), required: written.required }
}
