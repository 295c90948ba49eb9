//! What the wrapper takes from `keyside.toml`: `[agent] socket`, `[exec]` and `[profile.NAME]`. Other tables are not
//! its own and are passed over unread.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keyside_protocol::lines::Lines;
use keyside_protocol::settings::ExecSettings;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::args::closest;
use crate::deny;

/// The most bytes of a configuration file.
const MAX_FILE: u64 = 1024 * 1024;

/// How the value of a key is written in a `KEYSIDE_TABLE__KEY` variable.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Text as it stands.
    Text,
    /// A TOML value.
    Toml,
    /// A TOML inline table, or one more `__NAME` and its text.
    Table,
}

/// The keys of `[exec]`, and what their values are.
const KEYS: &[(&str, Kind, &str)] = &[
    ("env", Kind::Table, "a table of strings"),
    ("secret", Kind::Toml, "a list of strings"),
    ("env_file", Kind::Toml, "a list of strings"),
    ("file", Kind::Table, "a table of strings"),
    ("file_env", Kind::Table, "a table of strings"),
    ("template", Kind::Table, "a table of strings"),
    ("secret_files", Kind::Toml, "a list of strings"),
    ("files", Kind::Text, "a string"),
    ("files_dir", Kind::Text, "a string"),
    ("insecure_files", Kind::Toml, "true or false"),
    ("lenient", Kind::Toml, "true or false"),
    ("no_resolve_env", Kind::Toml, "true or false"),
    ("on_change", Kind::Toml, "a list of strings"),
    ("restart_signal", Kind::Text, "a string"),
    ("restart_grace", Kind::Text, "a duration such as \"30s\""),
    ("debounce", Kind::Text, "a duration such as \"2s\""),
    ("splay", Kind::Text, "a duration such as \"1s\""),
    ("mask", Kind::Toml, "true or false"),
    ("init", Kind::Text, "a string"),
    ("wait", Kind::Text, "a duration such as \"30s\""),
    ("timeout", Kind::Text, "a duration such as \"15s\""),
    ("pristine", Kind::Toml, "true or false"),
    ("user", Kind::Text, "a string"),
    ("chdir", Kind::Text, "a string"),
    ("report", Kind::Text, "a string"),
    ("unavailable_exit", Kind::Toml, "a number from 1 to 255"),
    ("agent", Kind::Text, "\"auto\", \"socket\" or \"embedded\""),
    ("agent_uid", Kind::Toml, "a uid"),
];

/// What is configured for one `exec`.
#[derive(Debug, Default)]
pub struct Configured {
    /// `[agent] socket`.
    pub socket: Option<PathBuf>,
    /// `[exec]` with the chosen profile over it.
    pub exec: ExecSettings,
    /// Tables for client commands that are not in this version yet; the wrapper passes over them, others must not.
    pub later: Vec<Mistake>,
}

/// One mistake in a file or a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Mistake {
    /// `FILE:LINE:COLUMN`, `FILE`, or a variable's name.
    pub place: String,
    /// What is wrong; no value is quoted.
    pub what: String,
    /// What to try.
    pub hint: String,
}

/// Reads the configuration: `config`, or else the default file and `./keyside.toml` above it, then the variables of
/// the form `KEYSIDE_EXEC__KEY`. Every mistake is returned at once.
pub fn load(config: Option<&Path>, profile: Option<&str>) -> Result<Configured, Vec<Mistake>> {
    load_with(config, profile, &crate::sys::inherited_environment())
}

pub(crate) fn load_with(
    config: Option<&Path>,
    profile: Option<&str>,
    environment: &[&CStr],
) -> Result<Configured, Vec<Mistake>> {
    let mut layers = Layers { wanted: profile, ..Layers::default() };
    match config {
        Some(path) => layers.read_file(path, Whose::Operator, Absent::IsAMistake),
        None => {
            for path in default_paths() {
                if layers.read_file(&path, Whose::Operator, Absent::IsFine) {
                    break;
                }
            }
            layers.read_file(Path::new("./keyside.toml"), Whose::Directory, Absent::IsFine)
        }
    };
    layers.read_environment(environment);
    layers.finish()
}

