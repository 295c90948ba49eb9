//! Where values in memory could get out: swap, core files, other processes; and the limits that keep them in.

use keyside_protocol::message::StatusReply;
use keyside_protocol::units::ByteSize;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::configuration::Budgets;
use super::finding::{Findings, Verdict};

const LOCKED: &str = "locked memory";

pub(super) fn look(budgets: &Budgets, findings: &mut Findings) {
    let swaps = is_swap_on();
    match swaps {
        None => findings.advise("swap", Verdict::Unknown, "/proc/swaps cannot be read", "mount /proc"),
        Some(false) => findings.add("swap", Verdict::Secure, "off"),
        Some(true) => findings.advise(
            "swap",
            Verdict::Weak,
            "on: what lies on tmpfs, and memory that is not locked, may be written to it",
            "turn it off or encrypt it; `--files memfd`, or `private` where the kernel knows noswap, does without",
        ),
    }
    core_files(findings);
    tracing(findings);
    descriptors(budgets, findings);
}

/// Tells whether this process's memory may be swapped; `None` where nothing says so.
fn is_swap_on() -> Option<bool> {
    let swaps = std::fs::read_to_string("/proc/swaps").ok()?;
    // A container may be denied swap that its host has.
    let denied = std::fs::read_to_string("/sys/fs/cgroup/memory.swap.max").is_ok_and(|most| most.trim() == "0");
    Some(lists_swap(&swaps) && !denied)
}

/// The first line is a heading.
fn lists_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Says whether the cache can be locked: of the agent that was asked by its own limit, else of one that is started here.
/// CAP_IPC_LOCK counts for nothing, since an agent gives it up.
pub(super) fn locked_memory(budgets: &Budgets, agent: Option<&StatusReply>, findings: &mut Findings) {
    let no_swap = is_swap_on() == Some(false);
    let Some(status) = agent else {
        // An agent raises its own limit to the hard one.
        let limit = getrlimit(Resource::Memlock).maximum;
        return judge_locked_memory(limit, budgets.cache_bytes, "an agent started here", no_swap, findings);
    };
    match limit_of_agent(status.pid) {
        Some(limit) => judge_locked_memory(limit, status.cache.max_bytes, "the agent", no_swap, findings),
        None if no_swap => findings.add(LOCKED, Verdict::Secure, "without swap none is needed"),
        None => findings.advise(
            LOCKED,
            Verdict::Unknown,
            format!("the limits of the agent (pid {}) cannot be read from here", status.pid),
            "run `keyside doctor` where the agent runs; its log warns when it cannot lock all values",
        ),
    }
}

fn judge_locked_memory(limit: Option<u64>, cache: u64, whose: &str, no_swap: bool, findings: &mut Findings) {
    let budget = ByteSize(cache);
    match limit {
        Some(limit) if limit < cache => {
            let what = format!("{whose} can lock {}, the cache may hold {budget}", ByteSize(limit));
            if no_swap {
                findings.add(LOCKED, Verdict::Secure, what + "; without swap nothing more is needed");
            } else {
                let hint = "raise the limit (`ulimit -l`, LimitMEMLOCK= of a systemd unit) or lower [cache] max_bytes";
                findings.advise(LOCKED, Verdict::Weak, what, hint);
            }
        }
        _ => findings.add(LOCKED, Verdict::Secure, format!("{whose} can lock the whole cache ({budget})")),
    }
}

