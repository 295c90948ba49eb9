//! `check`: are the references there? Collects them from everywhere, asks once, reports every place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;

use keyside_config::Environment;
use keyside_exec_wrapper::client::encode_segment;
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::{CheckReply, CheckRequest, CheckResult, CheckStatus, StackReference, StackReply};
use keyside_protocol::reference::{Reference, ReferenceError};

use super::check_report::{self, Finding, Place, Report};
use crate::args::{CheckArgs, CheckFormat};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, printable, say, stdout_is_terminal};
use crate::session::{self, Session};
use crate::source::{self, Found};

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// Most bytes of references in one request: the agent takes 1 MiB of JSON, and escapes may make a text longer.
const MAX_REQUEST: usize = 256 << 10;

/// Collects, asks, prints.
pub(super) fn run(globals: &Globals, args: &CheckArgs) -> Result<Exit, Failure> {
    let level = match args.level {
        Some(level) => Some(level),
        None => keyside_config::client_level(&Environment::of_process()).map_err(session::bad_configuration)?,
    };
    let mut findings = collect(globals, args)?;
    if findings.is_empty() {
        say("keyside: no reference found");
        say("hint: a reference is a whole string of the form {{name.key}}");
    }
    let (level, backend_calls) = ask(globals, &mut findings, level, args.no_cache)?;
    let report = Report { level, backend_calls, findings };
    let text = match args.format {
        CheckFormat::Text => check_report::text(&report, globals.color_for(stdout_is_terminal())),
        CheckFormat::Json => check_report::json(&report),
        CheckFormat::Junit => check_report::junit(&report),
        CheckFormat::Github => check_report::github(&report),
    };
    print(text.as_bytes())?;
    if !report.findings.is_empty() {
        say(&format!("keyside: {}", check_report::summary(&report)));
    }
    Ok(report.exit())
}

/// Gathers every reference with its places, in the order given; a repeated one is one finding with more places.
fn collect(globals: &Globals, args: &CheckArgs) -> Result<Vec<Finding>, Failure> {
    let mut findings = Findings::default();
    let mut sources = args.file.len() + usize::from(args.env) + usize::from(args.stack.is_some());
    for argument in &args.references {
        sources += 1;
        if argument == "-" {
            let mut text = String::new();
            std::io::stdin().take(MAX_FILE).read_to_string(&mut text).map_err(|error| {
                Failure::usage(format!("cannot read standard input: {}", crate::output::io_text(&error)))
            })?;
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                findings.given(line.trim(), Place::Stdin { line: index + 1 });
            }
        } else {
            findings.given(&argument.to_string_lossy(), Place::Argument);
        }
    }
    let stack = args.stack.as_ref().map(|stack| stack.as_deref());
    let exported = stack.flatten().map(Path::new).filter(|path| is_file(path));
    for file in args.file.iter().map(|file| file.as_path()).chain(exported) {
        for found in strings_of(file)? {
            let place = Place::File { file: file.to_owned(), line: found.line, path: found.path.clone() };
            findings.found(&found, place);
        }
    }
    if let (Some(name), None) = (stack, exported) {
        of_server(globals, name, &mut findings)?;
    }
    if args.env {
        for (name, value) in std::env::vars_os() {
            let (Some(text), name) = (value.to_str(), name.to_string_lossy().into_owned()) else { continue };
            let found = Found { line: 0, path: String::new(), text: text.to_owned(), unquoted: false };
            findings.found(&found, Place::Variable { name });
        }
    }
    if sources == 0 {
        return Err(Failure::usage("nothing to check")
            .hint("give references, --file FILE, --stack, --env, or - for standard input"));
    }
    Ok(findings.list)
}

/// Tells an exported stack's file from a stack's name: a path, or the name of something that is there.
fn is_file(stack: &Path) -> bool {
    stack.components().count() > 1 || stack.extension().is_some_and(is_format) || stack.is_file()
}

