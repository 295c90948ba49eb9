//! The text form, version 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{Display, Write as _};

use super::{BUCKETS, Histogram};

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows, from zero at the start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets, with their sum and number.
    Histogram,
}

impl Kind {
    /// Returns its spelling in a TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One name with what it means.
#[derive(Debug)]
pub struct Family {
    /// The name; a counter's ends in `_total`, and a unit is part of it.
    pub name: &'static str,
    /// What its samples mean.
    pub kind: Kind,
    /// The names of its labels, in the order in which [`Page::sample`] takes their values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// The text so far.
#[derive(Default)]
pub struct Page {
    text: String,
    family: Option<&'static Family>,
}

impl Page {
    /// Begins a family: the samples that follow are its own.
    pub fn begin(&mut self, family: &'static Family) {
        let (name, kind) = (family.name, family.kind.as_str());
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.family = Some(family);
    }

    /// Adds a sample with the values of the family's labels.
    pub fn sample(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Adds the samples of a histogram; `at_once` more took no time.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram, at_once: u64) {
        let (counts, sum) = histogram.read(at_once);
        for (bound, count) in BUCKETS.iter().zip(counts) {
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        let all = counts[BUCKETS.len()];
        self.line("_bucket", labels, Some("+Inf"), all);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, all);
    }

    fn line(&mut self, suffix: &str, values: &[&str], bound: Option<&str>, value: impl Display) {
        let Some(family) = self.family else { return };
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let pairs = family.labels.iter().copied().zip(values.iter().copied());
        let mut separator = '{';
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// Returns the whole text.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static COUNTED: Family =
        Family { name: "x_total", kind: Kind::Counter, labels: &["who", "why"], help: "Back\\slash\nand more." };
    static TIMED: Family = Family { name: "y_seconds", kind: Kind::Histogram, labels: &[], help: "Time." };

    #[test]
    fn what_a_label_or_a_help_holds_cannot_break_its_line() {
        let mut page = Page::default();
        page.begin(&COUNTED);
        page.sample(&["a\"b\\c\nd", ""], 3);
        assert_eq!(
            page.into_text(),
            "# HELP x_total Back\\\\slash\\nand more.\n# TYPE x_total counter\nx_total{who=\"a\\\"b\\\\c\\nd\",why=\"\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_its_sum_and_its_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(250));
        let mut page = Page::default();
        page.begin(&TIMED);
        page.histogram(&[], &histogram, 1);
        let text = page.into_text();
        assert!(text.contains("y_seconds_bucket{le=\"0.1\"} 1\ny_seconds_bucket{le=\"0.5\"} 2\n"), "{text}");
        assert!(text.ends_with("y_seconds_bucket{le=\"+Inf\"} 2\ny_seconds_sum 0.25\ny_seconds_count 2\n"), "{text}");
    }
}
