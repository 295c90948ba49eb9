//! The command line, parsed into plans.

use std::time::Duration;

use crate::error::BenchError;
use crate::target::{Protocol, Target};

pub(crate) const USAGE: &str = "\
usage: keyside-bench load   [OPTIONS] TARGET...              closed-loop load, targets side by side
       keyside-bench spawn  [OPTIONS] -- CMD [--and CMD ...] spawn-to-exit time of commands, in turn
       keyside-bench start  [OPTIONS] TARGET... -- CMD [--and CMD ...]
                                                             spawn of each target's server to its first answer
       keyside-bench memory [OPTIONS] TARGET...              resident before, after one key and after all are asked for
       keyside-bench crowd  [OPTIONS] TARGET...              a reader alone, and beside --count idle connections
       keyside-bench serve-echo --socket PATH                the floor's server alone

A TARGET begins with --socket PATH; what follows belongs to it:
  --http PATH    GET PATH over one kept connection ({n}: key number; default /)
  --body FILE    POST that file, a JSON text, to PATH instead
  --line TEXT    TEXT and a newline out, one line back ({n}: key number)
  --echo BYTES   BYTES out, the same BYTES back
  --idle PATH    what each idle connection of a crowd has asked for (default /)
  --keys N       {n} runs over 0..N (default 1)
  --fresh        a new connection for each request, one at a time
  --name NAME    its name in the tables

OPTIONS come before the first TARGET:
  --echo-floor N      begin with a blocking echo server of N bytes: the floor of the ratios
  --connections 1,64  connections at once (default 1)
  --count N           idle connections of a crowd (default 1000)
  --rounds N          rounds (default 5); for spawn and start: runs of each command (default 200)
  --seconds S         length of one slice (default 1)
  --warmup S          uncounted load on each target before its first slice (default 0.3)
  --pin CPU           client and servers all on this CPU, so that no wake-up crosses CPUs
  --label TEXT        stands in each row, to tell one measurement from another
  --json              one JSON object a row instead of a table";

/// What one invocation does.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    ServeEcho { socket: String },
    Load(LoadPlan),
    Spawn(SpawnPlan),
    Start(StartPlan),
    Memory(LoadPlan),
    Crowd(LoadPlan),
}

/// Load on targets, side by side.
#[derive(Debug)]
pub(crate) struct LoadPlan {
    pub(crate) targets: Vec<Target>,
    pub(crate) echo_floor: Option<usize>,
    pub(crate) connections: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    pub(crate) warmup: Duration,
    /// Idle connections of a crowd.
    pub(crate) count: usize,
    pub(crate) pin: Option<usize>,
    pub(crate) style: Style,
}

/// Commands to start in turn; the first is the floor of the ratios.
#[derive(Debug)]
pub(crate) struct SpawnPlan {
    pub(crate) commands: Vec<Vec<String>>,
    pub(crate) runs: usize,
    pub(crate) pin: Option<usize>,
    pub(crate) style: Style,
}

/// Servers to start in turn, each with its socket; the first is the floor of the ratios.
#[derive(Debug)]
pub(crate) struct StartPlan {
    pub(crate) targets: Vec<Target>,
    pub(crate) spawn: SpawnPlan,
}

/// How rows are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Style {
    pub(crate) json: bool,
    pub(crate) label: String,
}

/// Parses the arguments after the program's name.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, BenchError> {
    let (mode, rest) = arguments.split_first().ok_or_else(|| usage("no mode"))?;
    let split = rest.iter().position(|argument| argument == "--").unwrap_or(rest.len());
    let (flags, commands) = rest.split_at(split);
    let asks_help = |argument: &String| argument == "--help" || argument == "-h";
    if asks_help(mode) || flags.iter().any(asks_help) {
        return Ok(Command::Help);
    }
    let flags = Flags::parse(flags)?;
    match mode.as_str() {
        "load" => Ok(Command::Load(flags.into_load()?)),
        "memory" => Ok(Command::Memory(flags.into_load()?)),
        "crowd" => Ok(Command::Crowd(flags.into_load()?)),
        "spawn" => Ok(Command::Spawn(flags.spawn(commands)?)),
        "start" => {
            let spawn = flags.spawn(commands)?;
            if spawn.commands.len() != flags.targets.len() {
                return Err(usage("each target needs its command, in the same order"));
            }
            Ok(Command::Start(StartPlan { targets: flags.targets, spawn }))
        }
        "serve-echo" => match flags.targets.first() {
            Some(target) => Ok(Command::ServeEcho { socket: target.socket.clone() }),
            None => Err(usage("serve-echo needs --socket PATH")),
        },
        other => Err(usage(format!("{other}: unknown mode"))),
    }
}

struct Flags {
    targets: Vec<Target>,
    echo_floor: Option<usize>,
    connections: Vec<usize>,
    rounds: Option<usize>,
    slice: Duration,
    warmup: Duration,
    count: usize,
    pin: Option<usize>,
    style: Style,
}