/// Returns the limit that binds the agent now: none where it cannot be read, or the pid is somebody else's here, because
/// the agent named it in another pid namespace.
fn limit_of_agent(pid: u32) -> Option<Option<u64>> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !name.starts_with("keyside") {
        return None;
    }
    locked_limit(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// Reads the soft limit out of `/proc/PID/limits`; the inner none means that there is no limit.
fn locked_limit(limits: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}

/// Tells whether this process has a capability in effect.
pub(super) fn has_capability(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn core_files(findings: &mut Findings) {
    const CHECK: &str = "core files";
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let limit = getrlimit(Resource::Core).current;
    match core_destination(&pattern, limit) {
        None => findings.add(CHECK, Verdict::Secure, "Keyside's programs leave none, and here no step does either"),
        Some(destination) => findings.advise(
            CHECK,
            Verdict::Weak,
            format!("Keyside's programs leave none; a step that crashes leaves its values in {destination}"),
            "start steps under `ulimit -c 0`; against a program of the core pattern, set kernel.core_pattern=core as well",
        ),
    }
}

/// Says where a core of an ordinary process goes. A program of the pattern is given every core: the limit does not count.
fn core_destination(pattern: &str, limit: Option<u64>) -> Option<String> {
    match pattern.trim().strip_prefix('|') {
        Some(program) => Some(format!("a core given to {}", program.split_whitespace().next().unwrap_or("a program"))),
        None if limit == Some(0) => None,
        None => Some("a core file".to_owned()),
    }
}

fn tracing(findings: &mut Findings) {
    const CHECK: &str = "other processes";
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    match scope.as_deref().map(str::trim) {
        Some("1" | "2" | "3") => {
            findings.add(
                CHECK,
                Verdict::Secure,
                "a process may not read the memory of another of its user (ptrace_scope)",
            );
        }
        _ => findings.advise(
            CHECK,
            Verdict::Weak,
            "Keyside's programs are closed to other processes of their user; a step's memory and environment are not",
            "set kernel.yama.ptrace_scope=1, and run steps that do not trust each other as different users",
        ),
    }
}

fn descriptors(budgets: &Budgets, findings: &mut Findings) {
    const CHECK: &str = "descriptors";
    let wanted = budgets.connections_per_uid as u64;
    match getrlimit(Resource::Nofile).maximum {
        Some(hard) if hard / 2 < wanted => findings.advise(
            CHECK,
            Verdict::Weak,
            format!("the hard limit is {hard}: one uid may have {} connections, not {wanted}", hard / 2),
            "raise it (LimitNOFILE= of a systemd unit), or lower [limits] connections_per_uid",
        ),
        Some(hard) => findings.add(CHECK, Verdict::Ok, format!("{hard}, enough for {wanted} connections of one uid")),
        None => findings.add(CHECK, Verdict::Ok, "without limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_on_when_a_line_follows_the_heading() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!lists_swap("") && !lists_swap(heading));
        assert!(lists_swap(&format!("{heading}/dev/zram0  partition  8388604  0  100\n")));
    }

    #[test]
    fn locked_memory_is_judged_by_the_limit_that_binds_the_agent() {
        let limits = |soft: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax processes  1  1  processes\nMax locked memory         {soft}              9999999              bytes     \n"
            )
        };
        assert_eq!(locked_limit(&limits("65536")), Some(Some(65536)));
        assert_eq!(locked_limit(&limits("unlimited")), Some(None));
        assert_eq!(locked_limit("Max processes 1"), None);
        let verdict = |limit, no_swap| {
            let mut findings = Findings::default();
            judge_locked_memory(limit, 100, "the agent", no_swap, &mut findings);
            findings.last().verdict
        };
        assert_eq!(verdict(Some(99), false), Verdict::Weak);
        assert_eq!(verdict(Some(99), true), Verdict::Secure);
        assert_eq!((verdict(Some(100), false), verdict(None, false)), (Verdict::Secure, Verdict::Secure));
    }

    #[test]
    fn a_core_limit_of_nothing_does_not_keep_a_core_from_a_program() {
        assert_eq!(core_destination("core\n", Some(0)), None);
        assert_eq!(core_destination("core\n", Some(1)).as_deref(), Some("a core file"));
        assert_eq!(core_destination("core\n", None).as_deref(), Some("a core file"));
        let piped = core_destination("|/usr/lib/systemd/systemd-coredump %P %u\n", Some(0));
        assert_eq!(piped.as_deref(), Some("a core given to /usr/lib/systemd/systemd-coredump"));
    }
}
