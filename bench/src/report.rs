//! Figures to stdout: a table for people, or one JSON object a row for figures.py.

use std::io::Write;

use serde::Serialize;

use crate::arguments::{LoadPlan, Style};
use crate::crowd::Round;
use crate::error::BenchError;
use crate::latency::{Latencies, median};
use crate::load::Slice;
use crate::process::Memory;
use crate::spawn::Spawns;
use crate::target::Target;

/// Figures of one target: medians over the rounds; ratios are to the first target, round by round.
#[derive(Debug, Serialize)]
struct LoadRow<'a> {
    label: &'a str,
    target: &'a str,
    fresh: bool,
    connections: usize,
    rounds: usize,
    p50_us: f64,
    p99_us: f64,
    requests_per_second: f64,
    requests_per_core_second: f64,
    server_us: f64,
    client_us: f64,
    ratio_p50: f64,
    ratio_cpu: f64,
    ratio_per_core: f64,
}

/// Times of one command; the ratio is that of the medians, to the first command.
#[derive(Debug, Serialize)]
struct SpawnRow<'a> {
    label: &'a str,
    command: String,
    runs: usize,
    p50_us: f64,
    p99_us: f64,
    ratio_p50: f64,
}

/// Times of one server from spawn to its first answer; the ratio is that of the medians, to the first server.
#[derive(Debug, Serialize)]
struct StartRow<'a> {
    label: &'a str,
    server: &'a str,
    runs: usize,
    p50_us: f64,
    p99_us: f64,
    ratio_p50: f64,
}

/// Bytes that one server had resident, before and after it was asked for each key once.
#[derive(Debug, Serialize)]
struct MemoryRow<'a> {
    label: &'a str,
    server: &'a str,
    keys: usize,
    before: u64,
    /// The part of it that is the process's alone.
    before_anonymous: u64,
    /// After one key was asked for.
    begun: u64,
    after: u64,
}

/// What idle connections cost one server.
///
/// Times are medians over the rounds, and ratios are taken within each; bytes are those of the first round, in which the
/// server met its first crowd.
#[derive(Debug, Serialize)]
struct CrowdRow<'a> {
    label: &'a str,
    server: &'a str,
    idle: &'a str,
    count: usize,
    rounds: usize,
    before: u64,
    during: u64,
    after: u64,
    bytes_each: f64,
    alone_p50_us: f64,
    beside_p50_us: f64,
    ratio_p50: f64,
    ratio_throughput: f64,
}

/// Prints one row for each target.
pub(crate) fn loads(plan: &LoadPlan, connections: usize, slices: &[Vec<Slice>]) -> Result<(), BenchError> {
    let ratio = |slices: &[Slice], floor: &[Slice], figure: fn(&Slice) -> f64| {
        median(slices.iter().zip(floor).map(|(slice, floor)| figure(slice) / figure(floor)))
    };
    let p50 = |slice: &Slice| slice.latencies.quantile_us(0.5);
    let floor = &slices[0];
    let rows = plan.targets.iter().zip(slices).map(|(target, slices)| LoadRow {
        label: &plan.style.label,
        target: &target.name,
        fresh: target.fresh,
        connections,
        rounds: slices.len(),
        p50_us: median(slices.iter().map(p50)),
        p99_us: median(slices.iter().map(|slice| slice.latencies.quantile_us(0.99))),
        requests_per_second: median(slices.iter().map(Slice::requests_per_second)),
        requests_per_core_second: median(slices.iter().map(Slice::requests_per_core_second)),
        server_us: median(slices.iter().map(Slice::server_us)),
        client_us: median(slices.iter().map(Slice::client_us)),
        ratio_p50: ratio(slices, floor, p50),
        ratio_cpu: ratio(slices, floor, Slice::server_us),
        ratio_per_core: ratio(slices, floor, Slice::requests_per_core_second),
    });
    let heading = format!(
        "{connections} connection(s); us; ratios to the first\n{:<28}{:>9}{:>9}{:>10}{:>9}{:>9}{:>8}{:>8}",
        "target", "p50", "p99", "req/s", "srv cpu", "cli cpu", "x p50", "x cpu"
    );
    print(&plan.style, &heading, rows, |row| {
        let name = if row.fresh { format!("{} (fresh)", row.target) } else { row.target.to_owned() };
        format!(
            "{name:<28}{:>9.1}{:>9.1}{:>10.0}{:>9.2}{:>9.2}{:>8.2}{:>8.2}",
            row.p50_us, row.p99_us, row.requests_per_second, row.server_us, row.client_us, row.ratio_p50, row.ratio_cpu
        )
    })
}

