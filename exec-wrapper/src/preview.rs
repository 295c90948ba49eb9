//! What can be said without starting anything: `--dry-run`, which asks nobody, and `--check-only`.

use std::fmt::Write as _;
use std::path::Path;

use keyside_protocol::code::Code;
use keyside_protocol::level::{LEVEL_VARIABLE, ValidationLevel};
use keyside_protocol::message::{CheckReply, CheckRequest, CheckResult, CheckStatus, Failure, ListReply};

use crate::Globals;
use crate::client::{Client, Reply, encode_segment};
use crate::connect::connect;
use crate::environment::{Inherited, Slot};
use crate::files::{Kind, Verdict};
use crate::launch;
use crate::plan::Plan;
use crate::report::{self, Complaint, Stop};
use crate::resolve::{Wanted, is_passed_through};
use crate::text::Text;

/// Prints names, sources and targets, one a line, and where the files would be. Literal text of a template is not shown:
/// it may be a secret.
pub(crate) fn dry_run(
    plan: &Plan,
    inherited: &Inherited,
    files: Option<&Verdict>,
    program: Option<&std::ffi::CStr>,
) -> Result<(), Complaint> {
    let mut out = String::new();
    let mut line = |target: String, source: String| {
        let _ = writeln!(out, "{} <- {}", report::printable(&target), report::printable(&source));
    };
    for slot in &inherited.slots {
        if let Slot::Reference { name, reference } = slot {
            line(format!("variable {}", String::from_utf8_lossy(name)), format!("{reference} (inherited)"));
        }
    }
    for bulk in &plan.secrets {
        line(format!("variables {}*", bulk.prefix), format!("every key of {} (--secret)", bulk.name));
    }
    for variable in &plan.variables {
        let name = String::from_utf8_lossy(&variable.name);
        let overridden = !plan.variable(&variable.name).is_some_and(|last| std::ptr::eq(last, variable))
            || is_passed_through(plan, inherited, &variable.name);
        if !overridden {
            line(format!("variable {name}"), format!("{} ({})", sources(&variable.text), variable.origin));
        }
    }
    for file in &plan.files {
        line(format!("file {}", file.name), format!("{} ({})", sources(&file.text), file.origin));
        if let Some(variable) = &file.variable {
            line(format!("variable {variable}"), format!("the path of the file {} ({})", file.name, file.origin));
        }
    }
    for name in &plan.secret_files {
        line(format!("files {name}/*"), format!("every key of {name} (--secret-files)"));
    }
    if plan.place.kind == Kind::Memfd {
        line("variable KEYSIDE_FILES".to_owned(), "nothing: it is removed".to_owned());
    } else if files.is_some() {
        line("variable KEYSIDE_FILES".to_owned(), "the directory of the files".to_owned());
    }
    if let Some(verdict) = files {
        let _ = writeln!(out, "{}", report::printable(&verdict.to_string()));
    }
    if let Some(program) = program {
        let _ = writeln!(out, "command {}", report::printable(&program.to_string_lossy()));
        let mut resident = if files.is_some_and(Verdict::has_cleaner) {
            "no; a cleaner removes the files when the command has ended"
        } else {
            "no"
        }
        .to_owned();
        if let Some(duties) = launch::duties_left_undone(plan) {
            resident.push_str("; ");
            resident.push_str(duties);
        }
        let _ = writeln!(out, "stays resident: {resident}");
    }
    report::print(&out)
}

fn sources(text: &Text) -> String {
    let mut references: Vec<String> = text.references().map(ToString::to_string).collect();
    references.dedup();
    if references.is_empty() { "literal text".to_owned() } else { references.join(", ") }
}

/// Asks `/v1/check` about every reference and prints one line each, as `keyside check` does. Tells whether all are
/// there.
pub(crate) fn check(globals: &Globals, socket: Option<&Path>, plan: &Plan, wanted: &Wanted) -> Result<bool, Stop> {
    let results = match ask(globals, socket, plan, wanted) {
        Ok(results) => results,
        Err(Unasked { complaint, code }) => {
            let failures = wanted.all_failed(code, complaint.hint.as_deref());
            let mut stop = Stop::from(complaint);
            stop.complaints.extend(write_report(plan, &failures).err());
            return Err(stop);
        }
    };
    write_report(plan, &results.iter().filter_map(failure).collect::<Vec<_>>())?;
    print_results(&results, wanted)?;
    Ok(results.iter().all(|result| passes(result.status)))
}

/// Writes `--report`, where it is wanted.
pub(crate) fn write_report(plan: &Plan, failures: &[Failure]) -> Result<(), Complaint> {
    plan.report.as_ref().map_or(Ok(()), |path| report::write_failures(path, failures))
}

fn passes(status: CheckStatus) -> bool {
    matches!(status, CheckStatus::Ok | CheckStatus::Skipped)
}

