//! The command line, as written. Help with examples; the command word and what belongs to the wrapper or to `secret`
//! is told apart first, because both take arguments that no option parser may touch.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use keyside_protocol::level::ValidationLevel;
use keyside_protocol::units::Span;

use crate::exit::Failure;

/// Words of the interface that answer with a clear refusal until they are built.
const LATER: [&str; 4] = ["stack", "manager", "completions", "man"];

/// Global options that take a value, for finding the command word behind them.
const WITH_VALUE: [&str; 6] = ["--config", "--socket", "--log-format", "--color", "--agent-uid", "--agent"];

/// Secrets of ZenML pipeline steps: fetched by an agent, checked before the run, put into the step's process.
///
/// A step's author writes {{mlflow_secret.password}} and never sees where the value lives. The agent fetches and caches
/// secrets from ZenML's own stores; `keyside exec` starts a step with the values in its environment or in files.
#[derive(Parser, Debug)]
#[command(
    name = "keyside",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  keyside quickstart
  keyside check '{{mlflow_secret.password}}' --file stack.yaml
  keyside exec --env MLFLOW_TRACKING_PASSWORD='{{mlflow_secret.password}}' -- python train.py
  keyside get mlflow_secret.password

Exit codes: 0 done; 1 the answer is no; 2 usage; 69 the agent or a back-end cannot be reached;
77 the agent refuses; 78 configuration. `exec` ends as its command ends, or with 125, 126, 127.
`keyside COMMAND --help` says more. Options above stand before the command word."
)]
pub struct Cli {
    /// Options for every command.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that stand before the command word.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Options for every command")]
pub struct GlobalArgs {
    /// Configuration file [env: KEYSIDE_CONFIG] [default: keyside/keyside.toml under $XDG_CONFIG_HOME, then /etc]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The agent's socket [env: KEYSIDE_SOCKET]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where the agent comes from: auto starts a private one when no socket was named and none is there
    #[arg(long, value_name = "auto|socket|embedded", hide_possible_values = true)]
    pub agent: Option<AgentArg>,
    /// Trust an agent of this uid, beside root's and one's own [env: KEYSIDE_AGENT_UID]
    #[arg(long, value_name = "UID", value_parser = uid)]
    pub agent_uid: Option<u32>,
    /// The agent's log lines
    #[arg(long, value_name = "text|json", hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
    /// Log more; repeat for still more [env: KEYSIDE_LOG, a filter such as `info` or `keyside=trace`]
    #[arg(short, long, action = clap::ArgAction::Count, overrides_with = "quiet")]
    pub verbose: u8,
    /// Log less; repeat for still less
    #[arg(short, long, action = clap::ArgAction::Count, overrides_with = "verbose")]
    pub quiet: u8,
    /// Colours [env: NO_COLOR]
    #[arg(long, value_name = "auto|always|never", hide_possible_values = true)]
    pub color: Option<ColorArg>,
}

/// `--agent`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentArg {
    /// The socket, or a private agent where there is none.
    Auto,
    /// The socket alone.
    Socket,
    /// A private agent.
    Embedded,
}

/// `--log-format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `--color`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorArg {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The commands, in the order people meet them.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// From nothing to a step with secrets: makes a store, starts an agent, runs a command
    ///
    /// Makes a ZenML secrets store (SQLite) with the example secret `mlflow_secret` in ./.keyside, starts an agent on
    /// it, checks the example references, runs CMD with MLFLOW_TRACKING_PASSWORD and one file, and stops the agent. A
    /// second run reuses the store. CMD may use `keyside` too: the socket is in KEYSIDE_SOCKET.
    #[command(after_help = "\
Examples:
  keyside quickstart                      run the Python example step
  keyside quickstart -- ./train.sh        run your own step
  keyside quickstart -- sh                look around; `keyside get mlflow_secret.username` works inside

Remove ./.keyside to start over.")]
    Quickstart(QuickstartArgs),
    /// Run the agent in the foreground
    #[command(after_help = "\
Examples:
  keyside agent
  keyside --config keyside.toml --socket /run/keyside/agent.sock agent
  keyside agent --check-config            print every mistake as FILE:LINE:COLUMN

