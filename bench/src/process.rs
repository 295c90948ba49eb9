//! CPU time and CPU affinity of processes.

use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::error::BenchError;

/// CPU time that the process has used, ended threads included, with the precision of its own CPU clock.
pub(crate) fn cpu_time(process: Pid) -> Result<Duration, BenchError> {
    let failed = || BenchError::system(format!("CPU clock of process {process}"));
    read(clock_getcpuclockid(process).map_err(failed())?)
}

/// CPU time of this process.
pub(crate) fn own_cpu_time() -> Result<Duration, BenchError> {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Binds this thread, and with it all that it starts, to one CPU.
pub(crate) fn pin_self(cpu: usize) -> Result<(), BenchError> {
    pin(Pid::from_raw(0), cpu)
}

/// Binds every thread of a running server to one CPU.
pub(crate) fn pin_server(server: Pid, cpu: usize) -> Result<(), BenchError> {
    let tasks = format!("/proc/{server}/task");
    for task in std::fs::read_dir(&tasks).map_err(BenchError::system(&tasks))? {
        let task = task.map_err(BenchError::system(&tasks))?;
        if let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) {
            pin(Pid::from_raw(thread), cpu)?;
        }
    }
    Ok(())
}

fn pin(thread: Pid, cpu: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(thread, &set)).map_err(BenchError::system(format!("pin to CPU {cpu}")))
}

fn read(clock: ClockId) -> Result<Duration, BenchError> {
    clock_gettime(clock).map(Duration::from).map_err(BenchError::system("read a CPU clock"))
}
