//! A strict reader of Prometheus' text form, version 0.0.4: stricter than Prometheus itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::remark::remark;

/// Returns a Python that has Prometheus' own client library. None, and a word on stderr, where there is none.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("KEYSIDE_PROMETHEUS_PYTHON").map(PathBuf::from);
    let peers = std::env::var_os("KEYSIDE_PEERS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers")));
    let python = named.or_else(|| peers.map(|peers| peers.join("prometheus-client-0.23.1/bin/python")));
    // Another user's cache may be closed to us.
    let python = python.filter(|python| rustix::fs::access(python, rustix::fs::Access::EXEC_OK).is_ok());
    if python.is_none() {
        remark("skipped: Prometheus' own parser is not installed (tests/peers/install-prometheus.sh)");
    }
    python
}

/// A page that was read: each series with its value.
pub struct Page {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    /// Reads a page. Panics, with the line, on anything that the convention forbids.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut page = Self { samples: BTreeMap::new(), types: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!help.trim().is_empty() && helped.insert(name.to_owned()), "{line}");
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(name, current, "a type without its help before it: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(page.types.insert(name.to_owned(), kind.to_owned()).is_none(), "a second type: {line}");
            } else {
                page.sample(line, &current);
            }
        }
        page.check_histograms();
        page
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("no end: {line}"))),
            None => (series, ""),
        };
        assert!(is_name(name, true), "{line}");
        let kind = self.types.get(family).unwrap_or_else(|| panic!("no type before it: {line}"));
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("among the samples of {family}: {line}"));
        match kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        assert!(kind == "gauge" || value >= 0.0, "{line}");
        let names = labels_of(labels, line);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a label stands twice: {line}");
        assert_eq!(suffix == "_bucket", names.iter().any(|name| name == "le"), "{line}");
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "a second time: {line}");
    }

    fn check_histograms(&self) {
        for family in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (name, value) in &self.samples {
                let Some(labels) = name.strip_prefix(&format!("{family}_bucket{{")) else { continue };
                let (before, bound) = labels.split_once("le=\"").expect("a bound");
                let bound = bound.strip_suffix("\"}").expect("the last label");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
                series.entry(before.trim_end_matches(',').to_owned()).or_default().push((bound, *value));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                let counts: Vec<f64> = buckets.iter().map(|(_, count)| *count).collect();
                assert!(counts.is_sorted(), "{family}{{{labels}}} is not cumulative: {counts:?}");
                let (last, count) = buckets.last().expect("buckets");
                assert_eq!(*last, f64::INFINITY, "{family}{{{labels}}}");
                let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                assert_eq!(self.samples.get(&format!("{family}_count{braces}")), Some(count), "{family}");
                assert!(self.samples.contains_key(&format!("{family}_sum{braces}")), "{family}{braces}");
            }
        }
    }

    /// Returns the value of a series, as it is written.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    /// Returns the number of series.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || colon && byte == b':';
    text.bytes().enumerate().all(|(at, byte)| first(byte) || at > 0 && byte.is_ascii_digit()) && !text.is_empty()
}

/// Reads `name="value",...` with its escapes and returns the names.
fn labels_of(text: &str, line: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(name, false), "{line}");
        names.push(name.to_owned());
        let mut escaped = false;
        let end = after.char_indices().find(|(_, char)| {
            if escaped {
                assert!(['\\', '"', 'n'].contains(char), "no escape: {line}");
                escaped = false;
                return false;
            }
            escaped = *char == '\\';
            *char == '"'
        });
        let (end, _) = end.unwrap_or_else(|| panic!("no end of a value: {line}"));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => assert!(rest.is_empty(), "{line}"),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn what_the_convention_forbids_is_noticed() {
        let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"\\\"\\\\\\n\"} 1\na_total{x=\"b\"} 2\n";
        assert_eq!(Page::read(good).value("a_total{x=\"b\"}"), 2.0);
        for bad in [
            "a 1\n",
            "# HELP a A.\n# TYPE a counter\na 1\n",
            "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
            "# HELP a A.\n# TYPE a gauge\na{b=\"x\\y\"} 1\n",
            "# HELP a A.\n# TYPE a gauge\na{b=\"x\" 1\n",
            "# HELP a A.\n# TYPE a gauge\na one\n",
            "# HELP a A.\n# TYPE a gauge\nb 1\n",
            "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
            "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
            "# HELP a A.\n# TYPE a gauge\na 1",
        ] {
            assert!(catch_unwind(|| Page::read(bad)).is_err(), "{bad}");
        }
    }
}
