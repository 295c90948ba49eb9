//! What a check found, as text, JSON, a JUnit report or GitHub workflow commands.

use std::fmt::Write as _;
use std::path::PathBuf;

use keyside_protocol::level::ValidationLevel;
use keyside_protocol::message::{CheckResult, CheckStatus};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Paint, columns, paint, printable};

/// Where a reference was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub(super) enum Place {
    /// On the command line.
    Argument,
    /// On standard input.
    Stdin {
        /// 1-based.
        line: usize,
    },
    /// In a file.
    File {
        /// As it was given.
        file: PathBuf,
        /// 1-based.
        line: usize,
        /// Such as `env.db.password`.
        path: String,
    },
    /// In a component of a ZenML stack.
    Stack {
        /// The stack's name.
        stack: String,
        /// The component's type and name.
        component: String,
        /// The attribute.
        attribute: String,
    },
    /// In the environment.
    #[serde(rename = "env")]
    Variable {
        /// The variable.
        #[serde(rename = "variable")]
        name: String,
    },
}

impl Place {
    fn text(&self) -> String {
        match self {
            Self::Argument => "argument".into(),
            Self::Stdin { line } => format!("stdin:{line}"),
            Self::File { file, line, path } => {
                let text = format!("{}:{line} {path}", file.display());
                printable(text.trim_end()).into_owned()
            }
            Self::Stack { stack, component, attribute } => {
                printable(&format!("stack {stack}: {component}, {attribute}")).into_owned()
            }
            Self::Variable { name } => format!("${}", printable(name)),
        }
    }
}

/// One reference, all its places, and, once it is known, the answer.
#[derive(Debug)]
pub(super) struct Finding {
    /// `{{name.key}}`, or the text that is none.
    pub(super) reference: String,
    /// The agent's answer, or ours for what is no reference.
    pub(super) result: Option<CheckResult>,
    /// At least one.
    pub(super) places: Vec<Place>,
}

impl Finding {
    fn status(&self) -> CheckStatus {
        self.result.as_ref().map_or(CheckStatus::Unavailable, |result| result.status)
    }

    fn passes(&self) -> bool {
        matches!(self.status(), CheckStatus::Ok | CheckStatus::Skipped)
    }

    /// Everything that is known beyond the status, in one line.
    fn remark(&self) -> String {
        let Some(result) = &self.result else { return String::new() };
        let backend = result.backend.as_deref().filter(|backend| !backend.is_empty());
        let backend =
            backend.map(|backend| if self.passes() { format!("in {backend}") } else { format!("asked {backend}") });
        let parts: Vec<_> = backend.into_iter().chain(result.hint.clone()).collect();
        printable(&parts.join("; ")).into_owned()
    }
}

/// A whole check.
#[derive(Debug)]
pub(super) struct Report {
    /// The level that was applied; not known when nothing had to be asked.
    pub(super) level: Option<ValidationLevel>,
    /// Calls made to back-ends.
    pub(super) backend_calls: u64,
    /// In the order given.
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// A definite no comes before an unknown.
    pub(super) fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        for finding in &self.findings {
            match finding.status() {
                CheckStatus::Ok | CheckStatus::Skipped => {}
                CheckStatus::Unavailable => exit = Exit::Unavailable,
                CheckStatus::SecretMissing
                | CheckStatus::KeyMissing
                | CheckStatus::NotPermitted
                | CheckStatus::Invalid => return Exit::No,
            }
        }
        exit
    }
}

/// Returns a line for each place: status, reference, place, remark.
pub(super) fn text(report: &Report, color: bool) -> String {
    let mut rows = Vec::new();
    for finding in &report.findings {
        for place in &finding.places {
            let reference = printable(&finding.reference).into_owned();
            rows.push(vec![finding.status().as_str().to_owned(), reference, place.text(), finding.remark()]);
        }
    }
    let text = columns(&rows);
    if !color {
        return text;
    }
    // Coloured after the layout: escapes have no width.
    text.lines().fold(String::new(), |mut colored, line| {
        let (status, rest) = line.split_once(' ').unwrap_or((line, ""));
        let tint = match status {
            "ok" => Paint::Green,
            "skipped" | "unavailable" => Paint::Yellow,
            _ => Paint::Red,
        };
        let _ = writeln!(colored, "{} {rest}", paint(status, tint, true));
        colored
    })
}

