//! Which local peer may read, or write, what.
//!
//! A peer is who it was when it connected (`SO_PEERCRED`); what it may do is asked on every request. With no grant
//! configured the agent's own uid may read everything and write to writable back-ends, and nobody else anything. Root
//! has no grant by itself.

use std::os::fd::AsFd;

use keyside_config::settings::{GrantSettings, SecretPattern};

use crate::program::{Asked, Program};
use crate::sys;

/// The uid and gid that the kernel shows for ids it cannot map: belongs to nobody we know.
const OVERFLOW_ID: u32 = 65_534;

/// The process at the other end of a connection, as the kernel saw it when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its process id; `None` when it lives in another pid namespace. Never a ground for access.
    pub pid: Option<u32>,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// What it runs, as far as some grant asks for it and the kernel is sure.
    pub program: Program,
    /// The peer of an embedded agent: it is our own process's parent and needs no grant.
    pub embedded: bool,
}

impl Peer {
    /// Asks the kernel who connected.
    pub fn of(socket: &impl AsFd) -> std::io::Result<Self> {
        // nix, not rustix: there a pid of 0, which is how another pid namespace shows, has no representation.
        let credentials = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: u32::try_from(credentials.pid()).ok().filter(|pid| *pid != 0),
            groups: sys::peer_groups(socket.as_fd()),
            program: Program::default(),
            embedded: false,
        })
    }

    /// Looks at the program behind `socket`, too.
    #[must_use]
    pub fn with_program(self, socket: &impl AsFd, asked: Asked) -> Self {
        Self { program: Program::behind(socket, asked), ..self }
    }
}

/// The rules in force.
#[derive(PartialEq, Eq)]
pub struct Access {
    own_uid: u32,
    grants: Vec<GrantSettings>,
    /// The listeners by name; `None` counts every grant.
    listeners: Vec<(String, Option<Vec<String>>)>,
}

/// What one peer may do; made anew for every request.
pub struct Viewer<'a> {
    everything: bool,
    own_uid: bool,
    grants: Vec<&'a GrantSettings>,
}

impl Access {
    /// The rules for an agent that runs as `own_uid`. `listeners` are all there are, each by its name with the grants
    /// that count there (`None`: all of them).
    pub fn new(own_uid: u32, grants: Vec<GrantSettings>, listeners: Vec<(String, Option<Vec<String>>)>) -> Self {
        Self { own_uid, grants, listeners }
    }

    /// Tells whether any grant is configured.
    pub fn has_grants(&self) -> bool {
        !self.grants.is_empty()
    }

    /// Says what the grants go by beside ids.
    pub fn asks_for(&self) -> Asked {
        Asked {
            exe: self.grants.iter().any(|grant| !grant.exes.is_empty()),
            cgroup: self.grants.iter().any(|grant| !grant.cgroups.is_empty()),
        }
    }

    /// Says what `peer`, who came in by `listener`, may do. `None` when the peer matches nothing, and when there is no
    /// such listener any more.
    pub fn viewer(&self, peer: &Peer, listener: &str) -> Option<Viewer<'_>> {
        if peer.embedded {
            return Some(Viewer { everything: true, own_uid: true, grants: Vec::new() });
        }
        if peer.uid == OVERFLOW_ID {
            return None;
        }
        let (_, allowed) = self.listeners.iter().find(|(name, _)| name == listener)?;
        let own_uid = peer.uid == self.own_uid;
        if self.grants.is_empty() {
            return own_uid.then_some(Viewer { everything: true, own_uid, grants: Vec::new() });
        }
        let grants: Vec<_> = self
            .grants
            .iter()
            .filter(|grant| allowed.as_ref().is_none_or(|allowed| allowed.contains(&grant.name)))
            .filter(|grant| names_peer(grant, peer))
            .collect();
        (own_uid || !grants.is_empty()).then_some(Viewer { everything: false, own_uid, grants })
    }
}

