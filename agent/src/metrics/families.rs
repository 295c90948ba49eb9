//! Every family of `/metrics`, in the order of the page. No label can hold the name of a secret, a path or a uid, and
//! each has a bounded number of values.

use super::page::{Family, Kind};

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

macro_rules! families {
    ($($identifier:ident = $kind:ident($name:literal, [$($label:literal),*], $help:literal);)*) => {
        $(
            #[doc = $help]
            pub static $identifier: Family = $kind($name, &[$($label),*], $help);
        )*
        /// All of them.
        pub static ALL: &[&Family] = &[$(&$identifier),*];
    };
}

families! {
    BUILD_INFO = gauge("keyside_build_info", ["version"], "Always 1; which version runs.");
    INSTANCE_INFO = gauge("keyside_instance_info", ["instance"], "Always 1; the id of this run, as in ETag and status.");
    UPTIME = gauge("keyside_uptime_seconds", [], "Time since the agent started, suspend included.");
    READY = gauge("keyside_ready", [], "1 once every required back-end has answered.");
    REQUESTS = counter("keyside_requests_total", ["route", "code"], "Requests answered, by group of routes and code; `ok` is no error.");
    REQUEST_DURATION = histogram("keyside_request_duration_seconds", ["route"], "Time to a reply; a value served at once from memory counts as no time.");
    CONNECTIONS = gauge("keyside_connections", [], "Open connections on the sockets.");
    CONNECTIONS_OPENED = counter("keyside_connections_opened_total", [], "Connections served on the sockets.");
    CONNECTIONS_REFUSED = counter("keyside_connections_refused_total", ["reason"], "Connections beyond a limit: closed (`limit`), answered for probes alone (`probes_only`), or one too many for the metrics listener (`metrics_limit`).");
    CONNECTIONS_CUT_OFF = counter("keyside_connections_cut_off_total", [], "Connections closed because they broke a deadline or outlived the grace.");
    WATCHERS = gauge("keyside_watchers", [], "Open streams of events; they count as connections too.");
    CACHE_READS = counter("keyside_cache_reads_total", ["outcome"], "Reads answered from memory fresh (`hit`) or stale (`stale`), or by a back-end (`miss`).");
    CACHE_JOINS = counter("keyside_cache_joins_total", [], "Misses that waited for a call already under way.");
    CACHE_ENTRIES = gauge("keyside_cache_entries", [], "Secrets held in memory.");
    CACHE_ABSENCES = gauge("keyside_cache_absences", [], "Names remembered to be absent.");
    CACHE_BYTES = gauge("keyside_cache_bytes", [], "Bytes that the secrets in memory are charged for.");
    CACHE_MAX_BYTES = gauge("keyside_cache_max_bytes", [], "The budget for them (`max_bytes` in the table `cache`).");
    CACHE_EVICTIONS = counter("keyside_cache_evictions_total", [], "Secrets pushed out of memory to make room.");
    CACHE_OLDEST_AGE = gauge("keyside_cache_oldest_age_seconds", [], "Time since the longest unconfirmed secret in memory was confirmed; 0 when none is held.");
    BACKEND_UP = gauge("keyside_backend_up", ["backend"], "1 while the last call to the back-end was answered.");
    BACKEND_CALLS = counter("keyside_backend_calls_total", ["backend"], "Calls made to the back-end.");
    BACKEND_FAILURES = counter("keyside_backend_failures_total", ["backend", "class"], "Calls that failed: `transient`, `identity` (our own login), `denied`, `unusable` (a reply that holds no usable secret).");
    BACKEND_DURATION = histogram("keyside_backend_call_duration_seconds", ["backend"], "Time that calls to the back-end took, failed ones and the wait for a free place too.");
    BACKEND_BREAKER_OPEN = gauge("keyside_backend_breaker_open", ["backend"], "1 while calls fail at once because the last ones failed.");
    BACKEND_SUCCESS_AGE = gauge("keyside_backend_last_success_age_seconds", ["backend"], "Time since the back-end last answered; missing until it has.");
    BACKEND_POLLS = counter("keyside_backend_polls_total", ["backend"], "Queries for changes.");
    RELOADS = counter("keyside_config_reloads_total", ["outcome"], "Reloads of the configuration: `ok`, or `failed` and the old one kept.");
    LAST_RELOAD = gauge("keyside_config_last_reload_success_timestamp_seconds", [], "When the configuration was last reloaded; missing until it was.");
    AUDIT_LINES = counter("keyside_audit_lines_total", ["outcome"], "Audit lines `written`, and `lost` because the queue was full.");
    AUDIT_FAILING = gauge("keyside_audit_failing", [], "1 while the audit log cannot be written.");
    PROCESS_CPU = counter("process_cpu_seconds_total", [], "Processor time of the agent, in user and system mode.");
    PROCESS_RESIDENT = gauge("process_resident_memory_bytes", [], "Memory of the agent that is in RAM.");
    PROCESS_VIRTUAL = gauge("process_virtual_memory_bytes", [], "Address space of the agent.");
    PROCESS_OPEN_FDS = gauge("process_open_fds", [], "Open descriptors.");
    PROCESS_MAX_FDS = gauge("process_max_fds", [], "How many descriptors may be open.");
    PROCESS_START = gauge("process_start_time_seconds", [], "When the agent started, since 1970.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention_and_stand_once() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with("keyside_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert!(family.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(family.labels.iter().all(|label| *label != "le"), "{name}");
            assert!(family.help.ends_with('.') && !family.help.contains('|'), "{name}");
        }
    }

    #[test]
    fn the_document_lists_every_family_as_it_is() {
        let document = include_str!("../../../docs/observability.md");
        let rows: Vec<String> = ALL
            .iter()
            .map(|family| {
                let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
                format!("| `{}` | {} | {} | {} |", family.name, family.kind.as_str(), labels.join(", "), family.help)
            })
            .collect();
        let listed: Vec<_> = document
            .lines()
            .filter(|line| line.starts_with("| `keyside_") || line.starts_with("| `process_"))
            .collect();
        assert_eq!(listed, rows, "the table of docs/observability.md should be:\n{}", rows.join("\n"));
    }
}