Without a configured back-end the agent configures itself from ZenML's own environment
(ZENML_STORE_URL, ZENML_CONFIG_PATH, ~/.config/zenml). SIGTERM ends it gracefully.")]
    Agent(AgentArgs),
    /// Run a command with secrets in its environment or in files (alias: run)
    #[command(alias = "run", disable_help_flag = true)]
    Exec,
    /// Say whether references are there, all at once
    #[command(after_help = "\
Examples:
  keyside check '{{mlflow_secret.password}}' db.user
  keyside check --file stack.yaml --file .env
  keyside check --env                     references in this environment
  grep -oh '{{[^}]*}}' *.py | keyside check -
  keyside check --file stack.yaml --format github

The level is --level, else ZENML_SECRET_VALIDATION_LEVEL, else the agent's own.
Exit code: 0 all there; 1 one is definitely not; 69 one cannot be known now.")]
    Check(CheckArgs),
    /// Print one value, or a whole secret
    ///
    /// With a key, the value's bytes as they are, with a newline only on a terminal. With --format, or without a key,
    /// the pairs of the secret; the format is json then unless another is asked for.
    #[command(after_help = "\
Examples:
  keyside get mlflow_secret.password
  keyside get '{{mlflow_secret.password}}'
  keyside get my.dotted.name --key password   NAME is not cut at a dot then
  keyside get db --format json
  set -a; eval \"$(keyside get db --format env)\"; set +a")]
    Get(GetArgs),
    /// Create, list, show, change and delete secrets, in ZenML's words
    #[command(disable_help_flag = true)]
    Secret,
    /// Show the agent at a glance
    #[command(after_help = "\
Examples:
  keyside status
  keyside status --watch                  again every second, until interrupted
  keyside status --watch --format json    one object a line")]
    Status(StatusArgs),
    /// Say what is wrong or weak on this host, and what to do
    ///
    /// Looks at the kernel, memory, files, the configuration and the agent's socket, and asks a running agent. Each
    /// mechanism is secure, weak or insecure; what works is ok, what does not is wrong. Changes nothing, shows no value.
    #[command(after_help = "\
Examples:
  keyside doctor
  keyside doctor --format json | jq '.findings[] | select(.verdict == \"weak\")'
  sudo -u keyside keyside --config /etc/keyside/keyside.toml doctor

Exit code: 0 when nothing is insecure or wrong; 1 when something is.")]
    Doctor(DoctorArgs),
    /// Say whether the agent is ready: exit code 0 or 69
    #[command(after_help = "\
Examples:
  keyside ready
  keyside ready --wait 30s                also waits for the socket to appear

Without --wait an agent that does not answer within 3s is not ready; with it, the wait ends on time.")]
    Ready(ReadyArgs),
    /// Say whether the agent lives: exit code 0 or 69
    #[command(after_help = "\
Example:
  keyside health

An agent that does not answer within 3s does not live.")]
    Health,
    /// Print a line for each change of a secret, as it happens
    ///
    /// A line is an event (change, delete, stale, fresh), a name and the agent's revision; never a value. When the agent
    /// goes away it is tried again, and what changed meanwhile is told; after a restart of the agent everything counts as
    /// changed.
    #[command(after_help = "\
Examples:
  keyside watch db mlflow_secret
  keyside watch db --format json | while read -r line; do ./reload.sh; done

Exit code: 69 when no agent can be reached at first; 1 when a name is outside the grant; 77 refused.
A name of which no secret exists yet is waited for.")]
    Watch(WatchArgs),
    /// Have the agent forget secrets now: all of them, or those named
    #[command(after_help = "\
Examples:
  keyside purge                           everything
  keyside purge db mlflow_secret

Needs `admin = true` in a grant; without any grant the agent's own user may.")]
    Purge(PurgeArgs),
    /// For those who write a plug-in back-end
    #[cfg(feature = "plugin")]
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(PluginCommand),
}