/// Returns the places of a configuration file, in the order they are tried.
fn default_paths() -> impl Iterator<Item = PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let user = user.map(|dir| dir.join("keyside/keyside.toml"));
    user.into_iter().chain([PathBuf::from("/etc/keyside/keyside.toml")])
}

/// Who wrote a file.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    /// The operator: everything may stand in it.
    Operator,
    /// Whoever made the working directory, a cloned repository perhaps.
    Directory,
}

#[derive(Clone, Copy, PartialEq)]
enum Absent {
    IsFine,
    IsAMistake,
}

#[derive(Default)]
struct Layers<'p> {
    wanted: Option<&'p str>,
    socket: Option<PathBuf>,
    exec: ExecSettings,
    profile: Option<ExecSettings>,
    known_profiles: Vec<String>,
    /// With the offset in its file, to tell them in the order a reader meets them.
    mistakes: Vec<(usize, Mistake)>,
    later: Vec<Mistake>,
}

/// One file, to turn places into lines.
struct Source {
    name: String,
    lines: Lines,
}

impl Source {
    fn mistake(&self, span: Range<usize>, what: impl Into<String>, hint: impl Into<String>) -> (usize, Mistake) {
        let (line, column) = self.lines.line_and_column(span.start);
        let place = format!("{}:{line}:{column}", self.name);
        (span.start, Mistake { place, what: what.into(), hint: hint.into() })
    }
}

