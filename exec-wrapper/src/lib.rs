//! The exec wrapper: from the agent's socket to the child. Synchronous, one thread, no TLS.
//!
//! # Layout, in the order of the flow
//!
//! * [`args`](self): the command line as written; `profile`: the configuration as written; `plan`: both as meant.
//! * `environment`: the inherited block, read; `dotenv`, `text`: templates from files and of any bytes.
//! * [`socket`], [`connect`], [`client`], [`stream`]: where the agent is, a connection to it, one request over it, or
//!   lines as they come.
//! * `resolve`: one request for everything; `preview`: `--dry-run` and `--check-only`.
//! * `files`, `cleaner`: where the step's files are, and who removes a directory; `deny`, `limits`: what is refused.
//! * `inject`: values into the block and the files; `launch`: this process becomes the command.
//! * `hardening`, `sys`: what protects us meanwhile; the system calls. [`exit_code`], `report`: what the caller hears.

mod args;
mod cleaner;
pub mod client;
pub mod connect;
mod deny;
mod dotenv;
mod environment;
pub mod exit_code;
mod files;
mod hardening;
mod help;
mod inject;
mod launch;
mod limits;
mod plan;
mod preview;
pub mod profile;
mod report;
mod resolve;
pub mod socket;
pub mod stream;
mod sys;
mod text;

pub use files::left_behind;
pub use hardening::hide_panic_messages;

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::{Asked, Written};
use crate::environment::Inherited;
use crate::files::{Files, Owner};
use crate::hardening::Hardened;
use crate::plan::Plan;
use crate::report::{Complaint, Stop};
use crate::resolve::{Answers, Refusal, Wanted};
use crate::sys::EndingAsPidOne;

/// The options that stand before every command.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    /// `--config`; absent: `KEYSIDE_CONFIG`, then the default places.
    pub config: Option<PathBuf>,
    /// `--socket`; absent: `KEYSIDE_SOCKET`, then the configuration, then the default places.
    pub socket: Option<PathBuf>,
    /// `--agent-uid`; absent: `KEYSIDE_AGENT_UID`.
    pub agent_uid: Option<u32>,
    /// `--agent`; absent: the configuration, then `auto`.
    pub agent: Option<AgentMode>,
    /// How to start a private agent: a program and its arguments, to which `--fd N` is appended. None where this
    /// program has no agent in it.
    pub embedded: Option<Vec<OsString>>,
    /// How often `--quiet` was said.
    pub quiet: u8,
    /// How often `--verbose` was said.
    pub verbose: u8,
    /// Whether colour is wanted.
    pub color: bool,
}

/// Which agent is to be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AgentMode {
    /// The one on the socket, or a private one where no socket is named and none exists.
    #[default]
    Auto,
    /// The one on the socket only.
    Socket,
    /// A private one only.
    Embedded,
}

/// Tells whether this program was started with its standard output closed, which Rust's runtime hides by opening
/// /dev/null in its place.
pub fn stdout_was_closed() -> bool {
    sys::closed_stdio().any(|fd| fd == 1)
}

/// Runs `exec`: `args` is what follows that word. Returns only when the command was not started, or when nothing was
/// to be started (`--dry-run`, `--check-only`, `--help`).
pub fn run(globals: Globals, args: Vec<OsString>) -> ExitCode {
    ExitCode::from(run_to_code(globals, args))
}

/// As [`run`], with the bare number.
pub fn run_to_code(globals: Globals, args: Vec<OsString>) -> u8 {
    sys::hold_closed_stdio();
    sys::ignore_sigpipe();
    let hardened = Hardened::begin();
    // The default hook prints the panic's text, which could hold a value; and a fault here must end as any other.
    std::panic::set_hook(Box::new(|fault| {
        let place = fault.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        report::complain(&[Complaint::new(
            format!("internal fault{place}"),
            "please report it; the command was not started",
        )]);
        sys::exit_now(exit_code::FAILED);
    }));
    match exec(globals, args, hardened) {
        Ok(code) => code,
        Err(stop) => {
            report::complain(&stop.complaints);
            stop.code
        }
    }
}

