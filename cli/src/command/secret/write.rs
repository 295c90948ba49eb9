//! `secret create`, `update`, `rename` and `delete`.

use keyside_exec_wrapper::client::encode_segment;
use keyside_protocol::json::{SecretBuffer, push_string, push_value, push_values};
use keyside_protocol::message::WriteReply;
use keyside_protocol::value::SecretValues;
use serde_json::json;

use super::args::SecretArgs;
use super::{input, read};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, printable};
use crate::session::{Session, query};
use crate::table::{self, TableFormat};

/// Makes a secret.
pub(super) fn create(globals: &Globals, mut args: SecretArgs) -> Result<Exit, Failure> {
    let private = args.private.unwrap_or(args.scope.as_deref() == Some("user"));
    let values = input::values(&mut args)?;
    let target = format!("/v1/secrets{}", query(args.backend.as_deref(), None));
    let doing = format!("create secret `{}`", printable(&args.name));
    let reply = send(globals, &doing, "POST", &target, Some(&create_body(&args.name, private, &values)))?;
    answer(&args, "created", &reply)
}

/// Sets and removes keys.
pub(super) fn update(globals: &Globals, mut args: SecretArgs) -> Result<Exit, Failure> {
    let values = input::values(&mut args)?;
    let mut body = SecretBuffer::with_capacity(values.byte_size() + 256);
    body.push(b"{\"values\":{");
    let mut separator: &[u8] = b"";
    for (key, value) in values.iter() {
        body.push(separator);
        push_string(&mut body, key);
        body.push(b":");
        push_value(&mut body, value);
        separator = b",";
    }
    let mut removed: Vec<&str> = args.remove_keys.iter().map(String::as_str).collect();
    removed.sort_unstable();
    removed.dedup();
    for key in removed {
        body.push(separator);
        push_string(&mut body, key);
        body.push(b":null");
        separator = b",";
    }
    body.push(b"}");
    if let Some(private) = args.private {
        body.push(format!(",\"private\":{private}").as_bytes());
    }
    body.push(b"}");
    // `-p` is the new state here; which secret is meant, only `-s` and `--backend` say.
    let target = one(&args.name, &query(args.backend.as_deref(), args.scope.as_deref()));
    let reply = send(globals, &format!("update secret `{}`", printable(&args.name)), "PATCH", &target, Some(&body))?;
    answer(&args, "updated", &reply)
}

/// Gives a secret another name.
pub(super) fn rename(globals: &Globals, args: &SecretArgs) -> Result<Exit, Failure> {
    let new_name = args.new_name.as_deref().expect("the parser asks for it");
    let mut body = SecretBuffer::with_capacity(300);
    body.push(b"{\"name\":");
    push_string(&mut body, new_name);
    body.push(b"}");
    let target = one(&args.name, &query(args.backend.as_deref(), read::scope(args)?));
    let reply = send(globals, &format!("rename secret `{}`", printable(&args.name)), "PATCH", &target, Some(&body))?;
    answer(args, &format!("renamed `{}` to", printable(&args.name)), &reply)
}

/// Deletes a secret, after asking.
pub(super) fn delete(globals: &Globals, args: &SecretArgs) -> Result<Exit, Failure> {
    let target = one(&args.name, &query(args.backend.as_deref(), read::scope(args)?));
    if !args.yes && !input::confirm(&format!("delete secret `{}`?", printable(&args.name)))? {
        return Err(Failure::new(Exit::No, "nothing was deleted"));
    }
    let reply = send(globals, &format!("delete secret `{}`", printable(&args.name)), "DELETE", &target, None)?;
    answer(args, "deleted", &reply)
}

/// Returns the body of `POST /v1/secrets`, in a wiped buffer.
pub(in crate::command) fn create_body(name: &str, private: bool, values: &SecretValues) -> SecretBuffer {
    let mut body = SecretBuffer::with_capacity(values.byte_size() + 64 * values.len() + 512);
    body.push(b"{\"name\":");
    push_string(&mut body, name);
    body.push(format!(",\"private\":{private},\"values\":").as_bytes());
    push_values(&mut body, values.iter());
    body.push(b"}");
    body
}

fn one(name: &str, query: &str) -> String {
    format!("/v1/secrets/{}{query}", encode_segment(name))
}

fn send(
    globals: &Globals,
    doing: &str,
    method: &str,
    target: &str,
    body: Option<&SecretBuffer>,
) -> Result<WriteReply, Failure> {
    let mut session = Session::open(globals)?;
    // expose: into the agent's socket.
    let reply = session.ask(doing, method, target, body.map(SecretBuffer::expose))?;
    session.end();
    Ok(reply)
}

/// Says what was done: a sentence for people, a record for programs.
fn answer(args: &SecretArgs, done: &str, reply: &WriteReply) -> Result<Exit, Failure> {
    let text = match args.format {
        TableFormat::Table => {
            let scope = reply.scope.as_deref().map(|scope| format!("{scope}, ")).unwrap_or_default();
            let written = reply.keys.as_deref().unwrap_or_default();
            let keys =
                if written.is_empty() { String::new() } else { format!(", keys {}", printable(&written.join(", "))) };
            format!("{done} `{}` ({scope}back-end {}{keys})\n", printable(&reply.name), reply.backend)
        }
        format => table::record(
            format,
            &["name", "id", "scope", "backend", "version", "keys"],
            &[
                json!(reply.name),
                json!(reply.id),
                json!(reply.scope),
                json!(reply.backend),
                json!(reply.version),
                json!(reply.keys),
            ],
        ),
    };
    print(text.as_bytes())?;
    Ok(Exit::Done)
}
