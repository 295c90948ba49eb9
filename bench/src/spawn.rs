//! How long commands take from spawn to exit.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::error::BenchError;
use crate::latency::Latencies;

/// The times of one command line.
#[derive(Debug)]
pub(crate) struct Spawns {
    pub(crate) line: Vec<String>,
    pub(crate) latencies: Latencies,
}

/// Runs each command line `runs` times, in turn (A B C A B C ...), from spawn until it is reaped.
pub(crate) fn run(lines: &[Vec<String>], runs: usize) -> Result<Vec<Spawns>, BenchError> {
    let mut all: Vec<Spawns> =
        lines.iter().map(|line| Spawns { line: line.clone(), latencies: Latencies::default() }).collect();
    let warmup = (runs / 10).clamp(1, 20);
    for round in 0..warmup + runs {
        for spawns in &mut all {
            let begin = Instant::now();
            let status = Command::new(&spawns.line[0])
                .args(&spawns.line[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .map_err(BenchError::system(&spawns.line[0]))?;
            let took = begin.elapsed();
            if !status.success() {
                return Err(BenchError::Command { line: spawns.line.join(" "), status });
            }
            if round >= warmup {
                spawns.latencies.record(took);
            }
        }
    }
    Ok(all.into_iter().map(|spawns| Spawns { latencies: spawns.latencies.sorted(), ..spawns }).collect())
}