impl Layers<'_> {
    fn mistake(&mut self, place: &Path, what: impl Into<String>, hint: &str) {
        self.mistakes
            .push((0, Mistake { place: place.display().to_string(), what: what.into(), hint: hint.to_owned() }));
    }

    /// Tells whether there was a file to read.
    fn read_file(&mut self, path: &Path, whose: Whose, absent: Absent) -> bool {
        // Non-blocking: a FIFO in the place of a file must not hang us.
        let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let passed_over = matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
                );
                if absent == Absent::IsAMistake || !passed_over {
                    self.mistake(
                        path,
                        match error.raw_os_error() {
                            // What opening a socket gives.
                            Some(libc::ENXIO) => "not a regular file".to_owned(),
                            _ => format!("cannot be read: {}", error.kind()),
                        },
                        "name a readable file with --config",
                    );
                    return true;
                }
                return false;
            }
        };
        match text_of(&file) {
            Ok(text) => self.read_text(path, &text, whose),
            Err((what, hint)) => self.mistake(path, what, hint),
        }
        true
    }

    fn read_text(&mut self, path: &Path, text: &str, whose: Whose) {
        // Left in, it would move every column of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source { name: path.display().to_string(), lines: Lines::of(text) };
        let (document, errors) = DeTable::parse_recoverable(text);
        let document = document.into_inner();
        // The parser's own texts name what it expected and never what it found.
        let (duplicates, broken): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| error.message().starts_with("duplicate key"));
        if !broken.is_empty() {
            for error in broken {
                let what = format!("not TOML: {}", error.message().lines().next().unwrap_or_default());
                self.mistakes.push(source.mistake(error.span().unwrap_or(0..0), what, "mend the file"));
            }
            return;
        }
        let first = self.mistakes.len();
        let tables = Tables::of(&document, text);
        for span in duplicates.into_iter().filter_map(|error| error.span()) {
            // In a table that is not ours it is the agent's to report.
            if matches!(tables.around(span.start), "agent" | "exec" | "profile") {
                let key = text.get(span.clone()).unwrap_or_default();
                self.mistakes.push(source.mistake(span, format!("duplicate key `{key}`"), "keep one of them"));
            }
        }
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "exec" => {
                    if let Some(settings) = self.settings_of("exec", &source, &value, whose) {
                        self.exec = std::mem::take(&mut self.exec).overlaid_with(settings);
                    }
                }
                "profile" => self.read_profiles(&source, &value, whose),
                "check" | "schema" => {
                    let what = format!("[{}] is not supported in this version yet", key.get_ref());
                    self.later.push(source.mistake(key.span(), what, "leave the table out").1);
                }
                other if whose == Whose::Directory => self.mistakes.push(source.mistake(
                    key.span(),
                    format!("[{other}] may not stand in a keyside.toml of the working directory"),
                    "if the file is yours, name it with --config",
                )),
                "agent" => {
                    if let Some(socket) = value.get_ref().as_table().and_then(|table| table.get("socket")) {
                        match socket.get_ref().as_str() {
                            Some(path) if !path.is_empty() => self.socket = Some(PathBuf::from(path)),
                            _ => self.mistakes.push(source.mistake(
                                socket.span(),
                                "agent.socket is not a path",
                                "write a string",
                            )),
                        }
                    }
                }
                _ => {}
            }
        }
        self.mistakes[first..].sort_by_key(|(offset, _)| *offset);
    }

    fn read_profiles(&mut self, source: &Source, value: &Spanned<DeValue<'_>>, whose: Whose) {
        let Some(profiles) = value.get_ref().as_table() else {
            self.mistakes.push(source.mistake(value.span(), "profile is not a table", "write [profile.NAME]"));
            return;
        };
        for (name, value) in profiles {
            let name = name.get_ref().as_ref();
            self.known_profiles.push(name.to_owned());
            let settings = self.settings_of(&format!("profile.{name}"), source, value, whose);
            if let (true, Some(settings)) = (self.wanted == Some(name), settings) {
                self.profile = Some(self.profile.take().unwrap_or_default().overlaid_with(settings));
            }
        }
    }

    /// Reads one table key by key, so that each mistake is found and none quotes a value.
    fn settings_of(
        &mut self,
        table: &str,
        source: &Source,
        value: &Spanned<DeValue<'_>>,
        whose: Whose,
    ) -> Option<ExecSettings> {
        let Some(entries) = value.get_ref().as_table() else {
            self.mistakes.push(source.mistake(
                value.span(),
                format!("{table} is not a table"),
                format!("write [{table}]"),
            ));
            return None;
        };
        let mut settings = ExecSettings::default();
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            match single(name, value.clone()) {
                Ok(one) => {
                    if whose == Whose::Directory {
                        for (what, hint) in not_for_a_directory(&one) {
                            self.mistakes.push(source.mistake(key.span(), format!("{table}: {what}"), hint));
                        }
                    }
                    settings = settings.overlaid_with(one);
                }
                Err((what, hint)) => {
                    let span = if hint.is_some() { value.span() } else { key.span() };
                    let hint = hint.unwrap_or_else(|| suggestion(name));
                    self.mistakes.push(source.mistake(span, format!("{table}: {what}"), hint));
                }
            }
        }
        Some(settings)
    }

    fn read_environment(&mut self, environment: &[&CStr]) {
        for entry in environment {
            let Some(rest) = entry.to_bytes().strip_prefix(b"KEYSIDE_") else { continue };
            let Some(equals) = rest.iter().position(|&byte| byte == b'=') else { continue };
            let (Ok(name), value) = (std::str::from_utf8(&rest[..equals]), &rest[equals + 1..]) else { continue };
            let parts: Vec<&str> = name.split("__").collect();
            let place = format!("KEYSIDE_{name}");
            match (normal(parts[0]).as_str(), parts.as_slice()) {
                ("agent", [_, socket]) if normal(socket) == "socket" && !value.is_empty() => {
                    self.socket = Some(PathBuf::from(OsString::from_vec(value.to_vec())));
                }
                ("exec", [_, key, rest @ ..]) => {
                    if let Some(one) = self.read_variable(&place, key, rest, value, false) {
                        self.exec = std::mem::take(&mut self.exec).overlaid_with(one);
                    }
                }
                ("profile", [_, profile, key, rest @ ..]) => {
                    self.known_profiles.push((*profile).to_owned());
                    if self.wanted.is_some_and(|wanted| normal(wanted) == normal(profile))
                        && let Some(one) = self.read_variable(&place, key, rest, value, true)
                    {
                        self.profile = Some(self.profile.take().unwrap_or_default().overlaid_with(one));
                    }
                }
                _ => {}
            }
        }
    }

    fn read_variable(
        &mut self,
        place: &str,
        key: &str,
        rest: &[&str],
        value: &[u8],
        in_profile: bool,
    ) -> Option<ExecSettings> {
        let key = normal(key);
        let kind = KEYS.iter().find(|(known, ..)| *known == key).map(|(_, kind, _)| *kind);
        let result = match (std::str::from_utf8(value), kind, rest) {
            (Err(_), ..) => Err(("its value is not UTF-8".to_owned(), Some("write it as text".to_owned()))),
            (Ok(text), Some(Kind::Table), [_, ..]) => {
                let below = if in_profile { self.profile.as_ref() } else { Some(&self.exec) };
                let name = existing_name(below, &key, &rest.join("__"));
                let mut table = DeTable::new();
                table.insert(Spanned::new(0..0, name.into()), Spanned::new(0..0, DeValue::String(text.into())));
                single(&key, Spanned::new(0..0, DeValue::Table(table)))
            }
            (Ok(_), _, [_, ..]) => Err((format!("{key} holds no table"), Some("drop what follows it".to_owned()))),
            (Ok(text), Some(Kind::Text), []) => single(&key, Spanned::new(0..0, DeValue::String(text.into()))),
            (Ok(text), _, []) => match DeValue::parse(text) {
                Ok(value) => single(&key, value),
                // An unknown key is the better thing to say.
                Err(_) if kind.is_none() => single(&key, Spanned::new(0..0, DeValue::Boolean(true))),
                Err(_) => Err((format!("{key} is not a TOML value"), Some(expected(&key)))),
            },
        };
        match result {
            Ok(one) => Some(one),
            Err((what, hint)) => {
                let hint = hint.unwrap_or_else(|| suggestion(&key));
                self.mistakes.push((0, Mistake { place: place.to_owned(), what, hint }));
                None
            }
        }
    }

    fn finish(mut self) -> Result<Configured, Vec<Mistake>> {
        if let (Some(wanted), None, true) = (self.wanted, &self.profile, self.mistakes.is_empty()) {
            self.known_profiles.sort();
            self.known_profiles.dedup();
            let hint = match self.known_profiles.as_slice() {
                [] => "no profile is configured; write [profile.NAME] in keyside.toml".to_owned(),
                known => format!("there is {}", known.join(", ")),
            };
            self.mistakes
                .push((0, Mistake { place: "--profile".to_owned(), what: format!("no profile {wanted}"), hint }));
        }
        if !self.mistakes.is_empty() {
            return Err(self.mistakes.into_iter().map(|(_, mistake)| mistake).collect());
        }
        let exec = match self.profile {
            Some(profile) => self.exec.overlaid_with(profile),
            None => self.exec,
        };
        Ok(Configured { socket: self.socket, exec, later: self.later })
    }
}

