//! One `POST /v1/resolve` with everything: which references are wanted, for what, and what came back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use keyside_protocol::code::Code;
use keyside_protocol::message::{Failure, Problem, ResolveReply, ResolveRequest};
use keyside_protocol::reference::Reference;
use keyside_protocol::value::{SecretValue, SecretValues};

use crate::Globals;
use crate::client::{Client, ClientError, Reply};
use crate::connect::{ConnectError, Connection, connect};
use crate::environment::{Inherited, Slot};
use crate::plan::Plan;
use crate::report::Complaint;

/// How long to wait before asking again, where the agent does not say.
const PAUSE: Duration = Duration::from_millis(250);
/// The least pause, even where the agent says "at once": it is not to be asked in a circle.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// Every distinct reference and whole secret, and the targets that each feeds, as a person calls them.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) references: BTreeMap<Reference, Vec<String>>,
    pub(crate) secrets: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// Collects what the plan and the inherited environment need.
    pub(crate) fn collect(plan: &Plan, inherited: &Inherited) -> Self {
        let mut wanted = Self::default();
        for slot in &inherited.slots {
            if let Slot::Reference { name, reference } = slot {
                wanted.reference(reference, String::from_utf8_lossy(name).into_owned());
            }
        }
        for bulk in &plan.secrets {
            wanted.secret(&bulk.name, format!("variables {}*", bulk.prefix));
        }
        for variable in &plan.variables {
            // What a later source sets is not needed, and must not fail the start.
            if plan.variable(&variable.name).is_some_and(|last| std::ptr::eq(last, variable))
                && !is_passed_through(plan, inherited, &variable.name)
            {
                for reference in variable.text.references() {
                    wanted.reference(reference, String::from_utf8_lossy(&variable.name).into_owned());
                }
            }
        }
        for file in &plan.files {
            for reference in file.text.references() {
                wanted.reference(reference, format!("file {}", file.name));
            }
        }
        for name in &plan.secret_files {
            wanted.secret(name, format!("files {name}/*"));
        }
        wanted
    }

    fn reference(&mut self, reference: &Reference, target: String) {
        let targets = self.references.entry(reference.clone()).or_default();
        if !targets.contains(&target) {
            targets.push(target);
        }
    }

    fn secret(&mut self, name: &str, target: String) {
        self.secrets.entry(name.to_owned()).or_default().push(target);
    }

    /// Tells whether no agent is needed at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.references.is_empty() && self.secrets.is_empty()
    }

    /// Returns the targets of a reference or secret, as the agent spells it.
    pub(crate) fn targets(&self, reference: &str) -> Vec<&str> {
        let by_reference =
            self.references.iter().filter(|(known, _)| known.to_string() == reference).flat_map(|(_, to)| to);
        let by_secret = self.secrets.get(reference).into_iter().flatten();
        by_reference.chain(by_secret).map(String::as_str).collect()
    }

    /// Returns one failure for each thing that is wanted, for when nobody could be asked.
    pub(crate) fn all_failed(&self, code: Code, hint: Option<&str>) -> Vec<Failure> {
        let names = self.references.keys().map(ToString::to_string).chain(self.secrets.keys().cloned());
        let failure = |reference| Failure {
            reference,
            code,
            backends: Vec::new(),
            retry: code.is_transient(),
            hint: hint.map(str::to_owned),
        };
        names.map(failure).collect()
    }
}

/// Tells whether `--env VAR` keeps an inherited value that is there.
pub(crate) fn is_passed_through(plan: &Plan, inherited: &Inherited, name: &[u8]) -> bool {
    plan.passed_through.contains(name) && (inherited.plain(name).is_some() || inherited.is_reference(name))
}

/// Everything that was wanted.
#[derive(Default)]
pub(crate) struct Answers {
    values: BTreeMap<Reference, SecretValue>,
    secrets: BTreeMap<String, SecretValues>,
}

impl Answers {
    /// Returns the value of a reference that was wanted.
    pub(crate) fn value(&self, reference: &Reference) -> &SecretValue {
        self.values.get(reference).expect("every wanted reference was answered")
    }

    /// Returns the pairs of a secret that was wanted whole.
    pub(crate) fn secret(&self, name: &str) -> &SecretValues {
        self.secrets.get(name).expect("every wanted secret was answered")
    }
}

