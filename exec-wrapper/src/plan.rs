//! The command line and the configuration as meant: checked, typed, in the order of injection. Every mistake at once.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyside_protocol::code::Code;
use keyside_protocol::message::Failure;
use keyside_protocol::name::check_name;
use keyside_protocol::settings::{ExecSettings, is_signal};
use keyside_protocol::template::TemplateError;

use crate::args::{Written, cut};
use crate::dotenv;
use crate::files::{self, FileName, Kind, Place};
use crate::report::Complaint;
use crate::text::Text;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Whole secrets, in the order of injection.
    pub(crate) secrets: Vec<Bulk>,
    /// Env files, then `[exec] env`, then `--env`; a later one of the same name wins.
    pub(crate) variables: Vec<Variable>,
    /// Names of `--env VAR` that no later `--env` sets: they keep their inherited value.
    pub(crate) passed_through: BTreeSet<Vec<u8>>,
    /// One entry a file, none twice.
    pub(crate) files: Vec<FilePlan>,
    /// Secrets of which every key becomes a file.
    pub(crate) secret_files: Vec<String>,
    pub(crate) place: Place,
    /// Whether the duties of PID 1 are wanted where we are PID 1.
    pub(crate) init: bool,
    pub(crate) resolve_inherited: bool,
    pub(crate) pristine: bool,
    pub(crate) wait: Duration,
    pub(crate) timeout: Duration,
    pub(crate) user: Option<User>,
    pub(crate) chdir: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) unavailable_exit: Option<u8>,
    pub(crate) dry_run: bool,
    pub(crate) check_only: bool,
    /// CMD and its arguments; empty only with `--dry-run` or `--check-only`.
    pub(crate) command: Vec<CString>,
}

/// `--secret PREFIX=NAME`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    pub(crate) prefix: String,
    pub(crate) name: String,
}

/// A variable and the template of its value.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Not empty; no `=`, no NUL.
    pub(crate) name: Vec<u8>,
    pub(crate) text: Text,
    /// Where it was said, as a person calls it.
    pub(crate) origin: String,
}

/// A file and the template of its content.
#[derive(Debug)]
pub(crate) struct FilePlan {
    pub(crate) name: FileName,
    pub(crate) text: Text,
    /// The variable that is to hold its path.
    pub(crate) variable: Option<String>,
    pub(crate) origin: &'static str,
}

/// `--user UID[:GID]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

/// Everything that is wrong, and the malformed templates again for `--report`.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    pub(crate) complaints: Vec<Complaint>,
    pub(crate) failures: Vec<Failure>,
}

impl Mistakes {
    fn add(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.complaints.push(Complaint::new(what, hint));
    }

    fn malformed(&mut self, origin: &str, error: TemplateError) {
        let hint = "write {{name.key}}, or \\{{ for two braces that mean nothing";
        self.add(format!("{origin}: {error}"), hint);
        self.failures.push(Failure {
            reference: error.snippet,
            code: Code::InvalidReference,
            backends: Vec::new(),
            retry: false,
            hint: Some(hint.to_owned()),
        });
    }
}

impl Plan {
    /// Lays the command line over the configuration.
    pub(crate) fn make(written: Written, configured: ExecSettings) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::default();
        refuse_what_is_not_here_yet(&written, &configured, &mut mistakes);
        let secrets = or_configured(written.secret, configured.secret);
        let secrets = secrets.iter().filter_map(|text| bulk(text, &mut mistakes)).collect();
        let secret_files = or_configured(written.secret_files, configured.secret_files);
        for name in &secret_files {
            if let Err(error) = FileName::of_key(name, "key") {
                mistakes.add(
                    format!("--secret-files {name}: no directory can be called so: {error}"),
                    "use --file NAME=TEMPLATE for its keys",
                );
            }
        }