impl Flags {
    fn into_load(self) -> Result<LoadPlan, BenchError> {
        if self.targets.is_empty() && self.echo_floor.is_none() {
            return Err(usage("no target"));
        }
        Ok(LoadPlan {
            targets: self.targets,
            echo_floor: self.echo_floor,
            connections: self.connections,
            rounds: self.rounds.unwrap_or(5),
            slice: self.slice,
            warmup: self.warmup,
            count: self.count,
            pin: self.pin,
            style: self.style,
        })
    }

    /// Takes the commands after `--`.
    fn spawn(&self, commands: &[String]) -> Result<SpawnPlan, BenchError> {
        // Only the first `--` is ours: a wrapper's own one separates its flags from its command.
        let commands: Vec<_> = commands
            .get(1..)
            .unwrap_or_default()
            .split(|argument| argument == "--and")
            .filter(|line| !line.is_empty())
            .map(<[String]>::to_vec)
            .collect();
        if commands.is_empty() {
            return Err(usage("no command after --"));
        }
        Ok(SpawnPlan { commands, runs: self.rounds.unwrap_or(200), pin: self.pin, style: self.style.clone() })
    }

    fn parse(arguments: &[String]) -> Result<Self, BenchError> {
        let mut flags = Self {
            targets: Vec::new(),
            echo_floor: None,
            connections: vec![1],
            rounds: None,
            slice: Duration::from_secs(1),
            warmup: Duration::from_millis(300),
            count: 1000,
            pin: None,
            style: Style::default(),
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| usage(format!("{flag} needs a value")));
            match flag.as_str() {
                "--socket" => flags.targets.push(Target::new(value()?.clone())),
                "--echo-floor" => flags.echo_floor = Some(number(flag, value()?)?),
                "--connections" => {
                    flags.connections =
                        value()?.split(',').map(|count| number(flag, count)).collect::<Result<_, _>>()?;
                }
                "--rounds" => flags.rounds = Some(number(flag, value()?)?),
                "--seconds" => flags.slice = seconds(flag, value()?)?,
                "--warmup" => flags.warmup = seconds(flag, value()?)?,
                "--pin" => flags.pin = Some(number(flag, value()?)?),
                "--count" => flags.count = number(flag, value()?)?,
                "--label" => flags.style.label.clone_from(value()?),
                "--json" => flags.style.json = true,
                _ => {
                    let target = flags
                        .targets
                        .last_mut()
                        .ok_or_else(|| usage(format!("{flag}: unknown, or before any --socket")))?;
                    match flag.as_str() {
                        "--http" => target.protocol = Protocol::Http { path: value()?.clone(), body: None },
                        "--body" => target.give_body(value()?)?,
                        "--line" => target.protocol = Protocol::Line { request: value()?.clone() },
                        "--idle" => target.idle.clone_from(value()?),
                        "--echo" => target.protocol = Protocol::Echo { size: number(flag, value()?)? },
                        "--keys" => target.keys = number(flag, value()?)?,
                        "--name" => target.name.clone_from(value()?),
                        "--fresh" => target.fresh = true,
                        _ => return Err(usage(format!("{flag}: unknown"))),
                    }
                }
            }
        }
        Ok(flags)
    }
}

fn number(flag: &str, text: &str) -> Result<usize, BenchError> {
    text.parse().map_err(|_| usage(format!("{flag}: {text:?} is not a whole number")))
}

fn seconds(flag: &str, text: &str) -> Result<Duration, BenchError> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| usage(format!("{flag}: {text:?} is not a number of seconds")))
}

fn usage(what: impl Into<String>) -> BenchError {
    BenchError::Usage(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, BenchError> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_after_a_socket_belong_to_that_target() {
        let line = "load --echo-floor 1024 --socket /a --http /x/{n} --keys 3 --socket /b --echo 8 --fresh";
        let Ok(Command::Load(plan)) = parse_line(line) else { panic!("not a load plan") };
        assert_eq!(plan.echo_floor, Some(1024));
        assert!(matches!(&plan.targets[0].protocol, Protocol::Http { path, body: None } if path == "/x/{n}"));
        assert_eq!((plan.targets[0].keys, plan.targets[0].fresh), (3, false));
        assert!(matches!(plan.targets[1].protocol, Protocol::Echo { size: 8 }));
        assert!(plan.targets[1].fresh);
    }

    #[test]
    fn commands_are_cut_at_and_but_keep_their_own_flags() {
        let Ok(Command::Spawn(plan)) = parse_line("spawn --rounds 7 -- /bin/true --and env --help -- x") else {
            panic!("not a spawn plan")
        };
        assert_eq!(plan.runs, 7);
        assert_eq!(plan.commands, [vec!["/bin/true"], vec!["env", "--help", "--", "x"]]);
    }

    #[test]
    fn what_cannot_be_measured_is_a_usage_error() {
        for line in [
            "",
            "load",
            "load --http /x",
            "load --rounds many --socket /a",
            "load --socket /a --body /missing/body.json",
            "spawn --",
            "start --socket /a -- server --and another",
            "memory",
            "crowd --count 5",
            "serve-echo",
            "fly",
        ] {
            assert!(matches!(parse_line(line), Err(BenchError::Usage(_))), "{line:?} was accepted");
        }
    }
}
