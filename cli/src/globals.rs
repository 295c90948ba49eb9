//! The options for every command, as meant: flags over the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::{AgentArg, ColorArg, GlobalArgs, LogFormat};
use crate::exit::{Exit, Failure};

/// What every command may need.
#[derive(Debug, Clone)]
pub struct Globals {
    /// `--config` or `KEYSIDE_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--socket` or `KEYSIDE_SOCKET`.
    pub socket: Option<PathBuf>,
    /// `--agent`; `None` when the flag was not given.
    pub agent: Option<AgentArg>,
    /// `--agent-uid` or `KEYSIDE_AGENT_UID`.
    pub agent_uid: Option<u32>,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// `-v` counts up, `-q` counts down.
    pub verbosity: i16,
    /// `KEYSIDE_LOG`.
    pub log_filter: Option<String>,
    /// `--color`; `NO_COLOR` and a dumb terminal count for `auto`.
    pub color: ColorArg,
}

impl Globals {
    /// Lays the flags over the environment. An empty variable counts as unset.
    ///
    /// Errors: a variable that cannot be what it should be (78).
    pub fn new(args: &GlobalArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let agent_uid = match (args.agent_uid, variable("KEYSIDE_AGENT_UID")) {
            (Some(uid), _) => Some(uid),
            (None, Some(text)) => Some(text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Failure::new(Exit::Config, "KEYSIDE_AGENT_UID is no uid").hint("write a number, such as 1000")
            })?),
            (None, None) => None,
        };
        if args.config.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Failure::usage("`--config` needs the name of a file"));
        }
        if args.socket.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Failure::usage("`--socket` needs a path"));
        }
        Ok(Self {
            config: args.config.clone().or_else(|| variable("KEYSIDE_CONFIG").map(PathBuf::from)),
            socket: args.socket.clone().or_else(|| variable("KEYSIDE_SOCKET").map(PathBuf::from)),
            agent: args.agent,
            agent_uid,
            log_format: args.log_format.unwrap_or_default(),
            verbosity: i16::from(args.verbose) - i16::from(args.quiet),
            log_filter: variable("KEYSIDE_LOG").map(|filter| filter.to_string_lossy().into_owned()),
            color: color(args.color, variable),
        })
    }

    /// Tells whether to colour a stream that is, or is not, a terminal.
    pub fn color_for(&self, terminal: bool) -> bool {
        match self.color {
            ColorArg::Always => true,
            ColorArg::Never => false,
            ColorArg::Auto => terminal,
        }
    }
}

/// Decides `auto` as far as the environment can: `NO_COLOR` or `TERM=dumb` mean never.
pub fn color(flag: Option<ColorArg>, variable: impl Fn(&str) -> Option<OsString>) -> ColorArg {
    match flag {
        Some(ColorArg::Always) => ColorArg::Always,
        Some(ColorArg::Never) => ColorArg::Never,
        Some(ColorArg::Auto) | None => {
            let plain = variable("NO_COLOR").is_some_and(|value| !value.is_empty())
                || variable("TERM").is_some_and(|term| term == "dumb");
            if plain { ColorArg::Never } else { ColorArg::Auto }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |asked| (asked == name).then(|| value.into())
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let args = GlobalArgs { socket: Some("/flag".into()), agent_uid: Some(1), ..GlobalArgs::default() };
        let globals = Globals::new(&args, |_| Some("7".into())).expect("globals");
        assert_eq!((globals.socket, globals.agent_uid), (Some("/flag".into()), Some(1)));
        assert_eq!(globals.config, Some("7".into()));
    }

    #[test]
    fn a_bad_variable_is_a_configuration_error() {
        let failure = Globals::new(&GlobalArgs::default(), with("KEYSIDE_AGENT_UID", "me")).expect_err("no uid");
        assert_eq!(failure.exit.code(), 78);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let globals = Globals::new(&GlobalArgs::default(), |_| Some(OsString::new())).expect("globals");
        assert_eq!((globals.socket, globals.config), (None, None));
    }

    #[test]
    fn no_color_is_honoured_unless_the_flag_says_always() {
        assert_eq!(color(None, with("NO_COLOR", "1")), ColorArg::Never);
        assert_eq!(color(Some(ColorArg::Always), with("NO_COLOR", "1")), ColorArg::Always);
        assert_eq!(color(None, |_| None), ColorArg::Auto);
    }
}
