//! The URL of a store in an SQLite file.

use std::path::PathBuf;

/// Takes the path of the data base from `sqlite:////abs/path`, as SQLAlchemy does: nothing is decoded, and `?` would
/// begin parameters. The error says what is wrong without quoting the URL, which may hold a password.
pub(crate) fn path_of(url: &str) -> Result<PathBuf, String> {
    const FORM: &str = "write sqlite:// and then the absolute path after one more slash: sqlite:////abs/zenml.db";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("this is no URL; {FORM}"));
    };
    if scheme != "sqlite" {
        return Err(format!("the scheme of this URL is not known; {FORM}"));
    }
    let path = match rest.strip_prefix('/') {
        Some(path) if path.starts_with('/') => path,
        Some("" | ":memory:") | None => return Err(format!("this URL names no file; {FORM}")),
        Some(_) => return Err(format!("the path in this URL is relative; {FORM}")),
    };
    if path.contains('?') {
        return Err(format!("parameters in an SQLite URL are not supported; {FORM}"));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(format!("this URL names no file; {FORM}"));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_slashes_give_an_absolute_path_and_nothing_is_decoded() {
        assert_eq!(path_of("sqlite:////srv/z enml%20.db"), Ok(PathBuf::from("/srv/z enml%20.db")));
    }

    #[test]
    fn every_other_url_says_what_is_wrong_without_quoting_it() {
        for (url, part) in [
            ("sqlite:///canary.db", "relative"),
            ("sqlite://canary/x.db", "names no file"),
            ("sqlite://", "names no file"),
            ("sqlite:///", "names no file"),
            ("sqlite:///:memory:", "names no file"),
            ("sqlite:////canary/", "names no file"),
            ("sqlite:////canary.db?mode=ro", "parameters"),
            ("postgres://u:canary@h/d", "scheme"),
            ("/canary.db", "no URL"),
            ("", "no URL"),
        ] {
            let what = path_of(url).expect_err(url);
            assert!(what.contains(part), "{url}: {what}");
            assert!(!what.contains("canary"), "{what}");
        }
    }
}
