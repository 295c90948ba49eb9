//! How a command ends: its exit code, and the one way a failure becomes text and code.

use keyside_protocol::code::Code;
use keyside_protocol::message::Problem;

/// What the exit code says; `exec` and the step of `quickstart` have codes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and the answer is yes.
    Done,
    /// 1: the answer is no. Also when a result could not be written.
    No,
    /// 2: the command line is wrong.
    Usage,
    /// 69: the agent or a back-end cannot be reached.
    Unavailable,
    /// 77: the agent refuses the request.
    Refused,
    /// 78: a configuration file or variable is wrong.
    Config,
    /// Somebody else's code, passed on.
    Passed(u8),
}

impl Exit {
    /// Returns the number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unavailable => 69,
            Self::Refused => 77,
            Self::Config => 78,
            Self::Passed(code) => code,
        }
    }
}

/// Why a command failed: printed as `keyside: <what>` and `hint: <hint>`.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// Lines to print first, as they stand: one for each mistake in a configuration.
    pub lines: Vec<String>,
    /// What failed, lower case, no stop; never a value.
    pub what: String,
    /// What to try.
    pub hint: Option<String>,
    /// The agent's code, when it was the agent that refused.
    pub code: Option<Code>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, lines: Vec::new(), what: what.into(), hint: None, code: None }
    }

    /// A wrong command line.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A word of the interface that this version does not know yet.
    pub fn not_yet(word: &str) -> Self {
        Self::usage(format!("`{word}` is not in this version yet"))
    }

    /// The same failure with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Returns the exit code of a request that the agent answered with `code`.
pub fn of_code(code: Code) -> Exit {
    match code {
        Code::InvalidRequest | Code::InvalidReference => Exit::Usage,
        Code::SecretNotFound
        | Code::KeyNotFound
        | Code::Conflict
        | Code::PreconditionFailed
        | Code::TooLarge
        | Code::Unresolved => Exit::No,
        Code::PeerRefused | Code::BackendDenied | Code::ReadOnly => Exit::Refused,
        Code::TooManyRequests | Code::BackendUnavailable | Code::NotReady | Code::AuditUnavailable => Exit::Unavailable,
        // These four mean that the agent does not speak our language or is broken: no answer was had.
        Code::NotFound | Code::MethodNotAllowed | Code::LengthRequired | Code::Internal => Exit::Unavailable,
    }
}

/// Turns the agent's problem into a failure; `doing` says what was attempted, such as "read secret `db`".
pub fn of_problem(doing: &str, problem: Problem) -> Failure {
    let hint = problem.hint.or_else(|| match problem.code {
        Code::PeerRefused => Some("ask the operator for a [grant] that covers your uid".into()),
        Code::ReadOnly => Some("set `writable = true` for the back-end in the agent's configuration".into()),
        Code::NotFound | Code::MethodNotAllowed => {
            Some("the agent may be of another version; see `keyside status`".into())
        }
        Code::Internal => Some("the agent's log says more".into()),
        _ => None,
    });
    let what = match problem.code {
        // The route is ours: an unknown one is news about the agent, not about what was asked for.
        Code::NotFound | Code::MethodNotAllowed => format!("cannot {doing}: the agent does not know this request"),
        _ => format!("cannot {doing}: {}", crate::output::printable(&problem.detail)),
    };
    Failure { hint, code: Some(problem.code), ..Failure::new(of_code(problem.code), what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_ends_with_the_promised_number() {
        for (code, number) in [
            (Code::SecretNotFound, 1),
            (Code::KeyNotFound, 1),
            (Code::Conflict, 1),
            (Code::InvalidRequest, 2),
            (Code::BackendUnavailable, 69),
            (Code::NotReady, 69),
            (Code::AuditUnavailable, 69),
            (Code::TooManyRequests, 69),
            (Code::PeerRefused, 77),
            (Code::BackendDenied, 77),
            (Code::ReadOnly, 77),
        ] {
            assert_eq!(of_code(code).code(), number, "{code}");
        }
    }
}