/// Which top-level table a place belongs to.
struct Tables<'d> {
    text: &'d str,
    /// Where each key stands, at any depth, with the top-level table it is in; in the order of the text.
    keys: Vec<(usize, &'d str)>,
}

impl<'d> Tables<'d> {
    fn of(document: &'d DeTable<'_>, text: &'d str) -> Self {
        fn add<'d>(keys: &mut Vec<(usize, &'d str)>, table: &'d DeTable<'_>, top: Option<&'d str>) {
            for (key, value) in table {
                let top = top.unwrap_or(key.get_ref().as_ref());
                keys.push((key.span().start, top));
                // The parser bounds the depth.
                if let Some(table) = value.get_ref().as_table() {
                    add(keys, table, Some(top));
                }
            }
        }
        let mut keys = Vec::new();
        add(&mut keys, document, None);
        keys.sort_unstable();
        Self { text, keys }
    }

    /// Returns the table of a key that stands a second time: the one its header names, if it is in a header, else that
    /// of the key before it.
    fn around(&self, offset: usize) -> &'d str {
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let header = self.text[start..offset].trim_start().strip_prefix('[').map(|rest| rest.trim_start_matches('['));
        match header {
            Some(parents) if !parents.contains(['=', '{', ',', '#']) => {
                let rest = &self.text[offset - parents.len()..];
                rest.split(['.', ']']).next().unwrap_or_default().trim().trim_matches(['"', '\''])
            }
            _ => {
                let before = self.keys.partition_point(|&(at, _)| at < offset);
                before.checked_sub(1).map_or("", |index| self.keys[index].1)
            }
        }
    }
}

