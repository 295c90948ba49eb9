//! `--files private`: a tmpfs in a mount namespace of the step's own.
//!
//! The file system is made and held as a detached mount first, which nobody can see and which goes with its descriptor;
//! only then does this process leave its mount namespace, and mounts it there. It becomes the step later, so nothing has
//! to stay behind: the last process of the namespace takes the files with it, however it ends.
//!
//! The new namespace is a *slave* of the old one. Private propagation would do for hiding our mount, but it would also
//! cut the step off from what is mounted on the host later, and keep file systems busy that the host has unmounted.
//!
//! The mount point stays behind as an empty directory. It cannot be taken away: removing a directory that is a mount
//! point in another namespace unmounts it there (since Linux 3.18), and the step would lose its files.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use keyside_protocol::value::SecretValue;
use rustix::fs::{Access, AtFlags, CWD, Dir, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags};
use rustix::thread::{CapabilitySet, capabilities};

use super::directory::absolute;
use super::name::FileName;
use super::place::{Owner, Place};
use super::reach;
use super::tree::{self, Umask, kind, may_be_changed_by_others};
use crate::report::Complaint;
use crate::sys;

/// Where it is mounted unless `--files-dir` says otherwise.
const DEFAULT_POINT: &str = "/run/keyside-files";
/// The most bytes it takes. A bound for a step that runs wild: memory is taken only for what is written.
const SIZE: &str = "256m";
/// The most files and directories in it.
const INODES: &str = "65536";

/// Why there is no private file system.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("it needs CAP_SYS_ADMIN, which this process does not have")]
    NoCapability,
    #[error("this kernel has no {0}")]
    NotInThisKernel(&'static str),
    #[error("{call} is refused: {}", kind(*.error))]
    Refused { call: &'static str, error: Errno },
    #[error("the root directory is no mount point (a chroot), so the mount could not be kept from showing elsewhere")]
    Chroot,
    #[error("{} cannot be used as a mount point: {}", .path.display(), kind(*.error))]
    Point { path: PathBuf, error: Errno },
    #[error("{} is not empty, and a mount would hide what is in it", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} belongs to uid {uid}, who could take the mount away", .path.display())]
    Foreign { path: PathBuf, uid: u32 },
    #[error("uid {uid}, whom the step runs as, may not search {}", .path.display())]
    Unreachable { path: PathBuf, uid: u32 },
    #[error("{} was replaced while it was being mounted on", .0.display())]
    Replaced(PathBuf),
    #[error("{}", .0.what)]
    Path(Complaint),
}

impl Obstacle {
    /// Returns what to say where `private` itself was asked for.
    pub(super) fn complaint(self) -> Complaint {
        let hint = match self {
            Self::Path(complaint) => return complaint,
            Self::NoCapability => "use --files auto or --files dir, or give the capability to whoever starts the step",
            Self::NotInThisKernel(_) | Self::Chroot => "use --files auto or --files dir",
            Self::Refused { .. } => {
                "a seccomp filter or a security module stands in the way; use --files auto or --files dir"
            }
            Self::Unreachable { .. } => "name a directory that the step's user can reach with --files-dir",
            Self::Point { .. } | Self::NotEmpty(_) | Self::Foreign { .. } | Self::Replaced(_) => {
                "name an empty directory, or one that can be made, with --files-dir, or use --files dir"
            }
        };
        Complaint::new(format!("--files private cannot be had: {self}"), hint)
    }
}

/// The step's own file system, mounted in what is now our own mount namespace.
pub(crate) struct Private {
    path: PathBuf,
    root: OwnedFd,
    owner: Owner,
    noswap: bool,
}

impl Private {
    /// Makes the file system and the namespace, and mounts the one in the other. Warnings are passed to `warn`.
    ///
    /// An obstacle is found before the namespace is left, as far as it can be found there.
    pub(super) fn make(place: &Place, owner: Owner, warn: &mut dyn FnMut(String)) -> Result<Self, Obstacle> {
        let path = point_of(place)?;
        let (mount, noswap) = file_system(owner)?;
        check_root()?;
        check_reach(&path, owner)?;
        let seen = make_point(&path, owner)?;
        if let Some(parent) = path.parent()
            && open_point(parent).is_ok_and(|parent| may_be_changed_by_others(&parent))
        {
            warn(format!(
                "{} may be written by others, who could take the step's files away and put their own there",
                parent.display()
            ));
        }
        let refused = |call| move |error| refused(call, error);
        sys::unshare_mounts().map_err(refused("unshare"))?;
        // First of all: on a shared mount ours would show in every namespace that shares it.
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(
            |error| match error {
                Errno::INVAL => Obstacle::Chroot,
                error => refused("changing the propagation of mounts")(error),
            },
        )?;
        // What was opened before belongs to the old namespace, where nothing may be mounted from here.
        let point = open_point(&path)?;
        if identity(&point) != Some(seen) {
            return Err(Obstacle::Replaced(path));
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&mount, "", &point, "", flags).map_err(refused("move_mount"))?;
        // By path, as the step will find it.
        let root = open_point(&path)?;
        if identity(&root).is_none() || identity(&root) != identity(&mount) {
            return Err(Obstacle::Replaced(path));
        }
        Ok(Self { path, root, owner, noswap })
    }

    /// Returns the mount point: what `KEYSIDE_FILES` says.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether its pages stay out of swap.
    pub(super) fn noswap(&self) -> bool {
        self.noswap
    }

    /// Writes one file, mode 0400, in directories of mode 0700.
    pub(super) fn write(&self, name: &FileName, content: &SecretValue) -> Result<(), Complaint> {
        tree::write(self.root.as_fd(), name, content, self.owner).map_err(|error| {
            let hint = match error {
                Errno::FBIG => tree::FILE_SIZE_HINT,
                Errno::NOSPC => "a private file system takes 256 MiB and 65,536 files; use --files dir for more",
                _ => "try --files dir",
            };
            Complaint::new(format!("cannot write the file {name} in {}: {}", self.path.display(), kind(error)), hint)
        })
    }
}

/// Tells where [`Private::make`] would mount and whether what it mounts could be swapped out, without mounting or making
/// a directory.
pub(super) fn foresee(place: &Place, owner: Owner) -> Result<(PathBuf, bool), Obstacle> {
    let path = point_of(place)?;
    let (_, noswap) = file_system(owner)?;
    check_root()?;
    check_reach(&path, owner)?;
    match check_point(&path, owner) {
        Err(Obstacle::Point { error: Errno::NOENT, .. }) => {
            let above = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
            rustix::fs::accessat(CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                .map_err(|error| Obstacle::Point { path: path.clone(), error })?;
        }
        result => drop(result?),
    }
    Ok((path, noswap))
}

fn refused(call: &'static str, error: Errno) -> Obstacle {
    match error {
        Errno::NOSYS => Obstacle::NotInThisKernel(call),
        error => Obstacle::Refused { call, error },
    }
}

fn point_of(place: &Place) -> Result<PathBuf, Obstacle> {
    match &place.dir {
        Some(dir) => absolute(dir).map_err(Obstacle::Path),
        None => Ok(PathBuf::from(DEFAULT_POINT)),
    }
}

/// Makes the file system as a detached mount, which goes with its descriptor; tells whether it is never swapped out.
fn file_system(owner: Owner) -> Result<(OwnedFd, bool), Obstacle> {
    if !capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)) {
        return Err(Obstacle::NoCapability);
    }
    let context =
        rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| refused("fsopen", error))?;
    let gid = owner.gid.unwrap_or_else(|| rustix::process::getegid().as_raw());
    let options = [
        ("source", "keyside"),
        ("size", SIZE),
        ("nr_inodes", INODES),
        ("mode", "0700"),
        ("uid", &owner.uid.to_string()),
        ("gid", &gid.to_string()),
    ];
    let fsconfig = |error| refused("fsconfig", error);
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).map_err(fsconfig)?;
    }
    // Linux 6.4, and not in a user namespace.
    let noswap = rustix::mount::fsconfig_set_flag(context.as_fd(), "noswap").is_ok();
    rustix::mount::fsconfig_create(context.as_fd()).map_err(fsconfig)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|error| refused("fsmount", error))?;
    Ok((mount, noswap))
}