/// Returns one sentence for standard error.
pub(super) fn summary(report: &Report) -> String {
    let count = report.findings.len();
    let failed = report.findings.iter().filter(|finding| !finding.passes()).count();
    let references = if count == 1 { "reference" } else { "references" };
    let calls = if report.backend_calls == 1 { "call" } else { "calls" };
    let level = report
        .level
        .map_or(String::new(), |level| format!(" at level {level}, {} back-end {calls}", report.backend_calls));
    match failed {
        0 => format!("{count} {references} checked{level}: all pass"),
        _ => format!("{count} {references} checked{level}: {failed} do not pass"),
    }
}

/// The report as a program reads it.
#[derive(Serialize)]
struct JsonReport<'a> {
    ok: bool,
    /// Null when nothing had to be asked.
    level: Option<ValidationLevel>,
    results: Vec<JsonResult<'a>>,
    backend_calls: u64,
}

#[derive(Serialize)]
struct JsonResult<'a> {
    reference: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    places: &'a [Place],
}

/// Returns one JSON object.
pub(super) fn json(report: &Report) -> String {
    let report = JsonReport {
        ok: report.findings.iter().all(Finding::passes),
        level: report.level,
        results: report.findings.iter().map(JsonResult::of).collect(),
        backend_calls: report.backend_calls,
    };
    serde_json::to_string_pretty(&report).expect("strings, numbers and lists are always JSON") + "\n"
}

impl<'a> JsonResult<'a> {
    fn of(finding: &'a Finding) -> Self {
        let result = finding.result.as_ref();
        Self {
            reference: &finding.reference,
            status: finding.status().as_str(),
            backend: result.and_then(|result| result.backend.as_deref()),
            hint: result.and_then(|result| result.hint.as_deref()),
            places: &finding.places,
        }
    }
}

/// Returns a JUnit report: a test case a place.
pub(super) fn junit(report: &Report) -> String {
    let (mut cases, mut failures, mut errors, mut skipped, mut tests) = (String::new(), 0, 0, 0, 0);
    for finding in &report.findings {
        for place in &finding.places {
            tests += 1;
            let status = finding.status();
            let _ = write!(
                cases,
                "    <testcase classname=\"{}\" name=\"{}\"",
                xml(&place.text()),
                xml(&finding.reference)
            );
            if let Place::File { file, line, .. } = place {
                let _ = write!(cases, " file=\"{}\" line=\"{line}\"", xml(&file.to_string_lossy()));
            }
            let element = match status {
                CheckStatus::Ok => {
                    cases.push_str("/>\n");
                    continue;
                }
                CheckStatus::Skipped => {
                    skipped += 1;
                    cases.push_str("><skipped/></testcase>\n");
                    continue;
                }
                CheckStatus::Unavailable => {
                    errors += 1;
                    "error"
                }
                _ => {
                    failures += 1;
                    "failure"
                }
            };
            let _ = writeln!(
                cases,
                "><{element} type=\"{}\" message=\"{}\"/></testcase>",
                status.as_str(),
                xml(&message(finding))
            );
        }
    }
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"keyside check\" {counts} skipped=\"{skipped}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

/// Returns a workflow command for each place that does not pass.
pub(super) fn github(report: &Report) -> String {
    let mut text = String::new();
    for finding in report.findings.iter().filter(|finding| !finding.passes()) {
        for place in &finding.places {
            let title = format!("keyside check: {}", finding.status().as_str());
            let place_properties = match place {
                Place::File { file, line, .. } => {
                    format!("file={},line={line},", workflow_property(&file.to_string_lossy()))
                }
                _ => String::new(),
            };
            let mut words = message(finding);
            if !matches!(place, Place::Argument) {
                let _ = write!(words, " ({})", place.text());
            }
            let _ = writeln!(
                text,
                "::error {place_properties}title={}::{}",
                workflow_property(&title),
                workflow_data(&words)
            );
        }
    }
    text
}

fn message(finding: &Finding) -> String {
    let remark = finding.remark();
    let separator = if remark.is_empty() { "" } else { ": " };
    format!("{} {}{separator}{remark}", finding.reference, finding.status().as_str())
}

/// Escapes for XML text and attributes; what XML 1.0 cannot hold at all is replaced.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(safe, "&#{};", u32::from(char));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(char),
        }
    }
    safe
}

