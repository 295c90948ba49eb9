//! The whole way from files and variables to settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use keyside_protocol::level::{LEVEL_VARIABLE, ValidationLevel};

use crate::backend;
use crate::check::{self, Report};
use crate::environment::Environment;
use crate::file::{self, MAX_CONFIG_BYTES, ReadError, Trust};
use crate::meaning;
use crate::mistake::{ConfigError, Mistake};
use crate::settings::{ManagerSearch, Settings};
use crate::socket;
use crate::tree::{self, Entry, Node};
use crate::variables;
use crate::written;
use crate::zenml;

/// What a load may look at.
pub struct LoadRequest {
    /// `--config` or `KEYSIDE_CONFIG`; without it, the default paths.
    pub config: Option<PathBuf>,
    /// `--socket` or `KEYSIDE_SOCKET`; takes the place of `[agent] socket`.
    pub socket: Option<PathBuf>,
    /// All variables.
    pub environment: Environment,
    /// Our own uid: a configuration file must belong to it or to root.
    pub uid: u32,
}

/// The text of a configuration file.
struct Document {
    path: PathBuf,
    text: String,
}

/// What happens when a file at a default path may not be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Fails,
    CountsAsAbsent,
}

/// Loads the agent's configuration: defaults < file < environment < flags, and ZenML's own store where no back-end is
/// configured. Reads files, variables from the request and the system's users and groups; writes nothing.
///
/// # Errors
/// Every mistake at once. Trying again helps only after something was changed.
pub fn load(request: &LoadRequest) -> Result<Settings, ConfigError> {
    let mut files = Vec::new();
    let document = read_document(request, Unreadable::Fails, &mut files)?;
    let mut report = Report::new(document.as_ref().map(|document| document.path.as_path()));
    report.files = files;
    let (root, is_sound) = parse(document.as_ref(), &mut report);
    let variables = {
        let known_names = |table: &str| names_in(&root, table);
        variables::read(&request.environment, &known_names, &mut report)
    };
    if !is_sound {
        // Half a document would give mistakes that nobody made.
        check::document(&variables.root, &mut report);
        return Err(report.mistakes.into());
    }
    let file_layer = check::document(&root, &mut report);
    let variable_layer = check::document(&variables.root, &mut report);
    if let Some(refusal) = request.socket.as_deref().and_then(socket::refusal) {
        report.mistakes.push(refused_socket(&refusal));
    }
    let written = written::merge(file_layer, variable_layer)?;

    let mut sources = Vec::new();
    sources.extend(document.map(|document| document.path.display().to_string()));
    if !variables.names.is_empty() {
        sources.push(format!("the variables {}", variables.names.join(", ")));
    }
    let mut agent = meaning::agent(&written, request.socket.clone(), &mut report);
    match client_level(&request.environment) {
        Ok(Some(level)) => agent.validation_level = level,
        Ok(None) => {}
        Err(error) => report.mistakes.extend(error.mistakes),
    }
    let mut manager = None;
    let attached = backend::attached(&written);
    let found_in_zenml = !report.has_entry_of("backend");
    let (backends, names) = if !found_in_zenml {
        let backends = backend::all(&written, &request.environment, &mut report);
        let names = written.backend.keys().filter(|name| !attached.contains(&name.as_str())).cloned();
        (backends, names.collect())
    } else {
        let mut names = vec![ZENML_BACKEND.to_owned()];
        let found = zenml::find(ZENML_BACKEND, &request.environment, request.uid);
        let backends = match found {
            Ok(found) => {
                sources.extend(found.sources);
                report.files.extend(found.files);
                manager = manager_search(found.local_stores, found.active_stack, written.agent.precedence.as_deref());
                // Whether there is one shows when the store is asked.
                names.extend(
                    manager.is_some().then(|| ZENML_MANAGER.to_owned()).filter(|_| written.agent.precedence.is_some()),
                );
                vec![found.store]
            }
            Err(mistakes) => {
                report.mistakes.extend(mistakes);
                Vec::new()
            }
        };
        (backends, names)
    };
    let backends = meaning::in_precedence(backends, &names, &attached, &written.agent, &mut report);
    let settings = Settings {
        agent,
        cache: meaning::cache(&written.cache),
        backends,
        manager,
        found_in_zenml,
        grants: meaning::grants(&written, &mut report),
        limits: meaning::limits(&written.limits),
        metrics: meaning::metrics(&written.metrics),
        audit: meaning::audit(&written.audit, &mut report),
        exec: written.exec,
        profiles: written.profile,
        sources,
        files: each_once(std::mem::take(&mut report.files)),
    };
    if report.mistakes.is_empty() { Ok(settings) } else { Err(report.mistakes.into()) }
}

