//! `GET /v1/stack?name=NAME`: which references stand in the components of one of ZenML's stacks.

use http::Request;
use hyper::body::Incoming;
use keyside_protocol::code::Code;
use keyside_protocol::message::{StackReference, StackReply};
use keyside_protocol::reference::{Reference, ReferenceError};

use super::request::Query;
use super::respond::{ApiError, code_of, json};
use super::{Agent, Reply};
use crate::access::Viewer;
use crate::audit::Draft;
use crate::backend::{BackendError, Stack};

/// Answers with the references of a stack; for whoever may read every secret, since they name secrets.
pub(super) async fn stack(
    agent: &Agent,
    viewer: &Viewer<'_>,
    request: &Request<Incoming>,
    draft: &mut Draft,
) -> Result<Reply, ApiError> {
    draft.operation = "stack";
    let query = Query::parse(request.uri().query(), &["name"])?;
    let name = query.get("name").filter(|name| !name.is_empty()).ok_or_else(|| {
        ApiError::new(Code::InvalidRequest, "no stack is named").hint("name one, or its id: /v1/stack?name=NAME")
    })?;
    if !viewer.may_administer() && !viewer.may_read_whole("*") {
        return Err(ApiError::new(
            Code::PeerRefused,
            "the references of a stack are for peers that may read every secret",
        )
        .hint("export the stack (`zenml stack export`) and check the file"));
    }
    let mut knows_stacks = false;
    for source in agent.resolver.sources() {
        match source.stack(name).await {
            Ok(None) => {}
            Ok(Some(stack)) => return Ok(json(200, &reply(stack, &source.name))),
            Err(BackendError::NotFound) => knows_stacks = true,
            Err(error) => {
                let reply = ApiError::new(code_of(&error), error.to_string());
                let reply = if error.is_transient() { reply.retry() } else { reply };
                return Err(match error.hint() {
                    Some(hint) => reply.hint(hint),
                    None => reply,
                });
            }
        }
    }
    Err(if knows_stacks {
        ApiError::new(Code::Unresolved, format!("there is no stack `{name}`")).hint("`zenml stack list` shows them")
    } else {
        ApiError::new(Code::Unresolved, "no back-end of this agent knows of stacks").hint(
            "configure the ZenML server as a back-end, or export the stack (`zenml stack export`) and check the file",
        )
    })
}

fn reply(stack: Stack, backend: &str) -> StackReply {
    let mut references = Vec::new();
    for component in stack.components {
        let title = format!("{} {}", component.kind, component.name);
        for (attribute, text) in component.texts {
            // What only looks like one is worth an answer, too.
            if !matches!(Reference::parse(&text), Err(ReferenceError::NotAReference)) {
                references.push(StackReference { component: title.clone(), attribute, reference: text });
            }
        }
    }
    references.sort();
    StackReply { stack: stack.name, backend: backend.to_owned(), references }
}
