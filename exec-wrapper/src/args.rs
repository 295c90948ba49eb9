//! The command line as written. What it means is decided in [`crate::plan`].

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use keyside_protocol::units::Span;
use lexopt::{Arg, Parser, ValueExt as _};

use crate::report::Complaint;
use crate::{AgentMode, Globals};

/// Everything that stood on the command line. An absent option is none or empty.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) secret: Vec<String>,
    pub(crate) env_file: Vec<PathBuf>,
    /// `VAR=TEMPLATE` or `VAR`, any bytes.
    pub(crate) env: Vec<OsString>,
    /// `NAME=TEMPLATE`.
    pub(crate) file: Vec<OsString>,
    /// `VAR=TEMPLATE`.
    pub(crate) file_env: Vec<OsString>,
    /// `NAME=SRC`.
    pub(crate) template: Vec<OsString>,
    pub(crate) secret_files: Vec<String>,
    pub(crate) lenient: bool,
    pub(crate) no_resolve_env: bool,
    pub(crate) pristine: bool,
    pub(crate) insecure_files: bool,
    pub(crate) mask: bool,
    pub(crate) dry_run: bool,
    pub(crate) check_only: bool,
    pub(crate) files: Option<String>,
    pub(crate) files_dir: Option<PathBuf>,
    pub(crate) on_change: Vec<String>,
    pub(crate) restart_signal: Option<String>,
    pub(crate) init: Option<String>,
    pub(crate) wait: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) user: Option<String>,
    pub(crate) chdir: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) unavailable_exit: Option<u8>,
    pub(crate) profile: Option<String>,
    /// CMD and its arguments; empty when none was given.
    pub(crate) command: Vec<OsString>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Run a command.
    Exec(Box<Written>),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// `shim DIR NAME...`.
    Shim,
}

/// Every long option, for suggestions.
const LONG: &[&str] = &[
    "secret",
    "env-file",
    "env",
    "file",
    "file-env",
    "template",
    "secret-files",
    "lenient",
    "no-resolve-env",
    "pristine",
    "insecure-files",
    "mask",
    "dry-run",
    "check-only",
    "files",
    "files-dir",
    "on-change",
    "restart-signal",
    "restart-grace",
    "debounce",
    "splay",
    "init",
    "wait",
    "timeout",
    "user",
    "chdir",
    "report",
    "unavailable-exit",
    "profile",
    "help",
    "version",
    "config",
    "socket",
    "agent-uid",
    "agent",
    "log-format",
    "verbose",
    "quiet",
    "color",
];

/// Reads the command line that follows `exec`; global options go into `globals`.
pub(crate) fn parse(globals: &mut Globals, args: Vec<OsString>) -> Result<Asked, Complaint> {
    let mut written = Box::<Written>::default();
    let dashes: Vec<bool> = args.iter().map(|argument| argument == "--").collect();
    let mut parser = Parser::from_args(args);
    loop {
        // lexopt treats what follows `--` as positional, like the first word that is no option.
        let Some(argument) = parser.next().map_err(|error| wrong(&error))? else { return Ok(Asked::Exec(written)) };
        let long = match argument {
            Arg::Value(first) => {
                written.command.push(first);
                written.command.extend(parser.raw_args().map_err(|error| wrong(&error))?);
                // A command that is called so can still be run: `-- shim`.
                let announced = dashes.len().checked_sub(written.command.len() + 1).is_some_and(|at| dashes[at]);
                let shim = written.command[0] == "shim" && !announced;
                return Ok(if shim { Asked::Shim } else { Asked::Exec(written) });
            }
            Arg::Short(short) => match short {
                's' => "secret",
                'e' => "env",
                'f' => "file",
                'F' => "file-env",
                'v' => "verbose",
                'q' => "quiet",
                'h' => "help",
                'V' => "version",
                other => return Err(unknown(&format!("-{other}"), None)),
            },
            Arg::Long(long) => match LONG.iter().find(|known| **known == long) {
                Some(known) => known,
                None => return Err(unknown(&format!("--{long}"), closest(long, LONG))),
            },
        };
        match long {
            "help" => return Ok(Asked::Help),
            "version" => return Ok(Asked::Version),
            option => take(globals, &mut written, option, &mut parser)?,
        }
    }
}

