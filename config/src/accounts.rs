//! Users and groups by name, through the system's own look-up.

use std::path::PathBuf;

use nix::unistd::{Group, Uid, User};

/// The id that the kernel shows for whoever has none here: naming it would mean all strangers at once.
pub(crate) const OVERFLOW_ID: u32 = 65534;

/// Returns the user's uid; the error says what is wrong with the name.
pub(crate) fn uid_of(name: &str) -> Result<u32, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("there is no user of this name on this host".to_owned()),
        Err(errno) => Err(format!("this user cannot be looked up: {}", errno.desc())),
    }
}

/// Returns the group's gid; the error says what is wrong with the name.
pub(crate) fn gid_of(name: &str) -> Result<u32, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err("there is no group of this name on this host".to_owned()),
        Err(errno) => Err(format!("this group cannot be looked up: {}", errno.desc())),
    }
}

/// Returns the home directory of a uid.
pub(crate) fn home_of(uid: u32) -> Option<PathBuf> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.dir).filter(|home| home.is_absolute())
}