fn is_format(extension: &std::ffi::OsStr) -> bool {
    ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Asks the agent's ZenML server for the references of a stack; without a name, of the active one.
fn of_server(globals: &Globals, name: Option<&OsStr>, findings: &mut Findings) -> Result<(), Failure> {
    let name = match name {
        Some(name) => name.to_str().map(str::to_owned).ok_or_else(|| Failure::usage("a stack's name is UTF-8"))?,
        None => keyside_config::active_stack(&Environment::of_process(), rustix::process::getuid().as_raw())
            .ok_or_else(|| {
                Failure::usage("no stack is active")
                    .hint("name one, or set ZENML_ACTIVE_STACK_ID; `zenml stack describe` shows the active one")
            })?,
    };
    let mut session = Session::open(globals)?;
    let target = format!("/v1/stack?name={}", encode_segment(&name));
    let stack: StackReply = session.ask("read the stack", "GET", &target, None)?;
    session.end();
    for StackReference { component, attribute, reference } in stack.references {
        let found = Found { line: 0, path: String::new(), text: reference, unquoted: false };
        findings.found(&found, Place::Stack { stack: stack.stack.clone(), component, attribute });
    }
    Ok(())
}

fn strings_of(file: &Path) -> Result<Vec<Found>, Failure> {
    let named = |what: String| Failure::usage(format!("{}: {what}", printable(&file.to_string_lossy())));
    let text =
        read_text(file).map_err(|what| named(what).hint("check the path after --file, and whether you may read it"))?;
    source::strings(file, &text)
        .map_err(|error| named(error.to_string()).hint("only YAML, JSON, TOML and dotenv files are read"))
}

fn read_text(file: &Path) -> Result<String, String> {
    let io = |error: std::io::Error| format!("cannot be read: {}", crate::output::io_text(&error));
    let opened = std::fs::File::open(file).map_err(io)?;
    if opened.metadata().map_err(io)?.is_dir() {
        return Err("cannot be read: is a directory".into());
    }
    let mut bytes = Vec::new();
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("is larger than 16 MiB".into());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

/// Findings in order, each reference once.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    index: BTreeMap<String, usize>,
}

impl Findings {
    /// Somebody says that this is a reference: if it is none, that is an answer.
    fn given(&mut self, text: &str, place: Place) {
        match Reference::parse_lenient(text) {
            Ok(reference) => self.add(reference.to_string(), None, place),
            Err(error) => self.add(text.to_owned(), Some((error.to_string(), None)), place),
        }
    }

    /// A string in a file or the environment: most are no references, which is fine.
    fn found(&mut self, found: &Found, place: Place) {
        if found.unquoted {
            let hint = Some("put it in quotes".to_owned());
            let why = "without quotes it is a YAML mapping, not a reference".to_owned();
            return self.add(found.text.clone(), Some((why, hint)), place);
        }
        match Reference::parse(&found.text) {
            Ok(reference) => self.add(reference.to_string(), None, place),
            Err(ReferenceError::NotAReference) => {}
            Err(error) => self.add(found.text.clone(), Some((error.to_string(), None)), place),
        }
    }

    fn add(&mut self, reference: String, invalid: Option<(String, Option<String>)>, place: Place) {
        // The same text may stand quoted in one place and unquoted in another.
        let id = format!("{}{reference}", if invalid.is_some() { "!" } else { " " });
        if let Some(&at) = self.index.get(&id) {
            return self.list[at].places.push(place);
        }
        self.index.insert(id, self.list.len());
        let result = invalid.map(|(why, hint)| CheckResult {
            reference: reference.clone(),
            status: CheckStatus::Invalid,
            backend: None,
            hint: Some(hint.unwrap_or(why)),
        });
        self.list.push(Finding { reference, result, places: vec![place] });
    }
}

/// Asks the agent about everything that is well-formed; returns the level that was applied and the calls it cost.
fn ask(
    globals: &Globals,
    findings: &mut [Finding],
    level: Option<ValidationLevel>,
    no_cache: bool,
) -> Result<(Option<ValidationLevel>, u64), Failure> {
    let open: Vec<usize> = (0..findings.len()).filter(|&at| findings[at].result.is_none()).collect();
    if open.is_empty() {
        return Ok((level, 0));
    }
    let mut session = Session::open(globals)?;
    let (mut applied, mut calls) = (None, 0);
    for part in parts(&open, |at| findings[at].reference.len()) {
        let request = CheckRequest {
            references: part.iter().map(|&at| findings[at].reference.clone()).collect(),
            level: level.map(|level| level.to_string()),
            no_cache,
        };
        let doing = "check the references";
        let reply: CheckReply = session.ask(doing, "POST", "/v1/check", Some(&session::to_json(&request)))?;
        if reply.results.len() != part.len() {
            return Err(Failure::new(
                Exit::Unavailable,
                format!("cannot {doing}: the agent did not answer all of them"),
            ));
        }
        for (&at, result) in part.iter().zip(reply.results) {
            findings[at].result = Some(result);
        }
        applied = Some(reply.level);
        calls += reply.backend_calls;
    }
    session.end();
    Ok((applied, calls))
}

/// Cuts the list so that no request is too large; a usual one stays whole.
fn parts(open: &[usize], size: impl Fn(usize) -> usize) -> Vec<&[usize]> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (end, &at) in open.iter().enumerate() {
        let more = size(at) + 8;
        if end > start && bytes + more > MAX_REQUEST {
            parts.push(&open[start..end]);
            (start, bytes) = (end, 0);
        }
        bytes += more;
    }
    parts.push(&open[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_reference_is_asked_once_and_reported_at_every_place() {
        let mut findings = Findings::default();
        findings.given("a.b", Place::Argument);
        findings.given("{{ a.b }}", Place::Stdin { line: 2 });
        findings.given("nonsense", Place::Argument);
        assert_eq!(findings.list.len(), 2);
        assert_eq!((findings.list[0].reference.as_str(), findings.list[0].places.len()), ("{{a.b}}", 2));
        assert_eq!(findings.list[1].result.as_ref().map(|result| result.status), Some(CheckStatus::Invalid));
    }

    #[test]
    fn a_large_list_is_cut_into_requests_that_the_agent_takes() {
        let open: Vec<usize> = (0..10_000).collect();
        let parts = parts(&open, |_| 500);
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), 10_000);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() * 508 <= MAX_REQUEST));
    }
}
