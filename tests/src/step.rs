//! A step in a shell under the wrapper, with an agent behind it that has what the steps ask for.

use crate::run::Run;
use crate::{Agent, Home};

/// An agent with the secrets of [`Home::stocked`].
pub fn agent(home: &Home) -> Agent<'_> {
    home.agent_with(&home.stocked().backend(""))
}

/// Runs `script` in a shell under the wrapper.
pub fn shell<'h>(home: &'h Home, agent: &Agent<'_>, args: &[&str], script: &str) -> Run<'h> {
    home.wrapper(args).with(agent).args(["--", "/bin/sh", "-c", script])
}

/// What a step that succeeds and may show values has printed.
pub fn printed(run: Run<'_>) -> String {
    run.prints_values().end().expect_code(0).text()
}
