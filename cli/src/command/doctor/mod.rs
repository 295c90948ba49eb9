//! `doctor`: what is wrong or weak on this host, and what to do. It looks, asks a running agent, and changes nothing;
//! no check reads a value.

mod agent;
mod configuration;
mod files;
mod finding;
mod kernel;
mod memory;
mod ownership;

use keyside_exec_wrapper::socket::Located;

use crate::args::{DoctorArgs, DoctorFormat};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, say, stdout_is_terminal};
use finding::{Findings, Verdict};

/// Prints every finding; 1 when one of them is insecure or wrong.
pub(super) fn run(globals: &Globals, args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut findings = Findings::default();
    kernel::look(&mut findings);
    let place = agent::place(globals);
    let configured = configuration::look(globals, place != Located::Nowhere, &mut findings);
    memory::look(&configured.budgets, &mut findings);
    files::look(&mut findings);
    let status = agent::look(globals, place, &configured, &mut findings);
    memory::locked_memory(&configured.budgets, status.as_ref(), &mut findings);

    let text = match args.format {
        DoctorFormat::Text => findings.text(globals.color_for(stdout_is_terminal())),
        DoctorFormat::Json => findings.json(),
    };
    print(text.as_bytes())?;
    let count = |verdicts: &[Verdict]| findings.count(verdicts);
    let (bad, weak) = (count(&[Verdict::Insecure, Verdict::Wrong]), count(&[Verdict::Weak]));
    if globals.verbosity >= 0 {
        let shown = if bad == 0 { "nothing".to_owned() } else { bad.to_string() };
        say(&format!("keyside: {shown} insecure or wrong, {weak} weak"));
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::No })
}
