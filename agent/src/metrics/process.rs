//! The figures that every process has, by the names that dashboards expect.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{Page, families};

/// Writes them; `uptime` is how long the agent has run. What the kernel does not tell is left out.
pub fn write(page: &mut Page, uptime: Duration) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    page.begin(&families::PROCESS_CPU);
    page.sample(&[], cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);

    // In pages: all, resident, ...; see proc_pid_statm(5).
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split(' ').map_while(|number| number.parse::<u64>().ok());
    let page_size = rustix::param::page_size() as u64;
    let (virtual_memory, resident) = (pages.next(), pages.next());
    for (family, count) in [(&families::PROCESS_RESIDENT, resident), (&families::PROCESS_VIRTUAL, virtual_memory)] {
        page.begin(family);
        if let Some(count) = count {
            page.sample(&[], count * page_size);
        }
    }

    page.begin(&families::PROCESS_OPEN_FDS);
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        page.sample(&[], entries.count().saturating_sub(1));
    }
    page.begin(&families::PROCESS_MAX_FDS);
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.sample(&[], most);
    }
    page.begin(&families::PROCESS_START);
    let started = SystemTime::now().checked_sub(uptime).unwrap_or(UNIX_EPOCH);
    page.sample(&[], started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
}