/// `plugin`.
#[cfg(feature = "plugin")]
#[derive(Subcommand, Debug)]
pub enum PluginCommand {
    /// Examine a plug-in from the outside: does it keep what docs/plugin-protocol.md promises?
    ///
    /// Starts CMD as the agent would, asks it about the secrets it has and about some that it cannot have, many at the
    /// same time, and prints a line for each promise: passed, failed or skipped. No value is printed.
    #[command(after_help = "\
Examples:
  keyside plugin test -- ./my-plugin --store /etc/my-store
  keyside plugin test --writes -- python3 plugin.py secrets.json
  keyside -v plugin test --env STORE_URL=https://store.example.com -- ./my-plugin
  keyside plugin test --format json -- ./my-plugin | jq '.findings[] | select(.verdict == \"failed\")'

CMD gets PATH, HOME, LANG, LC_ALL, TZ and TMPDIR of this environment and what --env adds, as under the agent.
With -v its own log lines are shown.

Exit code: 0 when no promise is broken; 1 when one is, or when CMD cannot be run.")]
    Test(PluginTestArgs),
}

/// `plugin test`.
#[cfg(feature = "plugin")]
#[derive(Args, Debug)]
pub struct PluginTestArgs {
    /// Also make a secret `keyside-plugin-test-...`, change it and delete it
    #[arg(long)]
    pub writes: bool,
    /// A variable for CMD; repeat for more
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub env: Vec<(String, String)>,
    /// How long one answer may take
    #[arg(long, value_name = "TIME", default_value = "8s")]
    pub timeout: Span,
    /// How to print
    #[arg(long, default_value = "text")]
    pub format: PluginFormat,
    /// The plug-in and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `plugin test --format`.
#[cfg(feature = "plugin")]
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginFormat {
    /// A line a promise.
    Text,
    /// One object: `ok` and `findings`.
    Json,
}

#[cfg(feature = "plugin")]
fn assignment(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not of the form NAME=VALUE"),
    }
}

fn uid(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "it is no uid, which is a number such as 1000")
}

/// `quickstart`.
#[derive(Args, Debug)]
pub struct QuickstartArgs {
    /// The step [default: the Python example]
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Read the configuration, print every mistake, and stop: exit code 0 or 78
    #[arg(long, conflicts_with_all = ["fd", "exit_with_last_client"])]
    pub check_config: bool,
    /// Serve the one connection on descriptor N and nothing else (embedded mode)
    #[arg(long, value_name = "N")]
    pub fd: Option<i32>,
    /// Stop when the last client has gone
    #[arg(long)]
    pub exit_with_last_client: bool,
}

/// `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// References: `{{name.key}}`, or name.key; `-` reads them from standard input, one a line
    #[arg(value_name = "REF")]
    pub references: Vec<OsString>,
    /// Every reference in a YAML, JSON, TOML or dotenv file; repeat for more files
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Every reference in this process's environment
    #[arg(long)]
    pub env: bool,
    /// Every reference in a ZenML stack: an exported file, or its name on the ZenML server; the active one without either
    #[arg(long, num_args = 0..=1, value_name = "FILE or NAME")]
    pub stack: Option<Option<OsString>>,
    /// NONE, SECRET_EXISTS or SECRET_AND_KEY_EXISTS
    #[arg(long)]
    pub level: Option<ValidationLevel>,
    /// Ask the back-ends even for what the agent knows
    #[arg(long)]
    pub no_cache: bool,
    /// How to print
    #[arg(long, default_value = "text")]
    pub format: CheckFormat,
}

/// `check --format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFormat {
    /// A line a place.
    Text,
    /// One JSON object.
    Json,
    /// A JUnit report.
    Junit,
    /// GitHub workflow commands.
    Github,
}

/// `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// NAME, NAME.KEY or `{{NAME.KEY}}`, cut at the first dot
    #[arg(value_name = "NAME[.KEY]")]
    pub name: String,
    /// The key; NAME is then taken as it stands
    #[arg(long)]
    pub key: Option<String>,
    /// Print as pairs
    #[arg(long)]
    pub format: Option<PairFormat>,
    /// Only this back-end
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
    /// Only this scope: private, public, user or workspace
    #[arg(long, value_name = "SCOPE", value_parser = ["private", "public", "user", "workspace"], hide_possible_values = true)]
    pub scope: Option<String>,
}