/// Returns the named socket for a client: the request's own, else `[agent] socket`; `None` when nothing names one.
/// All other tables are skipped unread, and a default-path file that may not be read counts as absent.
///
/// # Errors
/// A named file that cannot be read, a file that is no TOML or may be written by others, a path that no socket can have.
pub fn configured_socket(request: &LoadRequest) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = &request.socket {
        return match socket::refusal(path) {
            None => Ok(Some(path.clone())),
            Some(refusal) => Err(refused_socket(&refusal).into()),
        };
    }
    let document = read_document(request, Unreadable::CountsAsAbsent, &mut Vec::new())?;
    let mut report = Report::new(document.as_ref().map(|document| document.path.as_path()));
    let (root, is_sound) = parse(document.as_ref(), &mut report);
    if !is_sound {
        return Err(report.mistakes.into());
    }
    // Duplicates elsewhere are the agent's to report.
    report.mistakes.clear();
    let of_socket = request.environment.iter().filter(|(name, _)| name.eq_ignore_ascii_case("KEYSIDE_AGENT__SOCKET"));
    let variables = variables::read(&Environment::from_pairs(of_socket), &|_| Vec::new(), &mut report);
    let mut socket = None;
    for mut root in [root, variables.root] {
        only_socket(&mut root);
        let layer = check::document(&root, &mut report);
        let agent = layer.get("agent").and_then(|agent| agent.as_dict());
        if let Some(path) = agent.and_then(|agent| agent.get("socket")).and_then(|path| path.as_str()) {
            socket = Some(PathBuf::from(path));
        }
    }
    if report.mistakes.is_empty() { Ok(socket) } else { Err(report.mistakes.into()) }
}

/// Returns the level in `ZENML_SECRET_VALIDATION_LEVEL`: what a client sends with its checks, and what the agent
/// itself prefers to its configuration.
///
/// # Errors
/// A word that is no level, the empty string too.
pub fn client_level(environment: &Environment) -> Result<Option<ValidationLevel>, ConfigError> {
    let Some(text) = environment.text(LEVEL_VARIABLE)? else { return Ok(None) };
    match text.parse() {
        Ok(level) => Ok(Some(level)),
        Err(error) => Err(Mistake::of_variable(LEVEL_VARIABLE, error).into()),
    }
}

fn refused_socket(refusal: &str) -> Mistake {
    Mistake::plain(format!("--socket or KEYSIDE_SOCKET: {refusal}"))
        .with_hint("name a short absolute path, such as /run/keyside/agent.sock")
}

/// The name of the back-end that ZenML's own store gets.
const ZENML_BACKEND: &str = "store";

/// The name of the back-end that ZenML's local secrets manager gets.
const ZENML_MANAGER: &str = "manager";

/// The manager comes after the store; a `precedence` may turn that round, or leave the manager out.
fn manager_search(
    local_stores: Option<PathBuf>,
    active_stack: Option<String>,
    precedence: Option<&[String]>,
) -> Option<ManagerSearch> {
    let place = |name: &str| precedence.and_then(|names| names.iter().position(|other| other == name));
    if precedence.is_some() && place(ZENML_MANAGER).is_none() {
        return None;
    }
    Some(ManagerSearch {
        store: ZENML_BACKEND.to_owned(),
        name: ZENML_MANAGER.to_owned(),
        first: place(ZENML_MANAGER) < place(ZENML_BACKEND),
        local_stores: local_stores?,
        active_stack,
    })
}

fn each_once(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files
}

/// Reads the named file, or the first default one that is there; adds what it tried to `files`.
fn read_document(
    request: &LoadRequest,
    unreadable: Unreadable,
    files: &mut Vec<PathBuf>,
) -> Result<Option<Document>, ConfigError> {
    if let Some(path) = &request.config {
        files.push(path.clone());
        return read_text(path, request.uid).map(Some).map_err(|error| error.into_mistake(path).into());
    }
    for path in file::default_paths(&request.environment, request.uid) {
        files.push(path.clone());
        match read_text(&path, request.uid) {
            Ok(document) => return Ok(Some(document)),
            Err(ReadError::Absent) => {}
            Err(ReadError::NotPermitted) if unreadable == Unreadable::CountsAsAbsent => {}
            Err(error) => return Err(error.into_mistake(&path).into()),
        }
    }
    Ok(None)
}

fn read_text(path: &Path, uid: u32) -> Result<Document, ReadError> {
    let bytes = file::read(path, MAX_CONFIG_BYTES, Trust::OwnedBy(uid))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            // Left in, it would move every column of the first line.
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            Ok(Document { path: path.to_owned(), text: text.to_owned() })
        }
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            Err(ReadError::Other(format!("line {line} of this file is not UTF-8")))
        }
    }
}

/// Parses the document and reports what is no TOML; `false` when the tree is not to be trusted.
fn parse(document: Option<&Document>, report: &mut Report) -> (Vec<Entry>, bool) {
    let Some(document) = document else { return (Vec::new(), true) };
    let (root, mistakes) = tree::parse(&document.text);
    let is_sound = mistakes.iter().all(|mistake| mistake.duplicate);
    for mistake in mistakes {
        report.mistake(&mistake.place, mistake.what);
    }
    (root, is_sound)
}

/// Returns the `NAME`s of the `[table.NAME]` in a document.
fn names_in(root: &[Entry], table: &str) -> Vec<String> {
    root.iter()
        .filter(|entry| entry.name == table)
        .filter_map(|entry| match &entry.value.node {
            Node::Table(entries) => Some(entries.iter().map(|entry| entry.name.clone())),
            _ => None,
        })
        .flatten()
        .collect()
}

/// Leaves nothing of a document but `[agent] socket`.
fn only_socket(root: &mut Vec<Entry>) {
    root.retain(|entry| entry.name == "agent");
    for entry in root {
        if let Node::Table(entries) = &mut entry.value.node {
            entries.retain(|entry| entry.name == "socket");
        }
    }
}
