//! A folder of one test, and loads that see nothing else of the machine but its users and groups.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keyside_config::{ConfigError, Environment, LoadRequest, Settings, configured_socket, load};
use tempfile::TempDir;

/// A back-end that makes any other configuration whole.
pub(crate) const BACKEND: &str = "[backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////srv/zenml.db\"\n";

pub(crate) struct Scene {
    folder: TempDir,
    variables: Vec<(String, String)>,
    config: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) uid: u32,
}

impl Scene {
    /// An empty home directory, and no variable but HOME.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let uid = folder.path().metadata().expect("metadata").uid();
        let home = folder.path().to_str().expect("UTF-8").to_owned();
        Self { folder, variables: vec![("HOME".to_owned(), home)], config: None, socket: None, uid }
    }

    /// A scene with `--config` naming a file of this content.
    pub(crate) fn with_config(text: &str) -> Self {
        let mut scene = Self::new();
        scene.config = Some(scene.write("keyside.toml", text));
        scene
    }

    /// A scene with a sound back-end beside the text.
    pub(crate) fn with_backend_and(text: &str) -> Self {
        Self::with_config(&format!("{text}\n{BACKEND}"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        path
    }

    pub(crate) fn config(mut self, path: &Path) -> Self {
        self.config = Some(path.to_owned());
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    fn request(&self) -> LoadRequest {
        LoadRequest {
            config: self.config.clone(),
            socket: self.socket.clone(),
            environment: Environment::from_pairs(self.variables.clone()),
            uid: self.uid,
        }
    }

    pub(crate) fn try_load(&self) -> Result<Settings, ConfigError> {
        load(&self.request())
    }

    pub(crate) fn load(&self) -> Settings {
        self.try_load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The mistakes, one a line, with the scene's folder left out of the paths.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let Err(error) = self.try_load() else { panic!("no mistake was found") };
        assert!(!error.mistakes.is_empty());
        let folder = format!("{}/", self.folder.path().display());
        error.to_string().lines().map(|line| line.replace(&folder, "")).collect()
    }

    /// The only mistake.
    pub(crate) fn mistake(&self) -> String {
        let mut mistakes = self.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.remove(0)
    }

    pub(crate) fn client_socket(&self) -> Result<Option<PathBuf>, ConfigError> {
        configured_socket(&self.request())
    }
}

/// Asserts that every part stands in the text.
pub(crate) fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