/// Prints one row for each command.
pub(crate) fn spawns(all: &[Spawns], style: &Style) -> Result<(), BenchError> {
    let floor = all[0].latencies.quantile_us(0.5);
    let rows = all.iter().map(|spawns| SpawnRow {
        label: &style.label,
        command: spawns.line.join(" "),
        runs: spawns.latencies.count(),
        p50_us: spawns.latencies.quantile_us(0.5),
        p99_us: spawns.latencies.quantile_us(0.99),
        ratio_p50: spawns.latencies.quantile_us(0.5) / floor,
    });
    let heading = format!("spawn to exit; us; ratios to the first\n{:>9}{:>9}{:>8}  command", "p50", "p99", "x p50");
    print(style, &heading, rows, |row| {
        format!("{:>9.0}{:>9.0}{:>8.2}  {}", row.p50_us, row.p99_us, row.ratio_p50, row.command)
    })
}

/// Prints one row for each server.
pub(crate) fn starts(targets: &[Target], all: &[Latencies], style: &Style) -> Result<(), BenchError> {
    let floor = all[0].quantile_us(0.5);
    let rows = targets.iter().zip(all).map(|(target, latencies)| StartRow {
        label: &style.label,
        server: &target.name,
        runs: latencies.count(),
        p50_us: latencies.quantile_us(0.5),
        p99_us: latencies.quantile_us(0.99),
        ratio_p50: latencies.quantile_us(0.5) / floor,
    });
    let heading =
        format!("spawn to first answer; us; ratios to the first\n{:>9}{:>9}{:>8}  server", "p50", "p99", "x p50");
    print(style, &heading, rows, |row| {
        format!("{:>9.0}{:>9.0}{:>8.2}  {}", row.p50_us, row.p99_us, row.ratio_p50, row.server)
    })
}

/// Prints the row of one server.
pub(crate) fn memory(
    target: &Target,
    before: Memory,
    begun: Memory,
    after: Memory,
    style: &Style,
) -> Result<(), BenchError> {
    let row = MemoryRow {
        label: &style.label,
        server: &target.name,
        keys: target.keys,
        before: before.resident,
        before_anonymous: before.anonymous,
        begun: begun.resident,
        after: after.resident,
    };
    let heading = format!("resident; MB\n{:>9}{:>9}{:>9}{:>9}  server", "keys", "before", "begun", "after");
    print(style, &heading, std::iter::once(row), |row| {
        let [before, begun, after] = [row.before, row.begun, row.after].map(megabytes);
        format!("{:>9}{before:>9.2}{begun:>9.2}{after:>9.2}  {}", row.keys, row.server)
    })
}

/// Prints the row of one server.
pub(crate) fn crowd(target: &Target, count: usize, rounds: &[Round], style: &Style) -> Result<(), BenchError> {
    let p50 = |slice: &Slice| slice.latencies.quantile_us(0.5);
    let first = &rounds[0];
    let row = CrowdRow {
        label: &style.label,
        server: &target.name,
        idle: &target.idle,
        count,
        rounds: rounds.len(),
        before: first.before,
        during: first.during,
        after: first.after,
        bytes_each: (first.during as f64 - first.before as f64) / count as f64,
        alone_p50_us: median(rounds.iter().map(|round| p50(&round.alone))),
        beside_p50_us: median(rounds.iter().map(|round| p50(&round.beside))),
        ratio_p50: median(rounds.iter().map(|round| p50(&round.beside) / p50(&round.alone))),
        ratio_throughput: median(
            rounds.iter().map(|round| round.beside.requests_per_second() / round.alone.requests_per_second()),
        ),
    };
    let heading = format!(
        "{count} idle connections, each after {}\n{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}  server",
        target.idle, "MB before", "during", "after", "B each", "alone us", "beside", "x p50"
    );
    print(style, &heading, std::iter::once(row), |row| {
        format!(
            "{:>9.2}{:>9.2}{:>9.2}{:>9.0}{:>9.1}{:>9.1}{:>8.2}  {}",
            megabytes(row.before),
            megabytes(row.during),
            megabytes(row.after),
            row.bytes_each,
            row.alone_p50_us,
            row.beside_p50_us,
            row.ratio_p50,
            row.server
        )
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn print<R: Serialize>(
    style: &Style,
    heading: &str,
    rows: impl Iterator<Item = R>,
    line: impl Fn(&R) -> String,
) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let mut write = |text: &str| writeln!(out, "{text}").map_err(BenchError::system("write to stdout"));
    if !style.json {
        write(heading)?;
    }
    for row in rows {
        let text =
            if style.json { serde_json::to_string(&row).expect("a row is numbers and text") } else { line(&row) };
        write(&text)?;
    }
    Ok(())
}