/// `get --format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairFormat {
    /// One JSON object.
    Json,
    /// Shell assignments, quoted for `eval`.
    Env,
    /// A dotenv file.
    Dotenv,
    /// A flat YAML mapping.
    Yaml,
}

/// `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// How to print
    #[arg(long, default_value = "text")]
    pub format: StatusFormat,
    /// Again every second, until interrupted or the agent is gone
    #[arg(short, long)]
    pub watch: bool,
}

/// `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to print
    #[arg(long, default_value = "text")]
    pub format: DoctorFormat,
}

/// `doctor --format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoctorFormat {
    /// A line a finding, and its advice.
    Text,
    /// One object: `ok` and `findings`.
    Json,
}

/// `status --format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFormat {
    /// Lines for people.
    Text,
    /// The agent's own answer.
    Json,
}

/// `ready`.
#[derive(Args, Debug)]
pub struct ReadyArgs {
    /// How long to wait for it, such as 30s or 2m
    #[arg(long, value_name = "TIME", default_value = "0")]
    pub wait: Span,
}

/// `watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The secrets
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// How to print
    #[arg(long, default_value = "text")]
    pub format: WatchFormat,
}

/// `watch --format`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `purge`.
#[derive(Args, Debug)]
pub struct PurgeArgs {
    /// Only these secrets
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// A command, with the arguments behind its word where they are not ours to parse.
    Run(Box<Cli>, Vec<OsString>),
    /// Text for standard output: help or the version.
    Print(String),
}

/// Parses the arguments (the program's name first). `color` is for help.
///
/// Errors: a wrong command line (exit code 2).
pub fn parse(args: &[OsString], color: bool) -> Result<Parsed, Failure> {
    let Some(at) = command_word(args) else { return parse_ours(args, color).map(|parsed| parsed.with(Vec::new())) };
    let (head, word, rest) = (&args[..at], args[at].to_string_lossy(), &args[at + 1..]);
    match &*word {
        "help" => {
            let mut args = head.to_vec();
            args.extend(rest.iter().cloned());
            args.push("--help".into());
            // `help` alone, or before options, is `--help`.
            if rest.is_empty() {
                parse_ours(&args, color).map(|parsed| parsed.with(Vec::new()))
            } else {
                parse(&args, color)
            }
        }
        "exec" | "run" | "secret" => parse_ours(&args[..=at], color).map(|parsed| parsed.with(rest.to_vec())),
        #[cfg(not(feature = "plugin"))]
        "plugin" => {
            Err(Failure::usage("this program was built without `plugin`").hint("build it with `--features plugin`"))
        }
        later if LATER.contains(&later) => {
            // Wrong options before the word are still the first thing to say.
            Err(Failure::not_yet(later).hint("`keyside --help` lists the commands"))
        }
        _ => parse_ours(args, color).map(|parsed| parsed.with(Vec::new())),
    }
}

impl Parsed {
    fn with(self, rest: Vec<OsString>) -> Self {
        match self {
            Self::Run(cli, _) => Self::Run(cli, rest),
            print => print,
        }
    }
}

/// Returns the index of the first argument that is neither a global option nor the value of one.
pub fn command_word(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let text = arg.to_string_lossy();
        if WITH_VALUE.contains(&&*text) {
            at += 2;
        } else if text.starts_with('-') && text.len() > 1 {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

/// Says where a command line that was wrong without other advice is explained.
pub fn where_to_look(args: &[OsString]) -> String {
    match command_word(args) {
        Some(at) => format!("see `keyside {} --help`", crate::output::printable(&args[at].to_string_lossy())),
        None => "see `keyside --help`".to_owned(),
    }
}

/// Tells whether the command word is the wrapper's, for which every failure has one exit code.
pub fn is_exec(args: &[OsString]) -> bool {
    command_word(args).is_some_and(|at| args[at] == OsStr::new("exec") || args[at] == OsStr::new("run"))
}

/// Tells whether standard error is to hold JSON alone: the log of an agent whose `--log-format` says so. The mistakes that
/// `--check-config` prints have a form of their own.
pub fn logs_json(args: &[OsString]) -> bool {
    let Some(at) = command_word(args) else { return false };
    let (head, rest) = args.split_at(at);
    let is_json = head.windows(2).any(|pair| pair[0] == "--log-format" && pair[1] == "json")
        || head.iter().any(|arg| arg == "--log-format=json");
    is_json && rest[0] == "agent" && !rest.iter().any(|arg| arg == "--check-config")
}

fn parse_ours(args: &[OsString], color: bool) -> Result<Parsed, Failure> {
    let matches = match Cli::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return explain(&error, args, color),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli), Vec::new())),
        Err(error) => explain(&error, args, color),
    }
}