/// Why nothing was resolved.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) complaints: Vec<Complaint>,
    /// For `--report`.
    pub(crate) failures: Vec<Failure>,
    /// Whether only transient failures stood in the way.
    pub(crate) transient: bool,
    /// Whether the connection is of no further use.
    unanswered: bool,
    retry_after: Option<Duration>,
}

/// Asks the agent, again and again for `plan.wait` while only transient failures stand in the way.
pub(crate) fn fetch(
    globals: &Globals,
    socket: Option<&Path>,
    plan: &Plan,
    wanted: &Wanted,
) -> Result<Answers, Refusal> {
    let until = Instant::now() + plan.wait;
    // Numbers as ids: the references themselves are the agent's business once only.
    let request = ResolveRequest {
        references: wanted
            .references
            .keys()
            .enumerate()
            .map(|(id, reference)| (id.to_string(), reference.to_string()))
            .collect(),
        secrets: wanted.secrets.keys().cloned().collect(),
        ..ResolveRequest::default()
    };
    let body = serde_json::to_vec(&request).expect("strings only");
    let mut kept: Option<Connection> = None;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut connection = match kept.take().map_or_else(|| connect(globals, socket, left), Ok) {
            Ok(connection) => connection,
            Err(error) => return Err(no_connection(&error, wanted)),
        };
        let embedded = connection.is_embedded();
        let refusal = match ask(connection.client(), &body, wanted, plan.timeout, embedded) {
            Ok(answers) => {
                connection.end();
                return Ok(answers);
            }
            Err(refusal) => refusal,
        };
        let left = until.saturating_duration_since(Instant::now());
        if !refusal.transient || left.is_zero() {
            connection.end();
            return Err(refusal);
        }
        // A socket is connected anew: the agent behind it may be another one by then. A private agent is kept, unless
        // it owes an answer: that would be taken for the next one.
        if embedded && !refusal.unanswered {
            kept = Some(connection);
        } else {
            connection.end();
        }
        std::thread::sleep(refusal.retry_after.unwrap_or(PAUSE).max(LEAST_PAUSE).min(left));
    }
}

fn no_connection(error: &ConnectError, wanted: &Wanted) -> Refusal {
    let transient = error.is_transient();
    let code = if transient { Code::BackendUnavailable } else { Code::PeerRefused };
    let complaint = Complaint { what: error.to_string(), hint: error.hint() };
    let failures = wanted.all_failed(code, complaint.hint.as_deref());
    Refusal { complaints: vec![complaint], failures, transient, unanswered: true, retry_after: None }
}

fn ask(
    client: &mut Client,
    body: &[u8],
    wanted: &Wanted,
    timeout: Duration,
    embedded: bool,
) -> Result<Answers, Refusal> {
    let reply = client.send("POST", "/v1/resolve", &[], Some(body), timeout).map_err(|error| {
        let hangs = matches!(error, ClientError::TimedOut { .. });
        let mut refusal = no_connection(&ConnectError::Client(error), wanted);
        if embedded && hangs {
            refusal.complaints[0].hint = Some(
                "a back-end may hang or be slow; give it longer with --timeout, or try again with --wait".to_owned(),
            );
        } else if embedded && refusal.transient {
            // A private agent that ends has said why on stderr, and would say it again.
            refusal.transient = false;
            refusal.complaints = vec![Complaint::new(
                "the private agent ended before it had answered",
                "its own messages, above, say why",
            )];
        }
        refusal
    })?;
    if reply.status == 200 {
        return answers(&reply, wanted).ok_or_else(|| unreadable(wanted));
    }
    Err(refusal(&reply, wanted))
}

fn unreadable(wanted: &Wanted) -> Refusal {
    no_connection(&ConnectError::Client(ClientError::Malformed("it is not an answer to a resolve")), wanted)
}

fn answers(reply: &Reply, wanted: &Wanted) -> Option<Answers> {
    // serde's own errors could quote a value, so none is kept.
    let mut reply: ResolveReply = serde_json::from_slice(reply.body()).ok()?;
    let mut answers = Answers::default();
    for (id, reference) in wanted.references.keys().enumerate() {
        answers.values.insert(reference.clone(), reply.values.remove(&id.to_string())?);
    }
    for name in wanted.secrets.keys() {
        answers.secrets.insert(name.clone(), reply.secrets.remove(name)?.values);
    }
    Some(answers)
}

