//! What is told about the files: how well they are kept, and why. docs/exec.md has the same words as a table.

use std::fmt;
use std::path::PathBuf;

/// Three words, as systemd-creds has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Nobody but the step sees them, and they reach no disk.
    Secure,
    /// They are on memory, but something about it could be better.
    Weak,
    /// They are written to a disk.
    Insecure,
}

impl fmt::Display for Strength {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Secure => "secure",
            Self::Weak => "weak",
            Self::Insecure => "insecure",
        })
    }
}

/// What a directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Tmpfs,
    Ramfs,
    Disk,
}

impl Medium {
    pub(crate) fn is_memory(self) -> bool {
        self != Self::Disk
    }
}

/// What the files became, or would become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A mount at this path.
    Private { path: PathBuf, noswap: bool },
    /// A directory below this path.
    Directory { base: PathBuf, medium: Medium },
    /// Descriptors.
    Memfds,
}

/// What is told about the files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) what: What,
    /// Why it is not `private`, where `auto` was asked for.
    pub(crate) not_private: Option<String>,
}

impl Verdict {
    pub(crate) fn strength(&self) -> Strength {
        match self.what {
            What::Private { noswap: true, .. } => Strength::Secure,
            What::Directory { medium: Medium::Disk, .. } => Strength::Insecure,
            What::Private { .. } | What::Directory { .. } | What::Memfds => Strength::Weak,
        }
    }

    fn reason(&self) -> &'static str {
        match self.what {
            What::Private { noswap: true, .. } => {
                "only the step and what it starts see them, they are never swapped out, and they go with their last user"
            }
            What::Private { .. } => {
                "only the step and what it starts see them, but they could be swapped out to a disk (no noswap here)"
            }
            What::Directory { medium: Medium::Tmpfs, .. } => {
                "other processes of the step's user can read them while it runs, and they could be swapped out to a disk"
            }
            What::Directory { medium: Medium::Ramfs, .. } => {
                "other processes of the step's user can read them while it runs"
            }
            What::Directory { medium: Medium::Disk, .. } => {
                "they are written to a disk, which may keep them after they are removed"
            }
            What::Memfds => "they have no place in any directory, but they could be swapped out to a disk",
        }
    }

    /// Tells whether a cleaner has to outlive the wrapper.
    pub(crate) fn has_cleaner(&self) -> bool {
        matches!(self.what, What::Directory { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "files: {}: ", self.strength())?;
        match &self.what {
            What::Private { path, .. } => write!(formatter, "private, at {}", path.display())?,
            What::Directory { base, .. } => write!(formatter, "dir, in {}", base.display())?,
            What::Memfds => write!(formatter, "memfd, at /proc/self/fd")?,
        }
        write!(formatter, "; {}", self.reason())?;
        match &self.not_private {
            Some(why) => write!(formatter, "; not private: {why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_private_file_system_that_is_never_swapped_is_secure() {
        let check = |what: What, strength: &str, names: &[&str]| {
            let told = Verdict { what, not_private: None }.to_string();
            assert!(told.starts_with(&format!("files: {strength}: ")), "{told}");
            assert!(names.iter().all(|name| told.contains(name)), "{told}");
        };
        let path = || PathBuf::from("/x");
        check(What::Private { path: path(), noswap: true }, "secure", &["private, at /x"]);
        check(What::Private { path: path(), noswap: false }, "weak", &["private, at /x", "swapped"]);
        check(What::Directory { base: path(), medium: Medium::Tmpfs }, "weak", &["dir, in /x", "swapped", "user"]);
        check(What::Directory { base: path(), medium: Medium::Ramfs }, "weak", &["dir, in /x", "user"]);
        check(What::Directory { base: path(), medium: Medium::Disk }, "insecure", &["dir, in /x", "disk"]);
        check(What::Memfds, "weak", &["memfd", "swapped"]);
    }
}