impl Viewer<'_> {
    /// Tells whether any grant matched, so that more than `status` may be asked for.
    pub fn is_granted(&self) -> bool {
        self.everything || !self.grants.is_empty()
    }

    /// Tells whether the peer runs as the agent's own uid.
    pub fn is_own_uid(&self) -> bool {
        self.own_uid
    }

    /// Tells whether the peer may purge and shut down.
    pub fn may_administer(&self) -> bool {
        self.everything || self.grants.iter().any(|grant| grant.admin)
    }

    /// Tells whether the peer may have back-ends asked again: whoever may administer, and the agent's own uid.
    pub fn may_refresh(&self) -> bool {
        self.own_uid || self.may_administer()
    }

    /// Tells whether the peer may read at least one key of `name`, whatever its keys are.
    pub fn may_read(&self, name: &str) -> bool {
        self.everything || self.grants.iter().any(|grant| grant.read.iter().any(|pattern| covers(pattern, name)))
    }

    /// Tells whether the peer may read every key of `name`.
    pub fn may_read_whole(&self, name: &str) -> bool {
        self.everything
            || self
                .grants
                .iter()
                .any(|grant| grant.read.iter().any(|pattern| covers(pattern, name) && pattern.keys.is_none()))
    }

    /// Tells whether the peer may read `key` of `name`.
    pub fn may_read_key(&self, name: &str, key: &str) -> bool {
        self.everything
            || self.grants.iter().any(|grant| grant.read.iter().any(|pattern| covers_key(pattern, name, key)))
    }

    /// Tells whether the peer may write something in `name`.
    pub fn may_write(&self, name: &str) -> bool {
        self.everything || self.grants.iter().any(|grant| grant.write.iter().any(|pattern| covers(pattern, name)))
    }

    /// Tells whether the peer may write `key` of `name`.
    pub fn may_write_key(&self, name: &str, key: &str) -> bool {
        self.everything
            || self.grants.iter().any(|grant| grant.write.iter().any(|pattern| covers_key(pattern, name, key)))
    }

    /// Tells whether the peer may create, rename or delete `name`: a grant of single keys is not enough.
    pub fn may_write_whole(&self, name: &str) -> bool {
        self.everything
            || self
                .grants
                .iter()
                .any(|grant| grant.write.iter().any(|pattern| covers(pattern, name) && pattern.keys.is_none()))
    }

    /// Names the grants that matched, for the audit.
    pub fn grant_names(&self) -> String {
        if self.everything {
            return "own-uid".to_owned();
        }
        self.grants.iter().map(|grant| grant.name.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// Ids are alternatives; program and cgroup narrow them. A grant without ids is for any, and the configuration has seen
/// to it that none is without everything.
fn names_peer(grant: &GrantSettings, peer: &Peer) -> bool {
    let is_in_group = |gid: &u32| *gid != OVERFLOW_ID && (*gid == peer.gid || peer.groups.contains(gid));
    let names_ids = !grant.uids.is_empty() || !grant.gids.is_empty();
    let narrows = !grant.exes.is_empty() || !grant.cgroups.is_empty();
    let by_id = if names_ids { grant.uids.contains(&peer.uid) || grant.gids.iter().any(is_in_group) } else { narrows };
    let by_exe = || peer.program.exe.as_ref().is_some_and(|exe| grant.exes.contains(exe));
    let by_cgroup = || {
        let cgroup = peer.program.cgroup.as_deref();
        cgroup.is_some_and(|cgroup| grant.cgroups.iter().any(|pattern| matches(pattern, cgroup)))
    };
    by_id && (grant.exes.is_empty() || by_exe()) && (grant.cgroups.is_empty() || by_cgroup())
}

fn covers(pattern: &SecretPattern, name: &str) -> bool {
    matches(&pattern.secret, name)
}

fn covers_key(pattern: &SecretPattern, name: &str, key: &str) -> bool {
    covers(pattern, name) && pattern.keys.as_ref().is_none_or(|keys| keys.iter().any(|wanted| matches(wanted, key)))
}

/// Matches a pattern in which `*` stands for any run of characters, in linear space and without recursion.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut in_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, in_text));
                at += 1;
            }
            Some(byte) if *byte == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    at = star + 1;
                    in_text = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, pid: Some(1), groups: groups.to_vec(), program: Program::default(), embedded: false }
    }

    fn pattern(secret: &str, keys: Option<&[&str]>) -> SecretPattern {
        SecretPattern {
            secret: secret.to_owned(),
            keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        }
    }

    fn grant(name: &str, uids: &[u32], gids: &[u32], read: Vec<SecretPattern>) -> GrantSettings {
        GrantSettings {
            name: name.to_owned(),
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            exes: Vec::new(),
            cgroups: Vec::new(),
            read,
            write: Vec::new(),
            admin: false,
        }
    }

    const HERE: &str = "agent";

    fn access(own_uid: u32, grants: Vec<GrantSettings>) -> Access {
        Access::new(own_uid, grants, vec![(HERE.to_owned(), None)])
    }

    #[test]
    fn without_grants_only_the_agents_own_uid_reads_and_root_is_nobody_special() {
        let access = access(1000, Vec::new());
        assert!(access.viewer(&peer(1000, 1, &[]), HERE).is_some_and(|viewer| viewer.may_read("x")));
        assert!(access.viewer(&peer(0, 0, &[]), HERE).is_none());
        assert!(access.viewer(&peer(1001, 1, &[]), HERE).is_none());
    }

    #[test]
    fn with_a_grant_the_agents_own_uid_keeps_status_but_reads_nothing_by_itself() {
        let access = access(1000, vec![grant("a", &[7], &[], vec![pattern("*", None)])]);
        let viewer = access.viewer(&peer(1000, 1, &[]), HERE).expect("own uid");
        assert!(viewer.is_own_uid() && !viewer.is_granted() && !viewer.may_read("x"));
        assert!(access.viewer(&peer(7, 1, &[]), HERE).is_some_and(|viewer| viewer.may_read("x")));
    }

    #[test]
    fn admin_is_a_right_of_its_own_and_the_agents_own_uid_may_always_refresh() {
        let mut operator = grant("operator", &[8], &[], Vec::new());
        operator.admin = true;
        let access = access(1000, vec![grant("a", &[7], &[], vec![pattern("*", None)]), operator]);
        let rights = |uid| {
            let viewer = access.viewer(&peer(uid, 1, &[]), HERE).expect("known");
            (viewer.may_refresh(), viewer.may_administer(), viewer.may_read("x"))
        };
        assert_eq!(rights(7), (false, false, true));
        assert_eq!(rights(8), (true, true, false));
        assert_eq!(rights(1000), (true, false, false));
        let alone = super::Access::new(1000, Vec::new(), vec![(HERE.to_owned(), None)]);
        assert!(alone.viewer(&peer(1000, 1, &[]), HERE).is_some_and(|viewer| viewer.may_administer()));
    }

    #[test]
    fn a_supplementary_group_satisfies_a_grant() {
        let access = access(1, vec![grant("a", &[], &[50], vec![pattern("db", None)])]);
        assert!(access.viewer(&peer(9, 50, &[]), HERE).is_some());
        assert!(access.viewer(&peer(9, 8, &[4, 50]), HERE).is_some());
        assert!(access.viewer(&peer(9, 8, &[4]), HERE).is_none());
    }

    #[test]
    fn the_overflow_uid_satisfies_nothing() {
        let granted = access(OVERFLOW_ID, vec![grant("a", &[OVERFLOW_ID], &[], vec![pattern("*", None)])]);
        assert!(granted.viewer(&peer(OVERFLOW_ID, 1, &[]), HERE).is_none());
        assert!(access(OVERFLOW_ID, Vec::new()).viewer(&peer(OVERFLOW_ID, 1, &[]), HERE).is_none());
    }

    #[test]
    fn program_and_cgroup_narrow_a_grant_and_what_is_not_known_satisfies_neither() {
        let program = |exe: Option<&str>, cgroup: Option<&str>| Program {
            exe: exe.map(Into::into),
            cgroup: cgroup.map(str::to_owned),
        };
        let running = |uid, exe, cgroup| Peer { program: program(exe, cgroup), ..peer(uid, uid, &[]) };
        let grant = |uids: &[u32], exes: &[&str], cgroups: &[&str]| GrantSettings {
            exes: exes.iter().map(Into::into).collect(),
            cgroups: cgroups.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..grant("a", uids, &[], vec![pattern("*", None)])
        };
        let (train, other, slice) = (Some("/bin/train"), Some("/bin/other"), Some("/ml.slice/train.service"));
        for (grant, peer, expected) in [
            (grant(&[7], &["/bin/train"], &[]), running(7, train, None), true),
            (grant(&[7], &["/bin/train"], &[]), running(8, train, None), false),
            (grant(&[7], &["/bin/train"], &[]), running(7, other, None), false),
            (grant(&[7], &["/bin/train"], &[]), running(7, None, None), false),
            (grant(&[7], &["/bin/x", "/bin/train"], &["/ml.slice/*"]), running(7, train, slice), true),
            (grant(&[7], &["/bin/train"], &["/ml.slice/*"]), running(7, train, None), false),
            (grant(&[7], &["/bin/train"], &["/ml.slice/*"]), running(7, None, slice), false),
            (grant(&[], &["/bin/train"], &[]), running(9, train, None), true),
            (grant(&[], &["/bin/train"], &[]), running(OVERFLOW_ID, train, None), false),
            (grant(&[], &[], &["/ml.slice/*"]), running(9, None, slice), true),
            (grant(&[], &[], &["*"]), running(9, None, None), false),
            (grant(&[], &[], &[]), running(9, train, slice), false),
        ] {
            let access = access(1, vec![grant]);
            assert_eq!(access.viewer(&peer, HERE).is_some(), expected, "{peer:?}");
        }
        assert_eq!(access(1, vec![grant(&[7], &[], &["*"])]).asks_for(), Asked { exe: false, cgroup: true });
    }

    #[test]
    fn a_grant_of_single_keys_shows_only_those() {
        let access = access(1, vec![grant("a", &[2], &[], vec![pattern("db", Some(&["pass*"]))])]);
        let viewer = access.viewer(&peer(2, 2, &[]), HERE).expect("granted");
        assert!(viewer.may_read("db") && !viewer.may_read_whole("db"));
        assert!(viewer.may_read_key("db", "password") && !viewer.may_read_key("db", "user"));
        assert!(!viewer.may_read("other"));
    }

    #[test]
    fn a_listener_may_narrow_the_grants_that_count_and_one_that_is_gone_admits_nobody() {
        let grants = vec![grant("a", &[2], &[], vec![pattern("*", None)])];
        let listeners = vec![("a".to_owned(), Some(vec!["a".to_owned()])), ("b".to_owned(), Some(Vec::new()))];
        let access = Access::new(1, grants, listeners);
        assert!(access.viewer(&peer(2, 2, &[]), "a").is_some());
        assert!(access.viewer(&peer(2, 2, &[]), "b").is_none());
        assert!(access.viewer(&peer(2, 2, &[]), "gone").is_none());
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("mlflow_*", "mlflow_secret", true),
            ("mlflow_*", "mlflow", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("a?c", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