fn refusal(reply: &Reply, wanted: &Wanted) -> Refusal {
    let retry_after = reply.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let Some(problem) = reply.problem() else {
        let complaint = Complaint::new(
            format!("the agent answered with HTTP status {} and no reason", reply.status),
            "is it a Keyside agent, at most two minor versions apart from this program?",
        );
        let transient = reply.status == 503;
        let code = if transient { Code::BackendUnavailable } else { Code::Internal };
        return Refusal {
            complaints: vec![complaint],
            failures: wanted.all_failed(code, None),
            transient,
            unanswered: false,
            retry_after,
        };
    };
    let Problem { code, detail, hint, failures, .. } = problem;
    if failures.is_empty() {
        let failures = wanted.all_failed(code, hint.as_deref());
        let complaint = Complaint { what: format!("the agent refuses the request: {detail} ({code})"), hint };
        let transient = code.is_transient();
        return Refusal { complaints: vec![complaint], failures, transient, unanswered: false, retry_after };
    }
    let complaints = failures.iter().map(|failure| complaint(failure, wanted)).collect();
    let transient = reply.status == 503 && failures.iter().all(|failure| failure.retry || failure.code.is_transient());
    Refusal { complaints, failures, transient, unanswered: false, retry_after }
}

fn complaint(failure: &Failure, wanted: &Wanted) -> Complaint {
    let mut what = format!("{} cannot be resolved: {}", failure.reference, failure.code);
    if !failure.backends.is_empty() {
        what.push_str(&format!(" (asked {})", failure.backends.join(", ")));
    }
    let targets = wanted.targets(&failure.reference);
    if !targets.is_empty() {
        what.push_str(&format!("; wanted for {}", targets.join(", ")));
    }
    Complaint { what, hint: failure.hint.clone() }
}

#[cfg(test)]
mod tests {
    use keyside_protocol::settings::ExecSettings;

    use super::*;
    use crate::AgentMode;
    use crate::args::Written;

    /// Asks a private agent that is this script; its socket is its stdin.
    fn asked(script: &str, wait: Duration, timeout: Duration) -> Result<Answers, Refusal> {
        let argv = ["/bin/sh", "-c", script].map(Into::into).to_vec();
        let globals = Globals { embedded: Some(argv), agent: Some(AgentMode::Embedded), ..Globals::default() };
        let written = Written {
            env: vec!["A={{db.user}}".into()],
            wait: Some(wait),
            timeout: Some(timeout),
            command: vec!["true".into()],
            ..Written::default()
        };
        let plan = Plan::make(written, ExecSettings::default()).expect("a plan");
        let wanted = Wanted::collect(&plan, &Inherited::default());
        fetch(&globals, None, &plan, &wanted)
    }

    #[test]
    fn a_private_agent_that_does_not_answer_in_time_is_a_transient_failure() {
        let refusal = asked("exec sleep 1000", Duration::ZERO, Duration::from_millis(50)).err().expect("no answer");
        assert!(refusal.transient && refusal.failures.iter().all(|failure| failure.retry));
        assert!(refusal.complaints[0].what.contains("did not answer within 50ms"), "{refusal:?}");
        assert!(refusal.complaints[0].hint.is_some());
    }

    #[test]
    fn another_private_agent_is_asked_within_the_wait_after_one_that_did_not_answer() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let script = format!(
            "read -r line; test -e {0} || {{ touch {0}; exec sleep 1000; }}; body='{1}'; \
             printf 'HTTP/1.1 200 OK\\r\\ncontent-length: %s\\r\\n\\r\\n%s' ${{#body}} \"$body\" >&0; cat >/dev/null",
            directory.path().join("asked").display(),
            r#"{"generation":"g","values":{"0":"alice"},"secrets":{}}"#
        );
        let answers = asked(&script, Duration::from_secs(60), Duration::from_secs(2)).expect("the second one answers");
        let reference = Reference::parse("{{db.user}}").expect("a reference");
        // expose: a made-up value, compared.
        assert_eq!(answers.value(&reference).expose(), b"alice");
    }

    #[test]
    fn a_private_agent_that_ends_without_an_answer_is_not_started_again() {
        let refusal = asked("exit 1", Duration::from_secs(600), Duration::from_secs(60)).err().expect("no answer");
        assert!(!refusal.transient && refusal.complaints[0].what.contains("ended before"), "{refusal:?}");
    }
}