/// Escapes the message of a workflow command (actions/toolkit, `command.ts`).
fn workflow_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of a workflow command.
fn workflow_property(text: &str) -> String {
    workflow_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(reference: &str, status: CheckStatus, place: Place) -> Finding {
        let result = CheckResult {
            reference: reference.into(),
            status,
            backend: Some("store".into()),
            hint: (status == CheckStatus::KeyMissing).then(|| "did you mean <b>?".into()),
        };
        Finding { reference: reference.into(), result: Some(result), places: vec![place] }
    }

    fn report(findings: Vec<Finding>) -> Report {
        Report { level: Some(ValidationLevel::SecretAndKeyExists), backend_calls: 1, findings }
    }

    fn file() -> Place {
        Place::File { file: "a,b:c.yaml".into(), line: 3, path: "env.db".into() }
    }

    #[test]
    fn a_definite_no_comes_before_an_unknown() {
        for (statuses, code) in [
            (vec![CheckStatus::Ok, CheckStatus::Skipped], 0),
            (vec![CheckStatus::Unavailable, CheckStatus::Ok], 69),
            (vec![CheckStatus::Unavailable, CheckStatus::SecretMissing], 1),
            (vec![CheckStatus::NotPermitted], 1),
            (vec![CheckStatus::Invalid], 1),
            (vec![], 0),
        ] {
            let findings = statuses.iter().map(|&status| finding("{{a.b}}", status, Place::Argument)).collect();
            assert_eq!(report(findings).exit().code(), code, "{statuses:?}");
        }
    }

    #[test]
    fn text_is_a_line_a_place() {
        let text = text(
            &report(vec![
                finding("{{a.b}}", CheckStatus::Ok, Place::Argument),
                finding("{{long.name}}", CheckStatus::KeyMissing, file()),
            ]),
            false,
        );
        assert_eq!(
            text,
            "ok           {{a.b}}        argument             in store\n\
             key_missing  {{long.name}}  a,b:c.yaml:3 env.db  asked store; did you mean <b>?\n"
        );
    }

    #[test]
    fn workflow_commands_are_escaped() {
        let text = github(&report(vec![
            finding("{{a.b}}", CheckStatus::Ok, Place::Argument),
            finding("{{50%.k}}", CheckStatus::KeyMissing, file()),
        ]));
        assert_eq!(
            text,
            "::error file=a%2Cb%3Ac.yaml,line=3,title=keyside check%3A key_missing::{{50%25.k}} key_missing: asked store; did you mean <b>? (a,b:c.yaml:3 env.db)\n"
        );
    }

    #[test]
    fn junit_is_escaped_and_counted() {
        let text = junit(&report(vec![
            finding("{{a.b}}", CheckStatus::Ok, Place::Argument),
            finding("{{a\u{1}.<k>}}", CheckStatus::KeyMissing, file()),
            finding("{{c.d}}", CheckStatus::Unavailable, Place::Argument),
            finding("{{e.f}}", CheckStatus::Skipped, Place::Argument),
        ]));
        assert!(text.contains("tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"1\""), "{text}");
        assert!(text.contains("name=\"{{a\u{fffd}.&lt;k&gt;}}\" file=\"a,b:c.yaml\" line=\"3\""), "{text}");
        assert!(text.contains("did you mean &lt;b&gt;?"), "{text}");
    }

    #[test]
    fn json_names_every_place() {
        let text = json(&report(vec![finding("{{a.b}}", CheckStatus::KeyMissing, file())]));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["ok"], false);
        assert_eq!(value["results"][0]["status"], "key_missing");
        assert_eq!(value["results"][0]["places"][0]["line"], 3);
        assert_eq!(value["results"][0]["places"][0]["path"], "env.db");
    }
}
