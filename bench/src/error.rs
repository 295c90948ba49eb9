//! Everything that can end a run.

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The command line does not say what to measure.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was attempted.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// A server's answer is not the one that was to be measured.
    #[error("{target}: {what}")]
    Answer {
        /// The target's name.
        target: String,
        /// What came instead.
        what: String,
    },
    /// A measured command failed, so its time means nothing.
    #[error("{line}: {status}")]
    Command {
        /// The command line.
        line: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

impl BenchError {
    /// Names what was attempted beside the system's error.
    pub(crate) fn system<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }
}