/// Puts clap's word into our form.
fn explain(error: &clap::Error, args: &[OsString], color: bool) -> Result<Parsed, Failure> {
    let rendered = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Ok(Parsed::Print(if color { rendered.ansi().to_string() } else { rendered.to_string() }));
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return Err(
                Failure::usage("no command").hint("`keyside --help` lists the commands; try `keyside quickstart`")
            );
        }
        _ => {}
    }
    let text = rendered.to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ").replace('\'', "`");
    // An argument that may be repeated ends in three.
    let what = what.trim_end_matches('.').to_owned();
    let tip = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    let hint = misplaced_global(error)
        .or_else(|| tip.map(|tip| tip.lines().next().unwrap_or_default().replace('\'', "`")))
        .unwrap_or_else(|| match command_word(args) {
            Some(at) if error.kind() != ErrorKind::InvalidSubcommand => {
                format!("see `keyside {} --help`", args[at].to_string_lossy())
            }
            _ => "see `keyside --help`".into(),
        });
    Err(Failure::usage(crate::output::printable(&what)).hint(crate::output::printable(&hint)))
}

/// `keyside get x --socket y`: the option exists, in another place.
fn misplaced_global(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let name = arg.split('=').next().unwrap_or(arg);
    let global = WITH_VALUE.contains(&name) || ["--verbose", "--quiet", "-v", "-q"].contains(&name);
    (error.kind() == ErrorKind::UnknownArgument && global).then(|| format!("`{name}` stands before the command word"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        std::iter::once("keyside").chain(words.iter().copied()).map(OsString::from).collect()
    }

    fn failure(words: &[&str]) -> Failure {
        parse(&args(words), false).expect_err("a wrong command line")
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_behind_exec_is_left_as_it_stands() {
        for word in ["exec", "run"] {
            let words = ["--socket", "exec", word, "--help", "--", "-v", "--", ""];
            let Ok(Parsed::Run(cli, rest)) = parse(&args(&words), false) else { panic!("{word}") };
            assert_eq!(cli.globals.socket, Some("exec".into()));
            assert!(matches!(cli.command, Command::Exec));
            assert_eq!(rest, ["--help", "--", "-v", "--", ""]);
        }
    }

    #[test]
    fn a_global_option_behind_the_word_is_explained() {
        let failure = failure(&["get", "a.b", "--socket", "/x"]);
        assert_eq!(failure.hint.as_deref(), Some("`--socket` stands before the command word"));
    }

    #[test]
    fn words_of_later_versions_say_so() {
        for word in LATER {
            let failure = failure(&[word, "--anything"]);
            assert_eq!(failure.what, format!("`{word}` is not in this version yet"));
            assert_eq!(failure.exit.code(), 2);
        }
    }

    #[test]
    fn a_typing_error_gets_a_suggestion() {
        assert!(failure(&["chekc"]).hint.expect("a hint").contains("check"));
        assert!(failure(&["check", "--flie", "x"]).hint.expect("a hint").contains("--file"));
    }

    #[test]
    fn an_unknown_level_lists_the_three() {
        for level in ["", "none"] {
            let failure = failure(&["check", "--level", level, "a.b"]);
            assert_eq!(failure.exit.code(), 2);
            assert!(failure.what.contains("NONE, SECRET_EXISTS, SECRET_AND_KEY_EXISTS"), "{}", failure.what);
        }
    }
}
