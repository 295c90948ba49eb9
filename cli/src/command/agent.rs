//! `agent`: the agent in the foreground, or a look at its configuration.

use keyside_agent::listen::activation;
use keyside_agent::{RunOptions, notify};

use crate::args::AgentArgs;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{log, output, session, sys};

/// Runs until a signal, or until the last client has gone.
pub(super) fn run(globals: &Globals, args: &AgentArgs) -> Result<Exit, Failure> {
    // Before anything is read that could be secret.
    keyside_agent::harden().map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot protect this process's memory: {}", output::io_text(&error)))
            .hint("does a sandbox forbid prctl or setrlimit?")
    })?;
    if args.check_config {
        let settings = keyside_config::load(&session::load_request(globals)).map_err(session::list_of_mistakes)?;
        openable(&settings)?;
        output::print(b"configuration ok\n")?;
        return Ok(Exit::Done);
    }
    let embedded = match args.fd {
        None => None,
        Some(number) => {
            Some(sys::inherit_socket(number).map_err(|error| Failure::usage(format!("`--fd {number}`: it {error}")))?)
        }
    };
    // Before anything else opens descriptors or starts threads.
    let (handed_over, supervisor) = match &embedded {
        Some(_) => (Vec::new(), None),
        None => {
            let supervisor = notify::take_address();
            let sockets =
                activation::take().map_err(|error| Failure::new(Exit::Config, error.to_string()).hint(error.hint()))?;
            (sockets, supervisor)
        }
    };
    log::start(globals, embedded.is_some())?;
    let settings = load(globals)?;
    let options = RunOptions {
        embedded,
        exit_with_last_client: args.exit_with_last_client,
        handed_over,
        supervisor,
        runtime_directory: std::env::var_os("XDG_RUNTIME_DIR").map(Into::into),
        reload: Some(Box::new({
            let request = session::load_request(globals);
            move || keyside_config::load(&request)
        })),
    };
    match keyside_agent::run(settings, options) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => {
            let mut failure = Failure::new(Exit::Passed(error.exit_code()), output::printable(&error.to_string()));
            failure.hint = error.hint().map(str::to_owned);
            Err(failure)
        }
    }
}

/// Errors: what an agent would refuse to start with beyond what the words of its configuration say, such as a file of
/// authorities that is not there.
fn openable(settings: &keyside_config::Settings) -> Result<(), Failure> {
    let refusals = keyside_agent::backend::refusals(settings);
    if refusals.is_empty() {
        return Ok(());
    }
    let lines = refusals.iter().flat_map(|refusal| {
        std::iter::once(output::printable(&refusal.to_string()).into_owned())
            .chain(refusal.hint().map(|hint| format!("hint: {}", output::printable(hint))))
    });
    let count = refusals.len();
    let what = format!("{count} back-end{} cannot be opened", if count == 1 { "" } else { "s" });
    Err(Failure { lines: lines.collect(), ..Failure::new(Exit::Config, what) })
}

fn load(globals: &Globals) -> Result<keyside_config::Settings, Failure> {
    keyside_config::load(&session::load_request(globals)).map_err(session::bad_configuration)
}
