//! CPU time, CPU affinity and memory of processes.

use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
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

/// What a process has in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it; the program's own file counts as far as it is mapped, though it is shared and can be dropped.
    pub(crate) resident: u64,
    /// What is the process's alone: heap, stacks, changed data.
    pub(crate) anonymous: u64,
}

/// Reads the memory of a process.
///
/// The sum over its mappings is exact; where it is closed to us, as that of another's undumpable process is, the kernel's
/// counter stands in, which lags by some pages for each CPU.
pub(crate) fn memory(process: Pid) -> Result<Memory, BenchError> {
    let exact = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
    let text = exact.or_else(|_| std::fs::read_to_string(format!("/proc/{process}/status")));
    let text = text.map_err(BenchError::system(format!("memory of process {process}")))?;
    memory_in(&text).ok_or_else(|| BenchError::System {
        doing: format!("memory of process {process}"),
        source: std::io::Error::other("it has ended"),
    })
}

fn memory_in(text: &str) -> Option<Memory> {
    let bytes = |names: [&str; 2]| {
        let line = text.lines().find_map(|line| names.iter().find_map(|name| line.strip_prefix(name)))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory { resident: bytes(["Rss:", "VmRSS:"])?, anonymous: bytes(["Anonymous:", "RssAnon:"])? })
}

/// Allows this process as many descriptors as it may have.
pub(crate) fn raise_descriptor_limit() -> Result<(), BenchError> {
    getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .map_err(BenchError::system("raise the limit of descriptors"))
}

fn pin(thread: Pid, cpu: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(thread, &set)).map_err(BenchError::system(format!("pin to CPU {cpu}")))
}

fn read(clock: ClockId) -> Result<Duration, BenchError> {
    clock_gettime(clock).map(Duration::from).map_err(BenchError::system("read a CPU clock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_either_file() {
        let expected = Some(Memory { resident: 1234 * 1024, anonymous: 8 * 1024 });
        assert_eq!(
            memory_in("5-7 ---p 0 00:00 0 [rollup]\nRss:      1234 kB\nPss: 1 kB\nAnonymous:   8 kB\n"),
            expected
        );
        assert_eq!(memory_in("Name:\tkeyside\nVmRSS:\t    1234 kB\nRssAnon:\t   8 kB\n"), expected);
        assert_eq!(memory_in("Name:\tkeyside\n"), None, "a process that has ended");
        assert!(memory(Pid::this()).is_ok_and(|memory| memory.resident > memory.anonymous));
    }
}
