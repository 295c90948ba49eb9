//! Who could put something else in the place of a file: the owners and modes of the directories above it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A directory on the way to a file in which somebody else may rename and remove.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpenDirectory {
    pub(super) path: PathBuf,
    pub(super) why: &'static str,
}

/// Returns the first directory above `path`, from the nearest up, in which somebody besides root and `trusted` may
/// replace what is in it. In a sticky directory nobody may touch what belongs to others.
pub(super) fn open_directory_above(path: &Path, trusted: &[u32]) -> Option<OpenDirectory> {
    for directory in path.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty()) {
        let Ok(found) = directory.metadata() else { continue };
        let why = match () {
            () if found.uid() != 0 && !trusted.contains(&found.uid()) => "belongs to somebody else",
            () if found.mode() & 0o1000 != 0 => continue,
            () if found.mode() & 0o002 != 0 => "may be written to by everyone",
            () if found.mode() & 0o020 != 0 && found.gid() != 0 => "may be written to by a group",
            () => continue,
        };
        return Some(OpenDirectory { path: directory.to_owned(), why });
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_shared_directory_is_found_however_far_above_it_is_and_a_sticky_one_is_none() {
        let root = tempfile::tempdir().expect("a directory");
        let shared = root.path().join("shared");
        let own = shared.join("keyside");
        std::fs::create_dir_all(&own).expect("writable");
        let mode = |mode: u32| std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).expect("ours");
        let uid = rustix::process::geteuid().as_raw();
        mode(0o777);
        let found = open_directory_above(&own.join("agent.sock"), &[uid]).expect("shared");
        assert_eq!((found.path, found.why), (shared.clone(), "may be written to by everyone"));
        for harmless in [0o1777, 0o755] {
            mode(harmless);
            assert_eq!(open_directory_above(&own.join("agent.sock"), &[uid]), None);
        }
    }
}
