//! The command line, parsed into plans.

use std::time::Duration;

use crate::error::BenchError;
use crate::target::{Protocol, Target};

pub(crate) const USAGE: &str = "\
usage: keyside-bench load  [OPTIONS] TARGET...              closed-loop load, targets side by side
       keyside-bench spawn [OPTIONS] -- CMD [--and CMD ...] spawn-to-exit time of commands, in turn
       keyside-bench serve-echo --socket PATH               the floor's server alone

A TARGET begins with --socket PATH; what follows belongs to it:
  --http PATH    GET PATH over one kept connection ({n}: key number; default /)
  --echo BYTES   BYTES out, the same BYTES back
  --keys N       {n} runs over 0..N (default 1)
  --fresh        a new connection for each request, one at a time
  --name NAME    its name in the tables

OPTIONS come before the first TARGET:
  --echo-floor N      begin with a blocking echo server of N bytes: the floor of the ratios
  --connections 1,64  connections at once (default 1)
  --rounds N          rounds (default 5); for spawn: runs of each command (default 200)
  --seconds S         length of one slice (default 1)
  --warmup S          uncounted load on each target before its first slice (default 0.3)
  --pin CPU           client and servers all on this CPU, so that no wake-up crosses CPUs
  --json              one JSON object a row instead of a table";

/// What one invocation does.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    ServeEcho { socket: String },
    Load(LoadPlan),
    Spawn(SpawnPlan),
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
    pub(crate) pin: Option<usize>,
    pub(crate) json: bool,
}

/// Commands to start in turn; the first is the floor of the ratios.
#[derive(Debug)]
pub(crate) struct SpawnPlan {
    pub(crate) commands: Vec<Vec<String>>,
    pub(crate) runs: usize,
    pub(crate) pin: Option<usize>,
    pub(crate) json: bool,
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
        "load" if flags.targets.is_empty() && flags.echo_floor.is_none() => Err(usage("no target")),
        "load" => Ok(Command::Load(LoadPlan {
            targets: flags.targets,
            echo_floor: flags.echo_floor,
            connections: flags.connections,
            rounds: flags.rounds.unwrap_or(5),
            slice: flags.slice,
            warmup: flags.warmup,
            pin: flags.pin,
            json: flags.json,
        })),
        "spawn" => {
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
            Ok(Command::Spawn(SpawnPlan {
                commands,
                runs: flags.rounds.unwrap_or(200),
                pin: flags.pin,
                json: flags.json,
            }))
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
    pin: Option<usize>,
    json: bool,
}

impl Flags {
    fn parse(arguments: &[String]) -> Result<Self, BenchError> {
        let mut flags = Self {
            targets: Vec::new(),
            echo_floor: None,
            connections: vec![1],
            rounds: None,
            slice: Duration::from_secs(1),
            warmup: Duration::from_millis(300),
            pin: None,
            json: false,
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
                "--json" => flags.json = true,
                _ => {
                    let target = flags
                        .targets
                        .last_mut()
                        .ok_or_else(|| usage(format!("{flag}: unknown, or before any --socket")))?;
                    match flag.as_str() {
                        "--http" => target.protocol = Protocol::Http { path: value()?.clone() },
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
        assert!(matches!(&plan.targets[0].protocol, Protocol::Http { path } if path == "/x/{n}"));
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
        for line in ["", "load", "load --http /x", "load --rounds many --socket /a", "spawn --", "serve-echo", "fly"] {
            assert!(matches!(parse_line(line), Err(BenchError::Usage(_))), "{line:?} was accepted");
        }
    }
}
