//! `quickstart`: from nothing to a step with secrets, in one command.
//!
//! # Layout
//!
//! * `home`: the directory `./.keyside` with store, configuration and example step.
//! * `agent`: the agent as a child process, with its socket in a directory of its own.
//! * `interrupt`: signals while all of this runs, so that nothing is left behind.

mod agent;
mod home;
mod interrupt;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use keyside_protocol::code::Code;
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::{CheckReply, CheckRequest};
use keyside_protocol::value::{SecretValue, SecretValues};
use zeroize::Zeroizing;

use self::agent::RunningAgent;
use self::home::Home;
use self::interrupt::Interrupts;
use crate::args::QuickstartArgs;
use crate::exit::{Exit, Failure, of_problem};
use crate::globals::Globals;
use crate::output::{io_text, printable, say};
use crate::session;

/// The example secret.
const NAME: &str = "mlflow_secret";
/// What the example step is given, and what is checked first.
const REFERENCES: [&str; 2] = ["{{mlflow_secret.username}}", "{{mlflow_secret.password}}"];

/// Makes what is missing, runs the step, stops the agent; the exit code is the step's.
pub(super) fn run(globals: &Globals, args: &QuickstartArgs) -> Result<Exit, Failure> {
    let interrupts = Interrupts::catch()?;
    let home = Home::open()?;
    say(&match home.is_new {
        true => format!("keyside: made a ZenML secrets store in {}", home.shown()),
        false => format!("keyside: using the store in {}", home.shown()),
    });
    let step = if args.command.is_empty() { example_step(&home)? } else { args.command.clone() };

    let mut agent = RunningAgent::start(globals, &home)?;
    agent.wait_until_ready(globals, &interrupts)?;
    say(&format!("keyside: the agent listens on {}", printable(&agent.socket().to_string_lossy())));

    let globals = agent.globals(globals);
    create_example(&globals)?;
    check_examples(&globals)?;
    interrupts.check()?;

    let shown = printable(&step[0].to_string_lossy()).into_owned();
    say(&format!("keyside: running {shown} with MLFLOW_TRACKING_PASSWORD and the file mlflow_credentials"));
    let exit = run_step(&home, &agent, &step, &interrupts)?;
    agent.stop();
    say(&format!("keyside: {shown} ended with {}; the agent has stopped", exit.code()));
    if exit == Exit::Passed(0) && args.command.is_empty() {
        say("hint: run your own step with `keyside quickstart -- CMD`");
    }
    Ok(exit)
}

/// Returns the example step: Python, or the shell where there is none.
fn example_step(home: &Home) -> Result<Vec<OsString>, Failure> {
    if on_path("python3") {
        return Ok(vec![
            "python3".into(),
            home.example("train.py", include_str!("../../../examples/train.py"))?.into(),
        ]);
    }
    say("keyside: python3 is not on PATH; the example step is a shell script instead");
    Ok(vec!["sh".into(), home.example("train.sh", include_str!("../../../examples/train.sh"))?.into()])
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| {
        rustix::fs::access(dir.join(program), rustix::fs::Access::EXEC_OK).is_ok() && dir.join(program).is_file()
    })
}

/// Creates the example secret unless it is there; through the socket, like anybody else.
fn create_example(globals: &Globals) -> Result<(), Failure> {
    let doing = "create the example secret";
    let values: SecretValues =
        [("username".to_owned(), SecretValue::copy_of(b"admin")), ("password".to_owned(), random_password()?)]
            .into_iter()
            .collect();
    let body = super::secret::create_body(NAME, false, &values);
    let mut session = session::Session::open(globals)?;
    // expose: into the agent's socket.
    let reply = session.send(doing, "POST", "/v1/secrets", &[], Some(body.expose()))?;
    match reply.problem() {
        None if reply.status == 201 => {
            let keys: Vec<&str> = values.keys().collect();
            say(&format!("keyside: created the secret {NAME} with the keys {}", keys.join(", ")));
            Ok(())
        }
        None => Err(Failure::new(Exit::Unavailable, format!("cannot {doing}: the agent answered {}", reply.status))),
        Some(problem) if problem.code == Code::Conflict => Ok(()),
        Some(problem) => Err(of_problem(doing, problem)),
    }
}

/// A password of 24 characters, so that no two stores share one and nobody knows it beforehand.
fn random_password() -> Result<SecretValue, Failure> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Zeroizing::new([0_u8; 24]);
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut *bytes))
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot read /dev/urandom: {}", io_text(&error))))?;
    let password: Zeroizing<Vec<u8>> =
        Zeroizing::new(bytes.iter().map(|byte| ALPHABET[usize::from(byte & 63)]).collect());
    Ok(SecretValue::copy_of(&password))
}

fn check_examples(globals: &Globals) -> Result<(), Failure> {
    let request = CheckRequest {
        references: REFERENCES.map(str::to_owned).to_vec(),
        level: Some(ValidationLevel::SecretAndKeyExists.to_string()),
        no_cache: true,
    };
    let doing = "check the example references";
    let mut session = session::Session::open(globals)?;
    let reply: CheckReply = session.ask(doing, "POST", "/v1/check", Some(&session::to_json(&request)))?;
    let lines: Vec<String> =
        reply.results.iter().map(|result| format!("{}: {}", result.reference, result.status.as_str())).collect();
    say(&format!("keyside: checked {}", printable(&lines.join(", "))));
    if reply.ok {
        return Ok(());
    }
    Err(Failure::new(Exit::No, "the example references do not pass").hint("remove ./.keyside to start over"))
}

/// Returns PATH with this program's own directory at its end: in the step, `keyside` is found even where it is not
/// installed yet.
fn path_with(program: &Path) -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    if let Some(directory) = program.parent() {
        path.push(":");
        path.push(directory);
    }
    path
}

/// Runs the step under the wrapper, as a user would, and waits for it.
fn run_step(home: &Home, agent: &RunningAgent, step: &[OsString], interrupts: &Interrupts) -> Result<Exit, Failure> {
    let program = session::current_program()?;
    let mut command = Command::new(&program);
    command
        .env("KEYSIDE_SOCKET", agent.socket())
        .env("PATH", path_with(&program))
        // Not the user's own [exec], which may name other secrets.
        .arg("--config")
        .arg(home.config())
        .args(["exec", "--env", "MLFLOW_TRACKING_PASSWORD={{mlflow_secret.password}}"])
        .args(["--file", "mlflow_credentials={{mlflow_secret.username}}:{{mlflow_secret.password}}", "--"])
        .args(step);
    let failed =
        |error: &std::io::Error| Failure::new(Exit::Unavailable, format!("cannot run the wrapper: {}", io_text(error)));
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    interrupts.forward_to(child.id());
    let status = child.wait();
    interrupts.forward_to_none();
    let status = status.map_err(|error| failed(&error))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Exit::Passed(u8::try_from(code).unwrap_or(u8::MAX)))
}
