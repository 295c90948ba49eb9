//! What was found: a verdict on each mechanism, in words, with advice where something can be done.

use serde::Serialize;

use crate::output::{Paint, columns, paint, printable};

/// A verdict. `secure`, `weak` and `insecure` are for mechanisms that keep values from others; `ok` and `wrong` for what
/// works or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Works, or is as it should be.
    Ok,
    /// Keeps values from others as well as this kind of host can.
    Secure,
    /// Keeps values from others, with a gap that is named.
    Weak,
    /// Others can come by values.
    Insecure,
    /// Does not work.
    Wrong,
    /// Could not be looked at.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Secure => "secure",
            Self::Weak => "weak",
            Self::Insecure => "insecure",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }

    fn paint(self) -> Paint {
        match self {
            Self::Ok | Self::Secure => Paint::Green,
            Self::Weak | Self::Unknown => Paint::Yellow,
            Self::Insecure | Self::Wrong => Paint::Red,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at, in stable words.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What was found, in one line.
    pub(super) what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// Everything found so far, in order.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding that nothing needs to be done about.
    pub(super) fn add(&mut self, check: &'static str, verdict: Verdict, what: impl AsRef<str>) {
        self.0.push(Finding { check, verdict, what: printable(what.as_ref()).into_owned(), hint: None });
    }

    /// Adds a finding with advice.
    pub(super) fn advise(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        what: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) {
        self.add(check, verdict, what);
        if let Some(last) = self.0.last_mut() {
            last.hint = Some(printable(hint.as_ref()).into_owned());
        }
    }

    /// Returns how many have one of these verdicts.
    pub(super) fn count(&self, verdicts: &[Verdict]) -> usize {
        self.0.iter().filter(|finding| verdicts.contains(&finding.verdict)).count()
    }

    /// Lays them out for people: a line each, and a line for the advice below it.
    pub(super) fn text(&self, color: bool) -> String {
        let row = |finding: &Finding| {
            // Every first cell is painted or none is, so they stay aligned.
            vec![
                paint(finding.verdict.word(), finding.verdict.paint(), color),
                finding.check.to_owned(),
                finding.what.clone(),
            ]
        };
        let table = columns(&self.0.iter().map(row).collect::<Vec<_>>());
        let mut text = String::new();
        for (line, finding) in table.lines().zip(&self.0) {
            text.push_str(line);
            text.push('\n');
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("          hint: {hint}\n"));
            }
        }
        text
    }

    /// Lays them out for programs: one object.
    pub(super) fn json(&self) -> String {
        let ok = self.count(&[Verdict::Insecure, Verdict::Wrong]) == 0;
        let value = serde_json::json!({ "ok": ok, "findings": self.0 });
        format!("{value:#}\n")
    }

    #[cfg(test)]
    pub(super) fn last(&self) -> &Finding {
        self.0.last().expect("something was found")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_its_advice_below() {
        let mut findings = Findings::default();
        findings.add("kernel", Verdict::Ok, "Linux");
        findings.advise("swap", Verdict::Weak, "on\nforged", "turn it off");
        assert_eq!(
            findings.text(false),
            "ok    kernel  Linux\nweak  swap    on\\nforged\n          hint: turn it off\n"
        );
        let json: serde_json::Value = serde_json::from_str(&findings.json()).expect("JSON");
        assert_eq!((&json["ok"], &json["findings"][1]["verdict"]), (&true.into(), &"weak".into()));
    }
}
