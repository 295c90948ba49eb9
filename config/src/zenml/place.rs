//! What kind of store it is, and which file where that is a file.

use std::path::{Path, PathBuf};

use super::section::Section;
use super::{CONFIG_PATH, STORE_TYPE, STORE_URL, Search, server};
use crate::mistake::Mistake;
use crate::sqlite_url;

/// The file below the directory of local stores that ZenML makes by itself.
const DEFAULT_STORE: &str = "default_zen_store/zenml.db";

/// What kind of store it is.
pub(super) enum Place {
    Server(String),
    Mysql,
    Sqlite(PathBuf),
}

impl Search<'_> {
    /// Tells what kind of store its URL and type name.
    pub(super) fn place(&mut self, store: &Section, replaced: bool) -> Option<Place> {
        let kind = store.text("type", &mut self.mistakes);
        if let Some(kind) = kind
            && !matches!(kind, "sql" | "rest")
        {
            let what = "unknown type of store; known are \"sql\" and \"rest\"";
            self.mistakes.extend(store.origin("type").map(|origin| origin.mistake(what)));
            return None;
        }
        let Some(url) = store.raw_text("url", &mut self.mistakes) else {
            if replaced {
                self.mistakes.push(Mistake::of_variable(STORE_TYPE, format!("is set, but {STORE_URL} is not")));
                return None;
            }
            if kind == Some("rest") {
                self.mistakes.push(store.missing("url"));
                return None;
            }
            return self.default_store();
        };
        let wrong = |search: &mut Self, what: &str| {
            let origin = store.origin("url").map(|origin| origin.mistake(what));
            search.mistakes.push(origin.unwrap_or_else(|| Mistake::of_variable(STORE_URL, what)));
            None
        };
        if replaced {
            self.sources.push(format!("variable {STORE_URL}"));
        }
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let is_server = matches!(scheme, "http" | "https");
        match kind {
            Some("sql") if is_server => return wrong(self, "is the address of a server, but `type` is \"sql\""),
            Some("rest") if !is_server => return wrong(self, "is no address of a server, but `type` is \"rest\""),
            _ => {}
        }
        if is_server {
            return server::address(store, &mut self.mistakes).map(Place::Server);
        }
        if crate::backend::url::is_mysql(url) {
            return Some(Place::Mysql);
        }
        match sqlite_url::path_of(url) {
            Ok(path) if replaced => Some(Place::Sqlite(path)),
            Ok(path) => self.file_of_config(path),
            Err(what) => wrong(self, &what),
        }
    }

    /// ZenML's own data base, where nothing names another.
    fn default_store(&mut self) -> Option<Place> {
        let default = self.local_stores.as_ref().map(|directory| directory.join(DEFAULT_STORE));
        match default {
            Some(path) if exists(&path) => {
                self.sources.push(format!("ZenML's default data base {}", path.display()));
                Some(Place::Sqlite(path))
            }
            _ => {
                self.nothing_found(None, default.as_deref());
                None
            }
        }
    }

    /// The data base that `config.yaml` names, or the default one in its place.
    fn file_of_config(&mut self, named: PathBuf) -> Option<Place> {
        if exists(&named) {
            return Some(Place::Sqlite(named));
        }
        let default = self.local_stores.as_ref().map(|directory| directory.join(DEFAULT_STORE));
        // The directory was copied or mounted from elsewhere: the URL still names the old place. Only where it named
        // ZenML's default file does the default file here stand for it; another store must not take its place.
        match default.clone().filter(|path| named.ends_with(DEFAULT_STORE) && exists(path)) {
            Some(path) => {
                self.sources.push(format!(
                    "the data base {}, because there is no {}, which `store.url` names",
                    path.display(),
                    named.display()
                ));
                Some(Place::Sqlite(path))
            }
            None => {
                self.nothing_found(Some(&named), default.as_deref());
                None
            }
        }
    }

    fn nothing_found(&mut self, named: Option<&Path>, default: Option<&Path>) {
        // One cause is enough: a file that could not be read is the likelier one.
        if !self.mistakes.is_empty() {
            return;
        }
        let shown = |path: &Path| path.display().to_string();
        let config = match (self.config_file(), named) {
            (Some(path), Some(named)) => {
                format!("the data base {} (`store.url` in {})", shown(named), shown(&path))
            }
            (Some(path), None) => format!("`store.url` in {}", shown(&path)),
            (None, _) => format!("ZenML's config.yaml ({CONFIG_PATH} and HOME are not set)"),
        };
        let default = default.map_or_else(String::new, |path| format!(" and the data base {}", shown(path)));
        let what = format!(
            "no back-end is configured, and none was found from ZenML's environment: looked for {STORE_URL}, {config}{default}; \
             `keyside quickstart` makes a store to try"
        );
        let hint = format!(
            "set {CONFIG_PATH} to ZenML's configuration directory, or {STORE_URL} to its store, or write a \
             [backend.NAME] into keyside.toml"
        );
        self.mistakes.push(Mistake::plain(what).with_hint(hint));
    }
}

/// Tells whether something is there; what cannot be looked at may be there, and whoever opens it will say why not.
fn exists(path: &Path) -> bool {
    match path.try_exists() {
        Ok(exists) => exists,
        Err(error) => error.kind() != std::io::ErrorKind::NotADirectory,
    }
}
