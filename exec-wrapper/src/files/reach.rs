//! Whether the step's user, who is somebody else than we, will be able to come as far as its files.
//!
//! We made the place with rights that the step does not have: root walks through a directory of mode 0700, the step does
//! not. Modes alone are looked at. Where a directory has an access control list it is taken to let the step through, and
//! what a security module would say is not asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::process::getegid;

use super::place::Owner;

/// Returns the first directory that the step's user may not search, of `directory` and all above it; none where all of
/// them let it through. What does not exist yet will be made so that it does.
pub(super) fn obstacle(directory: &Path, owner: Owner) -> Option<PathBuf> {
    if !owner.is_other || owner.uid == 0 {
        return None;
    }
    // As it is written, and as it is with every link followed: a link's own directories have to be walked as well.
    let real = directory.ancestors().find_map(|above| above.canonicalize().ok());
    let all: BTreeSet<&Path> = directory.ancestors().chain(real.iter().flat_map(|real| real.ancestors())).collect();
    all.into_iter().find(|directory| !lets_through(directory, owner)).map(Path::to_owned)
}

fn lets_through(directory: &Path, owner: Owner) -> bool {
    let Ok(stat) = rustix::fs::stat(directory) else { return true };
    let gid = owner.gid.unwrap_or_else(|| getegid().as_raw());
    // The first class that fits decides, as in the kernel. The step has no supplementary groups.
    let bit = if stat.st_uid == owner.uid {
        0o100
    } else if stat.st_gid == gid {
        0o010
    } else {
        0o001
    };
    stat.st_mode & bit != 0 || has_access_list(directory)
}

fn has_access_list(directory: &Path) -> bool {
    // Only its size is asked for.
    let mut nothing: [u8; 0] = [];
    rustix::fs::getxattr(directory, "system.posix_acl_access", &mut nothing).is_ok_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_directory_that_the_steps_user_may_not_search_is_found() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| root.path().join(name);
        let mode = |name: &str, mode| {
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).expect("our own");
        };
        std::fs::create_dir_all(path("a/b")).expect("made");
        std::os::unix::fs::symlink(path("a/b"), path("link")).expect("made");
        // Whoever runs this test is neither of them.
        let stranger = Owner { uid: 4_000_001, gid: Some(4_000_002), is_other: true };
        mode("", 0o711);
        mode("a/b", 0o755);
        for (bits, reaches) in [(0o700, false), (0o710, false), (0o701, true)] {
            mode("a", bits);
            let expected = (!reaches).then(|| path("a"));
            assert_eq!(obstacle(&path("a/b/not/yet"), stranger), expected, "{bits:o}");
            // A link leads through directories that its own path does not name.
            assert_eq!(obstacle(&path("link/not/yet"), stranger), expected, "{bits:o}");
        }
        mode("a", 0o700);
        let own = Owner { uid: rustix::process::geteuid().as_raw(), gid: None, is_other: true };
        assert_eq!(obstacle(&path("a/b"), own), None, "the owner's own bits decide");
        assert_eq!(obstacle(&path("a/b"), Owner { is_other: false, ..stranger }), None);
        assert_eq!(obstacle(&path("a/b"), Owner { uid: 0, ..stranger }), None, "root may search everything");
    }
}