        let env_files = or_configured(
            written.env_file,
            configured.env_file.map(|paths| paths.into_iter().map(PathBuf::from).collect()),
        );
        let mut variables: Vec<Variable> = env_files.iter().flat_map(|path| env_file(path, &mut mistakes)).collect();
        let mut passed_through = BTreeSet::new();
        // `--env` and `[exec] env`, for the clash with `--file-env`.
        let mut by_env = BTreeSet::new();
        let configured_env =
            configured.env.into_iter().flatten().map(|(name, text)| (OsString::from(name), Some(OsString::from(text))));
        let flag_env = written.env.iter().map(|pair| match cut(pair) {
            Some((name, text)) => (os(name), Some(os(text))),
            None => (pair.clone(), None),
        });
        for (name, text) in configured_env.chain(flag_env) {
            let bytes = name.as_bytes();
            if bytes.is_empty() || bytes.iter().any(|byte| matches!(byte, b'=' | 0)) {
                mistakes.add("--env: no variable name before `=`", "write --env VAR=TEMPLATE");
                continue;
            }
            by_env.insert(bytes.to_vec());
            let called = name.to_string_lossy();
            match text {
                None => drop(passed_through.insert(bytes.to_vec())),
                Some(text) => {
                    passed_through.remove(bytes);
                    match Text::parse(text.as_bytes()) {
                        Ok(text) => variables.push(Variable { name: bytes.to_vec(), text, origin: "--env".to_owned() }),
                        Err(error) => mistakes.malformed(&format!("--env {called}"), error),
                    }
                }
            }
        }

        let lenient = written.lenient || configured.lenient.unwrap_or(false);
        let mut files = Files { plans: Vec::new(), mistakes: &mut mistakes };
        let pairs = |table: Option<std::collections::BTreeMap<String, String>>,
                     flags: &[OsString]|
         -> Vec<(Vec<u8>, Vec<u8>)> {
            let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let configured = table.into_iter().flatten().map(|(name, text)| (name.into_bytes(), text.into_bytes()));
            let flags = flags.iter().map(|pair| match cut(pair) {
                Some((name, text)) => (name.to_vec(), text.to_vec()),
                None => (Vec::new(), pair.as_bytes().to_vec()),
            });
            for (name, text) in configured.chain(flags) {
                // The same target again replaces: a table has each key once.
                match pairs.iter_mut().find(|(earlier, _)| *earlier == name && !name.is_empty()) {
                    Some(earlier) => earlier.1 = text,
                    None => pairs.push((name, text)),
                }
            }
            pairs
        };
        for (name, text) in pairs(configured.file, &written.file) {
            files.add("--file", &name, None, |_| Text::parse(&text).map_err(Unusable::Malformed));
        }
        for (name, text) in pairs(configured.file_env, &written.file_env) {
            let variable = match std::str::from_utf8(&name) {
                Ok(variable) if !variable.is_empty() && !variable.contains(['/', '\0']) => variable.to_owned(),
                _ => {
                    files.mistakes.add("--file-env: no variable name before `=`", "write --file-env VAR=TEMPLATE");
                    continue;
                }
            };
            if by_env.contains(&name) {
                files
                    .mistakes
                    .add(format!("the variable {variable} is set by --env and by --file-env"), "keep one of them");
            }
            files.add("--file-env", &name, Some(variable), |_| Text::parse(&text).map_err(Unusable::Malformed));
        }
        for (name, source) in pairs(configured.template, &written.template) {
            files.add("--template", &name, None, |_| template_file(Path::new(OsStr::from_bytes(&source)), lenient));
        }
        let files = files.plans;
        mistakes.complaints.extend(files::check_together(files.iter().map(|file| &file.name)));
        let place = place(
            (written.files, written.files_dir, written.insecure_files),
            (configured.files, configured.files_dir, configured.insecure_files),
            &mut mistakes,
        );
        let has_files = !files.is_empty() || !secret_files.is_empty();
        if has_files && by_env.contains(&b"KEYSIDE_FILES"[..]) {
            mistakes.add(
                "the variable KEYSIDE_FILES is set by --env, but it holds the path of the step's files",
                "choose another name",
            );
        }
        if place.kind == Kind::Memfd && !has_files && by_env.contains(&b"KEYSIDE_FILES"[..]) {
            mistakes.add(
                "the variable KEYSIDE_FILES is set by --env, but with --files memfd it is unset",
                "choose another name, or leave --files out",
            );
        }
        if files.iter().any(|file| file.variable.as_deref() == Some("KEYSIDE_FILES")) {
            mistakes.add(
                "the variable KEYSIDE_FILES is set by --file-env, but it holds the path of the step's files",
                "choose another name",
            );
        }
        if place.kind == Kind::Memfd {
            refuse_what_a_memfd_cannot_be(&files, &secret_files, &mut mistakes);
        }

