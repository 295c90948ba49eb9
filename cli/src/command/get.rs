//! `get`: one value as it is, or a secret's pairs.

use keyside_exec_wrapper::client::encode_segment;
use keyside_protocol::code::Code;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::message::SecretReply;
use keyside_protocol::reference::Reference;
use keyside_protocol::value::SecretValue;

use crate::args::{GetArgs, PairFormat};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{print, printable, stdout_is_terminal};
use crate::pairs;
use crate::session::{Session, query};

/// What NAME[.KEY] and `--key` mean together.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    key: Option<String>,
}

/// Prints what was asked for.
pub(super) fn run(globals: &Globals, args: &GetArgs) -> Result<Exit, Failure> {
    let wanted = wanted(&args.name, args.key.as_deref())?;
    let query = query(args.backend.as_deref(), args.scope.as_deref());
    let mut session = Session::open(globals)?;
    let dotted = |failure: Failure| match (&args.key, args.name.contains('.'), failure.code) {
        // The one trap of cutting at the first dot.
        (None, true, Some(Code::SecretNotFound)) if failure.hint.is_none() => {
            failure.hint("a name that holds a dot itself is taken whole with `--key KEY`")
        }
        _ => failure,
    };
    match (wanted.key, args.format) {
        (Some(key), None) => {
            let target = format!("/v1/secrets/{}/{}{query}", encode_segment(&wanted.name), encode_segment(&key));
            let doing = format!("read `{}` of secret `{}`", printable(&key), printable(&wanted.name));
            let value = session.request(&doing, "GET", &target, None).map_err(dotted)?.into_value();
            // expose: to standard output, which is what was asked for.
            print(value.expose())?;
            if stdout_is_terminal() && !value.expose().ends_with(b"\n") {
                print(b"\n")?;
            }
        }
        (key, format) => {
            let target = format!("/v1/secrets/{}{query}", encode_segment(&wanted.name));
            let doing = format!("read secret `{}`", printable(&wanted.name));
            let reply: SecretReply = session.ask(&doing, "GET", &target, None).map_err(dotted)?;
            let pairs: Vec<(&str, &SecretValue)> =
                reply.values.iter().filter(|(name, _)| key.as_deref().is_none_or(|key| key == *name)).collect();
            if let (Some(key), true) = (&key, pairs.is_empty()) {
                let what = format!("secret `{}` has no key `{}`", printable(&wanted.name), printable(key));
                return Err(Failure::new(Exit::No, what));
            }
            let mut out = SecretBuffer::with_capacity(reply.values.byte_size() + 64 * reply.values.len() + 16);
            match format.unwrap_or(PairFormat::Json) {
                PairFormat::Json => {
                    pairs::json(&mut out, &pairs, "");
                    out.push(b"\n");
                }
                PairFormat::Yaml => pairs::yaml(&mut out, &pairs, ""),
                PairFormat::Env => pairs::env(&mut out, &pairs)?,
                PairFormat::Dotenv => pairs::dotenv(&mut out, &pairs)?,
            }
            // expose: to standard output, which is what was asked for.
            print(out.expose())?;
        }
    }
    session.end();
    Ok(Exit::Done)
}

fn wanted(name: &str, key: Option<&str>) -> Result<Wanted, Failure> {
    if name.is_empty() {
        return Err(Failure::usage("an empty name is no secret"));
    }
    if let Some(key) = key {
        if key.is_empty() {
            return Err(Failure::usage("an empty key names no value"));
        }
        return Ok(Wanted { name: name.into(), key: Some(key.into()) });
    }
    if name.starts_with("{{") {
        let reference =
            Reference::parse(name).map_err(|error| Failure::usage(format!("`{}` is {error}", printable(name))))?;
        return Ok(Wanted { name: reference.name().into(), key: Some(reference.key().into()) });
    }
    match name.split_once('.') {
        None => Ok(Wanted { name: name.into(), key: None }),
        Some((name, key)) if !name.is_empty() && !key.is_empty() => {
            Ok(Wanted { name: name.into(), key: Some(key.into()) })
        }
        Some(_) => Err(Failure::usage(format!("`{}` is not of the form NAME.KEY", printable(name)))
            .hint("give the key by itself: `keyside get NAME --key KEY`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, key: Option<&str>, expected: Option<(&str, Option<&str>)>) {
        let expected = expected.map(|(name, key)| Wanted { name: name.into(), key: key.map(Into::into) });
        assert_eq!(wanted(name, key).ok(), expected, "{name}");
    }

    #[test]
    fn a_name_is_cut_at_the_first_dot_unless_a_key_is_given() {
        check("a", None, Some(("a", None)));
        check("a.b", None, Some(("a", Some("b"))));
        check("a.b.c", None, Some(("a", Some("b.c"))));
        check("a.b", Some("k"), Some(("a.b", Some("k"))));
        check("{{ a.b }}", None, Some(("a", Some("b"))));
        for wrong in ["", ".", "a.", ".b", "{{a}}"] {
            check(wrong, None, None);
        }
    }
}