/// Checks the opened file, not its path, and reads it.
fn text_of(file: &File) -> Result<String, (String, &'static str)> {
    let unreadable =
        |error: std::io::Error| (format!("cannot be read: {}", error.kind()), "name a readable file with --config");
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(("not a regular file".to_owned(), "name a file with --config"));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        let what = format!("owned by uid {}, which is neither root nor our own", metadata.uid());
        return Err((what, "take it over with chown, if it is to be believed"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(("everybody may write to it".to_owned(), "chmod o-w it"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(("larger than 1 MiB".to_owned(), "is it a configuration file?"));
    }
    String::from_utf8(bytes).map_err(|_| ("not UTF-8".to_owned(), "TOML is UTF-8"))
}

/// Reads one key. The error's hint is none when the key itself is unknown.
fn single(key: &str, value: Spanned<DeValue<'_>>) -> Result<ExecSettings, (String, Option<String>)> {
    if !KEYS.iter().any(|(known, ..)| *known == key) {
        return Err((format!("unknown key `{key}`"), None));
    }
    if let ("unavailable_exit", Some("0")) = (key, value.get_ref().as_integer().map(|number| number.as_str())) {
        return Err((format!("`{key}` is wrong"), Some(expected(key))));
    }
    let mut table = DeTable::new();
    table.insert(Spanned::new(0..0, key.to_owned().into()), value);
    // Their error would quote the value.
    ExecSettings::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(table))))
        .map_err(|_| (format!("`{key}` is wrong"), Some(expected(key))))
}

fn expected(key: &str) -> String {
    let what = KEYS.iter().find(|(known, ..)| *known == key).map_or("something else", |(.., what)| what);
    format!("`{key}` is {what}")
}

fn suggestion(key: &str) -> String {
    let known: Vec<&str> = KEYS.iter().map(|(known, ..)| *known).collect();
    match closest(key, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "its keys are the long flags of `keyside exec` with `_` for `-`".to_owned(),
    }
}

/// Names match in lower case, with `_` equal to `-`.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Returns the spelling that a table already has for `name`, so that a variable replaces it rather than standing
/// beside it.
fn existing_name(below: Option<&ExecSettings>, key: &str, name: &str) -> String {
    let table = below.and_then(|settings| match key {
        "env" => settings.env.as_ref(),
        "file" => settings.file.as_ref(),
        "file_env" => settings.file_env.as_ref(),
        _ => settings.template.as_ref(),
    });
    let existing = table.and_then(|table| table.keys().find(|existing| normal(existing) == normal(name)));
    existing.cloned().unwrap_or_else(|| name.to_owned())
}

/// What a keyside.toml of the working directory may not say: a cloned repository must not choose the user, the agent,
/// or the places that are read and written, nor steer the loader.
fn not_for_a_directory(settings: &ExecSettings) -> Vec<(String, &'static str)> {
    const HINT: &str = "if the file is yours, name it with --config";
    let mut refused = Vec::new();
    let mut refuse = |what: String| refused.push((what, HINT));
    let forbidden = [
        ("agent", settings.agent.is_some()),
        ("agent_uid", settings.agent_uid.is_some()),
        ("insecure_files", settings.insecure_files.is_some()),
        ("files_dir", settings.files_dir.is_some()),
        ("report", settings.report.is_some()),
        ("user", settings.user.is_some()),
        ("chdir", settings.chdir.is_some()),
    ];
    for (key, _) in forbidden.iter().filter(|(_, set)| *set) {
        refuse(format!("`{key}` may not stand in a keyside.toml of the working directory"));
    }
    let sources = settings.template.iter().flat_map(|table| table.values()).chain(settings.env_file.iter().flatten());
    for source in sources {
        let path = Path::new(source);
        if path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            refuse(
                "a source that is absolute or holds `..` may not stand in a keyside.toml of the working directory"
                    .to_owned(),
            );
        }
    }
    for name in [&settings.env, &settings.file_env].into_iter().flatten().flat_map(|table| table.keys()) {
        if deny::is_denied(name) {
            refuse(format!("the variable {name} may not be set by a keyside.toml of the working directory"));
        }
    }
    refused
}

#[cfg(test)]
mod tests;