        let command: Vec<CString> =
            written.command.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect();
        if command.is_empty() && !written.dry_run && !written.check_only {
            mistakes.add("no command to run", "write it after the options: keyside exec ... -- CMD [ARG...]");
        }
        let user = written.user.or(configured.user).and_then(|text| user(&text, &mut mistakes));
        let timeout = written.timeout.or(configured.timeout.map(|span| span.0)).unwrap_or(Duration::from_secs(15));
        if timeout.is_zero() {
            mistakes.add("--timeout must be longer than 0", "leave it out for 15s; `--wait 0` is what tries once only");
        }
        let init = written.init.or(configured.init).as_deref() != Some("never");
        if !mistakes.complaints.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            init,
            secrets,
            variables,
            passed_through,
            files,
            secret_files,
            place,
            resolve_inherited: !(written.no_resolve_env || configured.no_resolve_env.unwrap_or(false)),
            pristine: written.pristine || configured.pristine.unwrap_or(false),
            wait: written.wait.or(configured.wait.map(|span| span.0)).unwrap_or(Duration::from_secs(30)),
            timeout,
            user,
            chdir: written.chdir.or(configured.chdir.map(PathBuf::from)),
            report: written.report.or(configured.report.map(PathBuf::from)),
            unavailable_exit: written.unavailable_exit.or(configured.unavailable_exit),
            dry_run: written.dry_run,
            check_only: written.check_only,
            command,
        })
    }

    /// Tells whether the step gets a directory of files.
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty() || !self.secret_files.is_empty()
    }

    /// Returns the variable's last template, which is the one that counts.
    pub(crate) fn variable(&self, name: &[u8]) -> Option<&Variable> {
        self.variables.iter().rev().find(|variable| variable.name == name)
    }

    /// Tells whether a source above the inherited environment and whole secrets sets this name.
    pub(crate) fn sets(&self, name: &[u8]) -> bool {
        self.variable(name).is_some() && !self.passed_through.contains(name)
            || self.files.iter().any(|file| file.variable.as_ref().is_some_and(|variable| variable.as_bytes() == name))
    }
}

/// Flags replace a configured list.
fn or_configured<T>(flags: Vec<T>, configured: Option<Vec<T>>) -> Vec<T> {
    if flags.is_empty() { configured.unwrap_or_default() } else { flags }
}