fn exec(mut globals: Globals, args: Vec<OsString>, mut hardened: Hardened) -> Result<u8, Stop> {
    let written = match args::parse(&mut globals, args)? {
        Asked::Exec(written) => *written,
        Asked::Help => return print(help::HELP),
        Asked::Version => return print(concat!("keyside-exec ", env!("CARGO_PKG_VERSION"), "\n")),
        Asked::Shim => {
            let hint = "a pod's `command:` can start `keyside-exec ... -- CMD` instead";
            return Err(Complaint::new("shim is not in this version yet", hint).into());
        }
    };
    let block = sys::inherited_environment();
    let report_path = written.report.clone();
    let (plan, socket) = configure(&mut globals, written, &block).map_err(|mistakes| {
        let mut stop = Stop::from(mistakes.complaints);
        stop.complaints.extend(report_path.and_then(|path| report::write_failures(&path, &mistakes.failures).err()));
        stop
    })?;
    let inherited = Inherited::read(&block, &plan);
    warn_about_odd_values(&globals, &inherited);
    let wanted = Wanted::collect(&plan, &inherited);

    if plan.check_only {
        let _waiting = EndingAsPidOne::begin();
        let all_there = if wanted.is_empty() {
            preview::write_report(&plan, &[])?;
            true
        } else {
            preview::check(&globals, socket.as_deref(), &plan, &wanted)?
        };
        return Ok(if all_there { 0 } else { exit_code::FAILED });
    }
    launch::check_directory(&plan)?;
    let program = look_up_early(&plan, &inherited)?;
    if plan.dry_run {
        let verdict = if plan.has_files() { Some(files::foresee(&plan.place, owner(&plan))?) } else { None };
        preview::dry_run(&plan, &inherited, verdict.as_ref(), program.as_deref())?;
        return Ok(0);
    }

    if globals.verbose > 0
        && let Some(duties) = launch::duties_left_undone(&plan)
    {
        report::note(duties);
    }
    let files = make_files(&plan, &globals)?;
    let answers = if wanted.is_empty() {
        Answers::default()
    } else {
        let _waiting = EndingAsPidOne::begin();
        resolve::fetch(&globals, socket.as_deref(), &plan, &wanted).map_err(|refusal| refused(&plan, refusal))?
    };
    if globals.verbose > 0 && !wanted.is_empty() {
        let (references, secrets) = (wanted.references.len(), wanted.secrets.len());
        report::note(&format!("resolved references: {references}, whole secrets: {secrets}"));
    }
    let environment = inject::inject(&plan, &inherited, &answers, files.as_ref())?;
    drop(answers);
    if let Some(path) = &plan.report {
        report::write_failures(path, &[])?;
    }
    let program = match program {
        Some(program) => program,
        None => launch::look_up(&plan, environment.get(b"PATH"))?,
    };
    let never: Infallible = launch::become_child(&plan, &program, &environment.strings(), &mut hardened)?;
    match never {}
}

fn print(text: &str) -> Result<u8, Stop> {
    report::print(text)?;
    Ok(0)
}

/// Reads the configuration and lays the flags over it. The other global options are filled in.
fn configure(
    globals: &mut Globals,
    written: Written,
    block: &[&std::ffi::CStr],
) -> Result<(Plan, Option<PathBuf>), plan::Mistakes> {
    if globals.config.is_none() {
        globals.config = std::env::var_os("KEYSIDE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    }
    let configured =
        profile::load_with(globals.config.as_deref(), written.profile.as_deref(), block).map_err(|mistakes| {
            let complaint = |mistake: profile::Mistake| Complaint::new(mistake.to_string(), mistake.hint);
            plan::Mistakes { complaints: mistakes.into_iter().map(complaint).collect(), failures: Vec::new() }
        })?;
    let profile::Configured { socket, exec, later: _ } = configured;
    if let (None, Some(mode)) = (globals.agent, &exec.agent) {
        let mode = args::agent_mode(mode);
        globals.agent =
            Some(mode.map_err(|complaint| plan::Mistakes { complaints: vec![complaint], failures: Vec::new() })?);
    }
    if globals.agent_uid.is_none() && std::env::var_os("KEYSIDE_AGENT_UID").is_none_or(|uid| uid.is_empty()) {
        globals.agent_uid = exec.agent_uid;
    }
    Ok((Plan::make(written, exec)?, socket))
}

fn warn_about_odd_values(globals: &Globals, inherited: &Inherited) {
    if globals.quiet == 0 {
        for (name, odd) in &inherited.odd {
            report::note(&format!("warning: the variable {name} is left as it is: {odd}"));
        }
    }
}

/// Finds the command before anybody is asked, unless PATH itself is something to resolve.
fn look_up_early(plan: &Plan, inherited: &Inherited) -> Result<Option<std::ffi::CString>, Stop> {
    if plan.dry_run && plan.command.is_empty() {
        return Ok(None);
    }
    let named = plan.variable(b"PATH").filter(|_| !resolve::is_passed_through(plan, inherited, b"PATH"));
    let path = match named {
        Some(variable) if !variable.text.is_literal() => return Ok(None),
        Some(variable) => variable.text.render(|_| unreachable!("a literal has no reference")).ok(),
        None if inherited.is_reference(b"PATH") => return Ok(None),
        None => None,
    };
    // expose: a literal that stood on the command line.
    let literal = path.as_ref().map(keyside_protocol::value::SecretValue::expose);
    launch::look_up(plan, literal.or_else(|| inherited.plain(b"PATH"))).map(Some)
}

/// Makes the place of the step's files, before any value is fetched.
fn make_files(plan: &Plan, globals: &Globals) -> Result<Option<Files>, Complaint> {
    if !plan.has_files() {
        return Ok(None);
    }
    let mut warn = |what: String| {
        if globals.quiet == 0 {
            report::note(&format!("warning: {what}"));
        }
    };
    let names = plan.files.iter().map(|file| &file.name);
    let (files, verdict) = files::make(&plan.place, owner(plan), names, &mut warn)?;
    if globals.verbose > 0 {
        report::note(&verdict.to_string());
    }
    Ok(Some(files))
}

/// Whom the step's files are to belong to.
fn owner(plan: &Plan) -> Owner {
    let own = rustix::process::geteuid().as_raw();
    match plan.user {
        Some(user) => Owner { uid: user.uid, gid: user.gid, is_other: user.uid != own || user.gid.is_some() },
        None => Owner { uid: own, gid: None, is_other: false },
    }
}

fn refused(plan: &Plan, refusal: Refusal) -> Stop {
    let Refusal { mut complaints, failures, transient, .. } = refusal;
    complaints.extend(plan.report.as_ref().and_then(|path| report::write_failures(path, &failures).err()));
    let code = plan.unavailable_exit.filter(|_| transient).unwrap_or(exit_code::FAILED);
    Stop { code, complaints }
}
