//! Closed-loop load on servers behind Unix sockets, and spawn-to-exit times of commands, side by side in one run.
//!
//! A machine's speed drifts while it is measured, so nothing here is compared across runs. Time is cut into short slices
//! that go round the targets (A B C A B C ...), a ratio is taken within each round, and the figure is the median over
//! the rounds: what drifts moves both sides of it. The first target is the floor that the others are held against.
//! A server's CPU time for each request comes from its own CPU clock and holds even where latency does not.
//!
//! # Layout
//!
//! `arguments` -> `target` -> `load` (with `http` for framing, `process` for CPU time and memory, `latency` for quantiles,
//! `floor` for the echo server), `crowd`, `spawn` or `start` -> `report`.

mod arguments;
mod crowd;
mod error;
mod floor;
mod http;
mod latency;
mod load;
mod process;
mod report;
mod spawn;
mod start;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Command, LoadPlan};
use error::BenchError;
use target::{Protocol, Target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments::parse(&arguments).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(BenchError::Usage(what)) => {
            eprintln!("keyside-bench: {what}\n\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("keyside-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), BenchError> {
    match command {
        Command::Help => {
            println!("{}", arguments::USAGE);
            Ok(())
        }
        Command::ServeEcho { socket } => floor::serve(&socket),
        Command::Load(plan) => measure_load(plan),
        Command::Spawn(plan) => {
            if let Some(cpu) = plan.pin {
                process::pin_self(cpu)?;
            }
            report::spawns(&spawn::run(&plan.commands, plan.runs)?, &plan.style)
        }
        Command::Start(plan) => {
            // The servers inherit the CPU.
            if let Some(cpu) = plan.spawn.pin {
                process::pin_self(cpu)?;
            }
            let starts = start::run(&plan.targets, &plan.spawn.commands, plan.spawn.runs)?;
            report::starts(&plan.targets, &starts, &plan.spawn.style)
        }
        Command::Memory(plan) => measure_memory(plan),
        Command::Crowd(plan) => measure_crowd(plan),
    }
}

fn measure_load(mut plan: LoadPlan) -> Result<(), BenchError> {
    // The floor's server inherits the CPU, so pinning comes first.
    if let Some(cpu) = plan.pin {
        process::pin_self(cpu)?;
    }
    let floor = plan.echo_floor.map(|_| floor::Floor::start()).transpose()?;
    if let Some((floor, size)) = floor.as_ref().zip(plan.echo_floor) {
        let mut target = Target::new(floor.socket().to_owned());
        target.name = format!("echo of {size} B");
        target.protocol = Protocol::Echo { size };
        plan.targets.insert(0, target);
    }
    find_servers(&mut plan)?;
    for &connections in &plan.connections {
        for target in &plan.targets {
            load::run(target, connections, plan.warmup)?;
        }
        let mut slices: Vec<Vec<load::Slice>> = plan.targets.iter().map(|_| Vec::new()).collect();
        for _ in 0..plan.rounds {
            for (target, slices) in plan.targets.iter().zip(&mut slices) {
                slices.push(load::run(target, connections, plan.slice)?);
            }
        }
        report::loads(&plan, connections, &slices)?;
    }
    Ok(())
}

fn measure_memory(mut plan: LoadPlan) -> Result<(), BenchError> {
    find_servers(&mut plan)?;
    for target in &plan.targets {
        // What was allocated for the requests alone is given back by then.
        let settled = || {
            std::thread::sleep(Duration::from_secs(1));
            target.memory()
        };
        let before = target.memory()?;
        // The first request brings in pages of the program that no other one needs.
        load::each_once(target, 1)?;
        let begun = settled()?;
        load::each_once(target, target.keys)?;
        report::memory(target, before, begun, settled()?, &plan.style)?;
    }
    Ok(())
}

fn measure_crowd(mut plan: LoadPlan) -> Result<(), BenchError> {
    if let Some(cpu) = plan.pin {
        process::pin_self(cpu)?;
    }
    find_servers(&mut plan)?;
    for target in &plan.targets {
        let rounds = crowd::run(target, plan.count, plan.rounds, plan.slice)?;
        report::crowd(target, plan.count, &rounds, &plan.style)?;
    }
    Ok(())
}

/// Finds the process behind each socket and binds it to the CPU of the run.
fn find_servers(plan: &mut LoadPlan) -> Result<(), BenchError> {
    for target in &mut plan.targets {
        target.find_server()?;
        if let (Some(cpu), Some(server)) = (plan.pin, target.server) {
            process::pin_server(server, cpu)?;
        }
    }
    Ok(())
}