fn os(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

fn refuse_what_is_not_here_yet(written: &Written, configured: &ExecSettings, mistakes: &mut Mistakes) {
    const LATER: &str = "this version becomes the command and stays out of its way; leave the option out";
    if written.mask || configured.mask.unwrap_or(false) {
        mistakes.add("--mask is not in this version yet", LATER);
    }
    let on_change = if written.on_change.is_empty() {
        configured.on_change.as_deref().unwrap_or_default()
    } else {
        &written.on_change
    };
    for action in on_change {
        match action.as_str() {
            "ignore" => {}
            "rewrite" | "restart" => mistakes.add(format!("--on-change {action} is not in this version yet"), LATER),
            signal if signal.strip_prefix("signal:").is_some_and(is_signal) => {
                mistakes.add(format!("--on-change {signal} is not in this version yet"), LATER);
            }
            _ => mistakes.add("--on-change is not ignore, rewrite, signal:SIG or restart", "ignore is the default"),
        }
    }
    if let Some(signal) = written.restart_signal.as_deref().or(configured.restart_signal.as_deref())
        && !is_signal(signal)
    {
        mistakes.add("--restart-signal is not a signal", "write a name such as TERM");
    }
    match written.init.as_deref().or(configured.init.as_deref()) {
        None | Some("auto" | "never") => {}
        Some("always") => mistakes.add("--init always is not in this version yet", LATER),
        Some(_) => mistakes.add("--init is not auto, always or never", "auto is the default"),
    }
}

/// Reads `--files`, `--files-dir` and `--insecure-files`: as flags, and as configured.
fn place(
    (kind, dir, insecure): (Option<String>, Option<PathBuf>, bool),
    (configured_kind, configured_dir, configured_insecure): (Option<String>, Option<String>, Option<bool>),
    mistakes: &mut Mistakes,
) -> Place {
    let read = |word: String, mistakes: &mut Mistakes| {
        Kind::parse(&word).unwrap_or_else(|complaint| {
            mistakes.complaints.push(complaint);
            Kind::default()
        })
    };
    // A flag that asks for memfds leaves no room for a directory that is configured.
    if kind.as_deref() != Some("memfd") {
        let kind = kind.or(configured_kind).map_or_else(Kind::default, |word| read(word, mistakes));
        let dir = dir.or(configured_dir.map(PathBuf::from));
        let insecure = insecure || configured_insecure.unwrap_or(false);
        if kind == Kind::Memfd {
            refuse_a_directory_for_memfds(dir.is_some(), insecure, mistakes);
        }
        return Place { kind, dir, insecure };
    }
    refuse_a_directory_for_memfds(dir.is_some(), insecure, mistakes);
    Place { kind: Kind::Memfd, dir: None, insecure: false }
}

fn refuse_a_directory_for_memfds(dir: bool, insecure: bool, mistakes: &mut Mistakes) {
    for (given, flag) in [(dir, "--files-dir"), (insecure, "--insecure-files")] {
        if given {
            mistakes.add(
                format!("{flag} means nothing with --files memfd, which has no directory"),
                "leave one of them out",
            );
        }
    }
}

/// With memfds a file is found by its variable only.
fn refuse_what_a_memfd_cannot_be(files: &[FilePlan], secret_files: &[String], mistakes: &mut Mistakes) {
    const HINT: &str = "use --file-env VAR=TEMPLATE, or --files dir";
    for file in files.iter().filter(|file| file.variable.is_none()) {
        mistakes.add(format!("{} {}: with --files memfd every file needs a variable", file.origin, file.name), HINT);
    }
    for name in secret_files {
        mistakes.add(format!("--secret-files {name}: with --files memfd every file needs a variable"), HINT);
    }
}

fn bulk(text: &str, mistakes: &mut Mistakes) -> Option<Bulk> {
    // The prefix ends at the first `=`; `=NAME` is a name that holds one, without a prefix.
    let (prefix, name) = text.split_once('=').unwrap_or(("", text));
    match check_name(name) {
        Ok(()) => Some(Bulk { prefix: prefix.to_owned(), name: name.to_owned() }),
        Err(error) => {
            mistakes.add(format!("--secret: {error}"), "write --secret NAME or --secret PREFIX=NAME");
            None
        }
    }
}

fn user(text: &str, mistakes: &mut Mistakes) -> Option<User> {
    // -1 means "leave it" to the kernel.
    let id = |text: &str| text.parse::<u32>().ok().filter(|&id| id != u32::MAX);
    let parsed = match text.split_once(':') {
        Some((uid, gid)) => id(uid).zip(id(gid)).map(|(uid, gid)| User { uid, gid: Some(gid) }),
        None => id(text).map(|uid| User { uid, gid: None }),
    };
    if parsed.is_none() {
        mistakes.add("--user is not UID or UID:GID", "write numbers, such as 1000 or 1000:1000");
    }
    parsed
}

fn env_file(path: &Path, mistakes: &mut Mistakes) -> Vec<Variable> {
    let called = format!("--env-file {}", path.display());
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(what) => {
            mistakes.add(format!("{called}: {what}"), "name a readable file");
            return Vec::new();
        }
    };
    let pairs = match dotenv::parse(&bytes) {
        Ok(pairs) => pairs,
        Err(error) => {
            mistakes.add(format!("{called}: {error}"), "write one NAME=VALUE a line");
            return Vec::new();
        }
    };
    let mut variables = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match Text::parse(&value) {
            Ok(text) => variables.push(Variable { name: name.into_bytes(), text, origin: called.clone() }),
            Err(error) => mistakes.malformed(&format!("{called}: {name}"), error),
        }
    }
    variables
}

