//! Figures to stdout: a table for people, or one JSON object a row for figures.py.

use std::io::Write;

use serde::Serialize;

use crate::arguments::LoadPlan;
use crate::error::BenchError;
use crate::latency::median;
use crate::load::Slice;
use crate::spawn::Spawns;

/// Figures of one target: medians over the rounds; ratios are to the first target, round by round.
#[derive(Debug, Serialize)]
struct LoadRow<'a> {
    target: &'a str,
    fresh: bool,
    connections: usize,
    rounds: usize,
    p50_us: f64,
    p99_us: f64,
    requests_per_second: f64,
    server_us: f64,
    client_us: f64,
    ratio_p50: f64,
    ratio_cpu: f64,
}

/// Times of one command; the ratio is that of the medians, to the first command.
#[derive(Debug, Serialize)]
struct SpawnRow {
    command: String,
    runs: usize,
    p50_us: f64,
    p99_us: f64,
    ratio_p50: f64,
}

/// Prints one row for each target.
pub(crate) fn loads(plan: &LoadPlan, connections: usize, slices: &[Vec<Slice>]) -> Result<(), BenchError> {
    let ratio = |slices: &[Slice], floor: &[Slice], figure: fn(&Slice) -> f64| {
        median(slices.iter().zip(floor).map(|(slice, floor)| figure(slice) / figure(floor)))
    };
    let p50 = |slice: &Slice| slice.latencies.quantile_us(0.5);
    let floor = &slices[0];
    let rows = plan.targets.iter().zip(slices).map(|(target, slices)| LoadRow {
        target: &target.name,
        fresh: target.fresh,
        connections,
        rounds: slices.len(),
        p50_us: median(slices.iter().map(p50)),
        p99_us: median(slices.iter().map(|slice| slice.latencies.quantile_us(0.99))),
        requests_per_second: median(slices.iter().map(Slice::requests_per_second)),
        server_us: median(slices.iter().map(Slice::server_us)),
        client_us: median(slices.iter().map(Slice::client_us)),
        ratio_p50: ratio(slices, floor, p50),
        ratio_cpu: ratio(slices, floor, Slice::server_us),
    });
    let heading = format!(
        "{connections} connection(s); us; ratios to the first\n{:<28}{:>9}{:>9}{:>10}{:>9}{:>9}{:>8}{:>8}",
        "target", "p50", "p99", "req/s", "srv cpu", "cli cpu", "x p50", "x cpu"
    );
    print(plan.json, &heading, rows, |row| {
        let name = if row.fresh { format!("{} (fresh)", row.target) } else { row.target.to_owned() };
        format!(
            "{name:<28}{:>9.1}{:>9.1}{:>10.0}{:>9.2}{:>9.2}{:>8.2}{:>8.2}",
            row.p50_us, row.p99_us, row.requests_per_second, row.server_us, row.client_us, row.ratio_p50, row.ratio_cpu
        )
    })
}

/// Prints one row for each command.
pub(crate) fn spawns(all: &[Spawns], json: bool) -> Result<(), BenchError> {
    let floor = all[0].latencies.quantile_us(0.5);
    let rows = all.iter().map(|spawns| SpawnRow {
        command: spawns.line.join(" "),
        runs: spawns.latencies.count(),
        p50_us: spawns.latencies.quantile_us(0.5),
        p99_us: spawns.latencies.quantile_us(0.99),
        ratio_p50: spawns.latencies.quantile_us(0.5) / floor,
    });
    let heading = format!("spawn to exit; us; ratios to the first\n{:>9}{:>9}{:>8}  command", "p50", "p99", "x p50");
    print(json, &heading, rows, |row| {
        format!("{:>9.0}{:>9.0}{:>8.2}  {}", row.p50_us, row.p99_us, row.ratio_p50, row.command)
    })
}

fn print<R: Serialize>(
    json: bool,
    heading: &str,
    rows: impl Iterator<Item = R>,
    line: impl Fn(&R) -> String,
) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let mut write = |text: &str| writeln!(out, "{text}").map_err(BenchError::system("write to stdout"));
    if !json {
        write(heading)?;
    }
    for row in rows {
        let text = if json { serde_json::to_string(&row).expect("a row is numbers and text") } else { line(&row) };
        write(&text)?;
    }
    Ok(())
}