fn take(globals: &mut Globals, written: &mut Written, option: &str, parser: &mut Parser) -> Result<(), Complaint> {
    let mut value = || match parser.optional_value() {
        Some(glued) => Ok(glued),
        // The `--` that ends the options is no value that somebody meant.
        None => match parser.value() {
            Ok(dashes) if dashes == "--" => Err(Complaint::new(
                format!("--{option} needs a value, and `--` ends the options"),
                format!("write the value before `--`; a value that is really so is written --{option}=--"),
            )),
            value => value.map_err(|error| wrong(&error)),
        },
    };
    match option {
        "secret" => written.secret.push(text(option, value()?)?),
        "env-file" => written.env_file.push(path(option, value()?)?),
        "env" => written.env.push(value()?),
        "file" => written.file.push(value()?),
        "file-env" => written.file_env.push(value()?),
        "template" => written.template.push(value()?),
        "secret-files" => written.secret_files.push(text(option, value()?)?),
        "lenient" => written.lenient = true,
        "no-resolve-env" => written.no_resolve_env = true,
        "pristine" => written.pristine = true,
        "insecure-files" => written.insecure_files = true,
        "mask" => written.mask = true,
        "dry-run" => written.dry_run = true,
        "check-only" => written.check_only = true,
        "files" => written.files = Some(text(option, value()?)?),
        "files-dir" => written.files_dir = Some(path(option, value()?)?),
        "on-change" => written.on_change.push(text(option, value()?)?),
        "restart-signal" => written.restart_signal = Some(text(option, value()?)?),
        // Nothing is restarted yet; a wrong value is still a mistake.
        "restart-grace" | "debounce" | "splay" => drop(duration(option, value()?)?),
        "init" => written.init = Some(text(option, value()?)?),
        "wait" => written.wait = Some(duration(option, value()?)?),
        "timeout" => written.timeout = Some(duration(option, value()?)?),
        "user" => written.user = Some(text(option, value()?)?),
        "chdir" => written.chdir = Some(path(option, value()?)?),
        "report" => written.report = Some(path(option, value()?)?),
        "unavailable-exit" => written.unavailable_exit = Some(unavailable_exit(value()?)?),
        "profile" => written.profile = Some(text(option, value()?)?),
        "config" => globals.config = Some(path(option, value()?)?),
        "socket" => globals.socket = Some(path(option, value()?)?),
        "agent-uid" => {
            let uid = text(option, value()?)?;
            globals.agent_uid = Some(uid.parse().map_err(|_| not_a(option, "a uid", "say a number such as 1000"))?);
        }
        "agent" => globals.agent = Some(agent_mode(&text(option, value()?)?)?),
        "log-format" => drop(one_of(option, value()?, &["text", "json"])?),
        "color" => globals.color = one_of(option, value()?, &["auto", "always", "never"])? != "never",
        "verbose" => globals.verbose = globals.verbose.saturating_add(1),
        "quiet" => globals.quiet = globals.quiet.saturating_add(1),
        _ => return Err(unknown(&format!("--{option}"), None)),
    }
    Ok(())
}

/// Reads `auto`, `socket` or `embedded`.
pub(crate) fn agent_mode(text: &str) -> Result<AgentMode, Complaint> {
    match text {
        "auto" => Ok(AgentMode::Auto),
        "socket" => Ok(AgentMode::Socket),
        "embedded" => Ok(AgentMode::Embedded),
        _ => Err(not_a("agent", "auto, socket or embedded", "auto is the default")),
    }
}

fn unavailable_exit(value: OsString) -> Result<u8, Complaint> {
    match text("unavailable-exit", value)?.parse() {
        Ok(code) if code > 0 => Ok(code),
        _ => Err(not_a("unavailable-exit", "an exit code", "say a number from 1 to 255, such as 75")),
    }
}

fn one_of(option: &str, value: OsString, words: &[&str]) -> Result<String, Complaint> {
    let word = text(option, value)?;
    if words.contains(&word.as_str()) {
        return Ok(word);
    }
    Err(not_a(option, words.join(" or ").as_str(), "see --help"))
}

fn text(option: &str, value: OsString) -> Result<String, Complaint> {
    value.string().map_err(|_| Complaint::new(format!("--{option} is not UTF-8"), "write it as text"))
}

fn path(option: &str, value: OsString) -> Result<PathBuf, Complaint> {
    if value.is_empty() { Err(not_a(option, "a path", "it is empty")) } else { Ok(PathBuf::from(value)) }
}