/// Why a file has no content.
enum Unusable {
    Malformed(TemplateError),
    Unreadable(String),
}

fn template_file(path: &Path, lenient: bool) -> Result<Text, Unusable> {
    let bytes = read(path).map_err(|what| Unusable::Unreadable(format!("{}: {what}", path.display())))?;
    if lenient { Ok(Text::parse_lenient(&bytes)) } else { Text::parse(&bytes).map_err(Unusable::Malformed) }
}

/// Reads a file of at most 64 MiB; a FIFO, which a shell's `<(...)` makes, is read to its end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    const MOST: u64 = 64 * 1024 * 1024;
    let unreadable = |error: std::io::Error| format!("cannot be read: {}", error.kind());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(MOST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST { Err("is larger than 64 MiB".to_owned()) } else { Ok(bytes) }
}

struct Files<'m> {
    plans: Vec<FilePlan>,
    mistakes: &'m mut Mistakes,
}

impl Files<'_> {
    fn add(
        &mut self,
        origin: &'static str,
        name: &[u8],
        variable: Option<String>,
        content: impl FnOnce(&FileName) -> Result<Text, Unusable>,
    ) {
        if name.is_empty() {
            self.mistakes.add(format!("{origin}: no file name before `=`"), format!("write {origin} NAME=SOURCE"));
            return;
        }
        let called = String::from_utf8_lossy(name);
        let name = match FileName::parse(name) {
            Ok(name) => name,
            Err(error) => {
                self.mistakes
                    .add(format!("{origin}: no file can be called {called}: {error}"), "use a short relative name");
                return;
            }
        };
        match content(&name) {
            Ok(text) => self.plans.push(FilePlan { name, text, variable, origin }),
            Err(Unusable::Malformed(error)) => self.mistakes.malformed(&format!("{origin} {name}"), error),
            Err(Unusable::Unreadable(what)) => {
                self.mistakes.add(format!("{origin} {name}: {what}"), "name a readable file")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(written: Written) -> Result<Plan, Vec<String>> {
        let written = Written { command: vec!["true".into()], ..written };
        Plan::make(written, ExecSettings::default())
            .map_err(|mistakes| mistakes.complaints.into_iter().map(|complaint| complaint.what).collect())
    }

    #[test]
    fn what_is_not_here_yet_is_refused_and_not_ignored() {
        for (written, named) in [
            (Written { mask: true, ..Written::default() }, "--mask"),
            (Written { init: Some("always".into()), ..Written::default() }, "--init always"),
            (
                Written { on_change: vec!["ignore".into(), "rewrite".into()], ..Written::default() },
                "--on-change rewrite",
            ),
            (Written { on_change: vec!["signal:HUP".into()], ..Written::default() }, "--on-change signal:HUP"),
            (Written { on_change: vec!["restart".into()], ..Written::default() }, "--on-change restart"),
        ] {
            let complaints = plan(written).expect_err("refused");
            assert!(
                complaints.len() == 1 && complaints[0].contains(named) && complaints[0].contains("not in this version"),
                "{complaints:?}"
            );
        }
        let harmless = Written {
            init: Some("never".into()),
            on_change: vec!["ignore".into()],
            files: Some("auto".into()),
            ..Written::default()
        };
        assert!(plan(harmless).is_ok());
    }

    #[test]
    fn a_file_without_a_variable_and_a_directory_are_refused_for_memfds() {
        let memfd = || Written { files: Some("memfd".into()), file_env: vec!["A=1".into()], ..Written::default() };
        assert_eq!(plan(memfd()).expect("a plan").place.kind, Kind::Memfd);
        for (written, named) in [
            (Written { file: vec!["f=1".into()], ..memfd() }, "--file f"),
            (Written { template: vec!["t=/dev/null".into()], ..memfd() }, "--template t"),
            (Written { secret_files: vec!["db".into()], ..memfd() }, "--secret-files db"),
            (Written { files_dir: Some("/x".into()), ..memfd() }, "--files-dir"),
            (Written { insecure_files: true, ..memfd() }, "--insecure-files"),
            (Written { files: Some("memfs".into()), ..Written::default() }, "--files is not"),
            (Written { file_env: vec!["KEYSIDE_FILES=1".into()], ..Written::default() }, "KEYSIDE_FILES"),
        ] {
            let complaints = plan(written).expect_err("refused");
            assert!(complaints.len() == 1 && complaints[0].contains(named), "{complaints:?}");
        }
    }

    #[test]
    fn a_flag_for_memfds_lies_over_a_configured_directory() {
        let configured = |files: Option<&str>| ExecSettings {
            files: files.map(str::to_owned),
            files_dir: Some("/x".to_owned()),
            ..ExecSettings::default()
        };
        let plan = |flag: Option<&str>, files| {
            let written = Written {
                files: flag.map(str::to_owned),
                file_env: vec!["A=1".into()],
                command: vec!["true".into()],
                ..Written::default()
            };
            Plan::make(written, configured(files)).map(|plan| (plan.place.kind, plan.place.dir.is_some()))
        };
        assert_eq!(plan(Some("memfd"), None).ok(), Some((Kind::Memfd, false)));
        assert_eq!(plan(Some("private"), Some("memfd")).ok(), Some((Kind::Private, true)));
        assert!(plan(None, Some("memfd")).is_err());
    }

    #[test]
    fn a_later_env_of_the_same_name_wins_and_a_pass_through_too() {
        let env = |pairs: &[&str]| {
            plan(Written { env: pairs.iter().map(OsString::from).collect(), ..Written::default() }).expect("a plan")
        };
        assert!(env(&["A=1", "A"]).passed_through.contains(&b"A"[..]));
        let plan = env(&["A", "A=1", "A=2"]);
        assert!(plan.passed_through.is_empty() && plan.sets(b"A"));
        assert!(!env(&["A=1", "A"]).sets(b"A"));
    }

    #[test]
    fn one_name_by_env_and_by_file_env_is_an_error() {
        let written = Written { env: vec!["A=1".into()], file_env: vec!["A=2".into()], ..Written::default() };
        assert!(plan(written).expect_err("a clash")[0].contains("by --env and by --file-env"));
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let written = Written {
            secret: vec![String::new(), "..".into()],
            env: vec!["=x".into()],
            file: vec!["../x=1".into(), "nothing".into(), "a=1".into(), "A=1".into()],
            user: Some("root".into()),
            env_file: vec!["/nonexistent/env".into()],
            ..Written::default()
        };
        assert_eq!(plan(written).expect_err("mistakes").len(), 8);
    }

    #[test]
    fn a_user_is_numbers() {
        let mut mistakes = Mistakes::default();
        assert_eq!(user("5", &mut mistakes), Some(User { uid: 5, gid: None }));
        assert_eq!(user("5:6", &mut mistakes), Some(User { uid: 5, gid: Some(6) }));
        for text in ["", ":", "5:", "-1", "4294967295", "a:b"] {
            assert_eq!(user(text, &mut mistakes), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_ends_at_the_first_equals_sign() {
        let mut mistakes = Mistakes::default();
        let bulk = |text: &str, mistakes: &mut Mistakes| bulk(text, mistakes).map(|bulk| (bulk.prefix, bulk.name));
        assert_eq!(bulk("db", &mut mistakes), Some((String::new(), "db".into())));
        assert_eq!(bulk("DB_=db", &mut mistakes), Some(("DB_".into(), "db".into())));
        assert_eq!(bulk("=a=b", &mut mistakes), Some((String::new(), "a=b".into())));
    }
}
