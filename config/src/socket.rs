//! What may be the path of a socket.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The kernel's limit for the path of a Unix socket with its closing NUL.
const SUN_PATH_BYTES: usize = 108;

/// Returns what is wrong with the path, if anything.
pub(crate) fn refusal(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        Some("the path of a socket is empty".to_owned())
    } else if bytes.contains(&0) {
        Some("the path of a socket holds a NUL character".to_owned())
    } else if !path.is_absolute() {
        Some(format!(
            "the path of a socket must be absolute, `{}` is not",
            crate::mistake::shown(&path.to_string_lossy())
        ))
    } else if bytes.len() >= SUN_PATH_BYTES {
        Some(format!(
            "the path of a socket must be shorter than {SUN_PATH_BYTES} bytes, this one has {}: `{}`",
            bytes.len(),
            path.display()
        ))
    } else {
        None
    }
}