fn duration(option: &str, value: OsString) -> Result<Duration, Complaint> {
    let span: Result<Span, _> = text(option, value)?.parse();
    span.map(|span| span.0)
        .map_err(|_| not_a(option, "a duration", "write a number and a unit, such as 500ms, 30s or 5m; 0 needs none"))
}

fn not_a(option: &str, what: &str, hint: &str) -> Complaint {
    Complaint::new(format!("--{option} is not {what}"), hint)
}

fn unknown(option: &str, suggestion: Option<&str>) -> Complaint {
    let hint = match suggestion {
        Some(known) => format!("did you mean --{known}? the command's own options stand after `--`"),
        None => "see --help; the command's own options stand after `--`".to_owned(),
    };
    Complaint::new(format!("exec has no option {option}"), hint)
}

fn wrong(error: &lexopt::Error) -> Complaint {
    // Their own texts may quote a value that was glued to an option.
    let what = match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value"),
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        _ => "the command line cannot be read".to_owned(),
    };
    Complaint::new(what, "see --help")
}

/// Returns the known word nearest to `word`, when it is near enough to be what was meant.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let best = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    (best.0 <= 1 + word.len() / 4).then_some(best.1)
}

/// Levenshtein's distance, in bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// Cuts `TARGET=SOURCE` at the first `=`; none where there is no `=` or no target.
pub(crate) fn cut(pair: &OsStr) -> Option<(&[u8], &[u8])> {
    let bytes = pair.as_encoded_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=')?;
    (at > 0).then(|| (&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(args: &[&str]) -> Result<(Globals, Box<Written>), Complaint> {
        let mut globals = Globals::default();
        match parse(&mut globals, args.iter().map(OsString::from).collect())? {
            Asked::Exec(written) => Ok((globals, written)),
            _ => Err(Complaint::new("not an exec", "a hint")),
        }
    }

    #[test]
    fn options_stand_before_the_command_and_its_own_are_left_alone() {
        let (globals, written) =
            written(&["-q", "--socket=/s", "-sdb", "-e", "A=b=c", "--wait", "0", "--", "cmd", "-e", "--", "x"])
                .expect("read");
        assert_eq!((globals.quiet, globals.socket), (1, Some(PathBuf::from("/s"))));
        assert_eq!((written.secret, written.env), (vec!["db".to_owned()], vec![OsString::from("A=b=c")]));
        assert_eq!((written.wait, written.command.len()), (Some(Duration::ZERO), 4));
    }

    #[test]
    fn shim_is_a_subcommand_unless_it_stands_after_two_dashes() {
        let asked = |args: &[&str]| parse(&mut Globals::default(), args.iter().map(OsString::from).collect());
        assert!(matches!(asked(&["shim", "/dir", "python"]), Ok(Asked::Shim)));
        assert!(matches!(asked(&["-q", "--", "shim", "/dir"]), Ok(Asked::Exec(_))));
    }

    #[test]
    fn the_first_word_starts_the_command_without_two_dashes_too() {
        let (_, written) = written(&["--pristine", "env", "--pristine", "-0"]).expect("read");
        assert_eq!(written.command, ["env", "--pristine", "-0"]);
    }

    #[test]
    fn an_option_without_its_value_does_not_take_the_two_dashes_for_it() {
        for option in ["--env", "-e", "--secret", "-s", "--report", "--wait"] {
            let complaint = written(&[option, "--", "true"]).expect_err("a missing value");
            assert!(complaint.what.contains("needs a value") && complaint.hint.is_some(), "{complaint:?}");
        }
        let (_, written) = written(&["--secret=--", "-s--", "--", "true"]).expect("read");
        assert_eq!((written.secret, written.command.len()), (vec!["--".to_owned(); 2], 1));
    }

    #[test]
    fn a_wrong_option_is_named_with_the_one_that_was_meant() {
        let complaint = written(&["--envfile", "x", "--", "true"]).expect_err("unknown");
        assert!(complaint.what.contains("--envfile") && complaint.hint.expect("a hint").contains("--env-file"));
        for args in [
            &["-x"][..],
            &["--nothing-like-it"],
            &["--wait", "5"],
            &["--unavailable-exit", "0"],
            &["--lenient=x"],
            &["-s"],
        ] {
            assert!(written(args).is_err(), "{args:?}");
        }
    }
}