/// What a resolve would have called it.
fn failure(result: &CheckResult) -> Option<Failure> {
    let code = match result.status {
        CheckStatus::Ok | CheckStatus::Skipped => return None,
        CheckStatus::SecretMissing => Code::SecretNotFound,
        CheckStatus::KeyMissing => Code::KeyNotFound,
        CheckStatus::NotPermitted => Code::BackendDenied,
        CheckStatus::Unavailable => Code::BackendUnavailable,
        CheckStatus::Invalid => Code::InvalidReference,
    };
    let backends = result.backend.as_deref().unwrap_or_default().split(", ").filter(|name| !name.is_empty());
    Some(Failure {
        reference: result.reference.clone(),
        code,
        backends: backends.map(str::to_owned).collect(),
        retry: code.is_transient(),
        hint: result.hint.clone(),
    })
}

/// Why nothing was checked.
struct Unasked {
    complaint: Complaint,
    code: Code,
}

fn ask(globals: &Globals, socket: Option<&Path>, plan: &Plan, wanted: &Wanted) -> Result<Vec<CheckResult>, Unasked> {
    let level = level_of_the_caller().map_err(|complaint| Unasked { complaint, code: Code::InvalidRequest })?;
    let mut connection = connect(globals, socket, plan.wait).map_err(|error| {
        let code = if error.is_transient() { Code::BackendUnavailable } else { Code::PeerRefused };
        Unasked { complaint: Complaint { what: error.to_string(), hint: error.hint() }, code }
    })?;
    let results = (|| {
        let client = connection.client();
        let request = CheckRequest {
            references: wanted.references.keys().map(ToString::to_string).collect(),
            level: level.map(|level| level.as_str().to_owned()),
            no_cache: false,
        };
        let body = serde_json::to_vec(&request).expect("strings only");
        let reply = send(client, "POST", "/v1/check", Some(&body), plan)?;
        let reply: CheckReply = serde_json::from_slice(reply.body()).map_err(|_| not_of_this_protocol())?;
        let mut results = reply.results;
        for name in wanted.secrets.keys() {
            let status =
                if reply.level == ValidationLevel::None { CheckStatus::Skipped } else { whole(client, name, plan)? };
            results.push(CheckResult { reference: name.clone(), status, backend: None, hint: None });
        }
        Ok(results)
    })();
    connection.end();
    results
}

fn print_results(results: &[CheckResult], wanted: &Wanted) -> Result<(), Complaint> {
    let width = results.iter().map(|result| result.reference.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for result in results {
        let backend = result.backend.as_ref().filter(|backend| !backend.is_empty());
        let backend =
            backend.map(|backend| format!("{} {backend}", if passes(result.status) { "in" } else { "asked" }));
        let remark = backend.into_iter().chain(result.hint.clone()).collect::<Vec<_>>().join("; ");
        let line = format!(
            "{:<14}  {:<width$}  {}  {remark}",
            result.status.as_str(),
            result.reference,
            wanted.targets(&result.reference).join(", ")
        );
        out.push_str(report::printable(&line).trim_end());
        out.push('\n');
    }
    report::print(&out)
}

fn level_of_the_caller() -> Result<Option<ValidationLevel>, Complaint> {
    let Some(value) = std::env::var_os(LEVEL_VARIABLE) else { return Ok(None) };
    value.to_string_lossy().parse().map(Some).map_err(|error: keyside_protocol::level::UnknownLevel| {
        Complaint::new(format!("{LEVEL_VARIABLE}: {error}"), format!("mend or unset {LEVEL_VARIABLE}"))
    })
}

/// Looks for a whole secret in the list, which reads no value. In byte order the name itself comes first among those
/// that begin with it.
fn whole(client: &mut Client, name: &str, plan: &Plan) -> Result<CheckStatus, Unasked> {
    let target = format!("/v1/secrets?prefix={}&size=1", encode_segment(name));
    let reply = send(client, "GET", &target, None, plan)?;
    let list: ListReply = serde_json::from_slice(reply.body()).map_err(|_| not_of_this_protocol())?;
    Ok(match list.secrets.first() {
        Some(first) if first.name == name => CheckStatus::Ok,
        _ if list.unavailable.is_empty() => CheckStatus::SecretMissing,
        _ => CheckStatus::Unavailable,
    })
}

fn send(client: &mut Client, method: &str, target: &str, body: Option<&[u8]>, plan: &Plan) -> Result<Reply, Unasked> {
    let reply = client.send(method, target, &[], body, plan.timeout).map_err(|error| {
        let code = if error.is_transient() { Code::BackendUnavailable } else { Code::PeerRefused };
        Unasked { complaint: Complaint { what: error.to_string(), hint: error.hint() }, code }
    })?;
    match reply.problem() {
        Some(problem) => Err(Unasked {
            complaint: Complaint {
                what: format!("the agent refuses the request: {} ({})", problem.detail, problem.code),
                hint: problem.hint,
            },
            code: problem.code,
        }),
        None if reply.status == 200 => Ok(reply),
        None => Err(unlike_an_agent(format!("the agent answered with HTTP status {} and no reason", reply.status))),
    }
}

fn not_of_this_protocol() -> Unasked {
    unlike_an_agent("the agent's reply cannot be read".to_owned())
}

fn unlike_an_agent(what: String) -> Unasked {
    let hint = "is it a Keyside agent, at most two minor versions apart from this program?";
    Unasked { complaint: Complaint::new(what, hint), code: Code::Internal }
}