/// In a chroot the mount that our root lies on has no path here, and its propagation cannot be changed. Kernels before 5.8
/// do not tell; there it is found out too late for `auto` to have left the namespace alone, and not too late to refuse.
fn check_root() -> Result<(), Obstacle> {
    let is_root = StatxAttributes::MOUNT_ROOT;
    match rustix::fs::statx(CWD, "/", AtFlags::empty(), StatxFlags::empty()) {
        Ok(stat) if stat.stx_attributes_mask.contains(is_root) && !stat.stx_attributes.contains(is_root) => {
            Err(Obstacle::Chroot)
        }
        _ => Ok(()),
    }
}

/// The mount point itself does not count: the step sees the root of its own file system there.
fn check_reach(path: &Path, owner: Owner) -> Result<(), Obstacle> {
    match path.parent().and_then(|parent| reach::obstacle(parent, owner)) {
        Some(path) => Err(Obstacle::Unreachable { path, uid: owner.uid }),
        None => Ok(()),
    }
}

/// Makes the mount point if it is not there, checks it, and returns what it is.
fn make_point(path: &Path, owner: Owner) -> Result<(u64, u64), Obstacle> {
    match check_point(path, owner) {
        Err(Obstacle::Point { error: Errno::NOENT, .. }) => {}
        result => return result,
    }
    // Nothing is ever in it but our mount, so everybody may look.
    let _umask = Umask::public();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| Obstacle::Point {
        path: path.to_owned(),
        error: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    check_point(path, owner)
}

/// Accepts an empty directory, no link, of root, of ours or of the step's user, and returns what it is. Whoever owns it
/// may remove it, and the mount with it.
fn check_point(path: &Path, owner: Owner) -> Result<(u64, u64), Obstacle> {
    let unusable = |error| Obstacle::Point { path: path.to_owned(), error };
    let fd = open_point(path)?;
    let stat = rustix::fs::fstat(&fd).map_err(unusable)?;
    if ![0, rustix::process::geteuid().as_raw(), owner.uid].contains(&stat.st_uid) {
        return Err(Obstacle::Foreign { path: path.to_owned(), uid: stat.st_uid });
    }
    let mut entries = Dir::read_from(&fd).map_err(unusable)?;
    if entries.any(|entry| entry.is_ok_and(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))) {
        return Err(Obstacle::NotEmpty(path.to_owned()));
    }
    Ok(identity_of(&stat))
}

fn open_point(path: &Path) -> Result<OwnedFd, Obstacle> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Obstacle::Point { path: path.to_owned(), error })
}

fn identity(fd: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().as_ref().map(identity_of)
}

fn identity_of(stat: &Stat) -> (u64, u64) {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    (stat.st_dev as u64, stat.st_ino as u64)
}
