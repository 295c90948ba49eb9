//! Where the agent's socket is.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The answer to [`locate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// Somebody named it: it alone is tried, and waited for.
    Named(PathBuf),
    /// Something exists at a default path: a failing connect there is an error.
    Default(PathBuf),
    /// Nobody named a socket and nothing exists at the default paths.
    Nowhere,
}

/// Finds the socket: the first set of flag, variable (`KEYSIDE_SOCKET`; empty counts as unset) and configuration is
/// named; otherwise the first default path at which anything exists.
pub fn locate(flag: Option<&Path>, variable: Option<&OsStr>, configured: Option<&Path>) -> Located {
    let variable = variable.filter(|value| !value.is_empty()).map(Path::new);
    match flag.or(variable).or(configured) {
        Some(path) => Located::Named(path.to_owned()),
        None => first_existing(default_paths()),
    }
}

/// Returns the default paths, in the order they are tried: the user's runtime directory, then the system's.
pub fn default_paths() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
    let user = runtime.map(|dir| Path::new(&dir).join("keyside/agent.sock"));
    user.into_iter().chain([PathBuf::from("/run/keyside/agent.sock")]).collect()
}

fn first_existing(paths: Vec<PathBuf>) -> Located {
    let exists = |path: &PathBuf| match path.symlink_metadata() {
        Ok(_) => true,
        // A directory we may not search is not "nothing there": the connect will say what is wrong.
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    };
    paths.into_iter().find(exists).map_or(Located::Nowhere, Located::Default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_named_place_wins_and_an_empty_variable_names_none() {
        let named = |path: &str| Located::Named(PathBuf::from(path));
        let (flag, file) = (Some(Path::new("/f")), Some(Path::new("/c")));
        assert_eq!(locate(flag, Some(OsStr::new("/v")), file), named("/f"));
        assert_eq!(locate(None, Some(OsStr::new("/v")), file), named("/v"));
        assert_eq!(locate(None, Some(OsStr::new("")), file), named("/c"));
    }

    #[test]
    fn the_first_default_path_at_which_anything_exists_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        let both = || vec![first.clone(), second.clone()];
        assert_eq!(first_existing(both()), Located::Nowhere);
        std::fs::write(&second, "").expect("written");
        assert_eq!(first_existing(both()), Located::Default(second.clone()));
        // A dangling link is something, too.
        std::os::unix::fs::symlink("/nonexistent/x", &first).expect("linked");
        assert_eq!(first_existing(both()), Located::Default(first.clone()));
    }
}
