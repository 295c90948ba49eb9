//! `secret list`, `get` and `export`.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use keyside_exec_wrapper::client::encode_segment;
use keyside_protocol::json::SecretBuffer;
use keyside_protocol::message::{ListReply, SecretReply, SecretSummary};
use keyside_protocol::value::SecretValue;
use serde_json::{Value, json};

use super::args::SecretArgs;
use super::input;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{io_text, print, printable, warn};
use crate::pairs;
use crate::session::{Session, query};
use crate::table::{self, TableFormat, csv_line};

/// The scope that the options select, in the socket's words.
pub(super) fn scope(args: &SecretArgs) -> Result<Option<&str>, Failure> {
    match (args.private, args.scope.as_deref()) {
        (Some(_), Some(_)) => Err(Failure::usage("`--private` and `--scope` say the same thing twice; use one")),
        (Some(true), None) => Ok(Some("private")),
        (Some(false), None) => Ok(Some("public")),
        (None, scope) => Ok(scope),
    }
}

/// Prints every name, a page after the other.
pub(super) fn list(globals: &Globals, args: &SecretArgs) -> Result<Exit, Failure> {
    let mut session = Session::open(globals)?;
    let filter = query(args.backend.as_deref(), scope(args)?).replacen('?', "&", 1);
    let (mut secrets, mut unavailable): (Vec<SecretSummary>, Vec<String>) = (Vec::new(), Vec::new());
    let mut after = String::new();
    loop {
        let target = format!("/v1/secrets?size=1000{after}{filter}");
        let page: ListReply = session.ask("list the secrets", "GET", &target, None)?;
        secrets.extend(page.secrets);
        unavailable
            .extend(page.unavailable.into_iter().filter(|backend| !unavailable.contains(backend)).collect::<Vec<_>>());
        match page.next {
            // A name that comes again would be a loop without an end.
            Some(next) if secrets.last().is_some_and(|last| last.name <= next) => {
                let next = format!("&after={}", encode_segment(&next));
                if next == after {
                    break;
                }
                after = next;
            }
            _ => break,
        }
    }
    session.end();
    let rows: Vec<Vec<Value>> = secrets
        .into_iter()
        .map(|secret| {
            vec![
                json!(secret.name),
                json!(secret.scope),
                json!(secret.backend),
                json!(secret.keys),
                json!(secret.age_seconds),
            ]
        })
        .collect();
    if rows.is_empty() && !unavailable.is_empty() {
        let names = unavailable.join(", ");
        let names = printable(&names);
        return Err(Failure::new(
            Exit::Unavailable,
            format!("cannot list secrets: back-end {names} cannot be reached"),
        )
        .hint("`keyside status` says why"));
    }
    if rows.is_empty() && args.format == TableFormat::Table {
        crate::output::say("keyside: no secret");
    } else {
        print(table::records(args.format, &["name", "scope", "backend", "keys", "age_seconds"], &rows).as_bytes())?;
    }
    if unavailable.is_empty() {
        return Ok(Exit::Done);
    }
    warn(&format!("the list is not complete: back-end {} cannot be reached", printable(&unavailable.join(", "))));
    Ok(Exit::Unavailable)
}

/// Reads the secret of exactly that name.
fn fetch(globals: &Globals, args: &SecretArgs) -> Result<SecretReply, Failure> {
    let target = format!("/v1/secrets/{}{}", encode_segment(&args.name), query(args.backend.as_deref(), scope(args)?));
    let mut session = Session::open(globals)?;
    let reply = session.ask(&format!("read secret `{}`", printable(&args.name)), "GET", &target, None)?;
    session.end();
    Ok(reply)
}

/// Prints one secret; values only with `--show`.
pub(super) fn get(globals: &Globals, args: &SecretArgs) -> Result<Exit, Failure> {
    let secret = fetch(globals, args)?;
    let pairs: Vec<(&str, &SecretValue)> = secret.values.iter().collect();
    let keys: Vec<&str> = secret.values.keys().collect();
    let names = ["name", "id", "scope", "backend", "version", "age_seconds", "stale", "keys"];
    let cells = [
        json!(secret.name),
        json!(secret.id),
        json!(secret.scope),
        json!(secret.backend),
        json!(secret.version),
        json!(secret.age_seconds),
        json!(secret.stale),
        json!(keys),
    ];
    let mut out = SecretBuffer::with_capacity(secret.values.byte_size() * 2 + 1024);
    match (args.format, args.show) {
        (TableFormat::Csv, show) => {
            let heading: &[&str] = if show { &["name", "key", "value"] } else { &["name", "key"] };
            out.push(csv_line(heading.iter().map(|&cell| cell.to_owned())).as_bytes());
            for (key, value) in &pairs {
                out.push(
                    csv_line([secret.name.clone(), (*key).to_owned()].into_iter()).trim_end_matches('\n').as_bytes(),
                );
                if show {
                    out.push(b",");
                    push_csv(&mut out, key, value)?;
                }
                out.push(b"\n");
            }
        }
        (format, false) => out.push(table::record(format, &names, &cells).as_bytes()),
        (TableFormat::Table, true) => {
            out.push(table::record(TableFormat::Table, &names[..7], &cells[..7]).as_bytes());
            out.push(b"\n");
            push_table(&mut out, &pairs);
        }
        (TableFormat::Json, true) => {
            let text = table::record(TableFormat::Json, &names, &cells);
            out.push(text.trim_end().trim_end_matches('}').trim_end().as_bytes());
            out.push(b",\n  \"values\": ");
            pairs::json(&mut out, &pairs, "  ");
            out.push(b"\n}\n");
        }
        (TableFormat::Yaml, true) => {
            out.push(table::record(TableFormat::Yaml, &names, &cells).as_bytes());
            out.push(if pairs.is_empty() { b"values: " } else { b"values:\n" });
            pairs::yaml(&mut out, &pairs, if pairs.is_empty() { "" } else { "  " });
        }
    }
    // expose: to standard output; values are in it only with --show.
    print(out.expose())?;
    Ok(Exit::Done)
}

/// Two columns for people; control characters are shown as escapes, bytes that are not text by their number.
fn push_table(out: &mut SecretBuffer, pairs: &pairs::Pairs<'_>) {
    let width = pairs.iter().map(|(key, _)| printable(key).chars().count()).chain([3]).max().unwrap_or(3) + 2;
    out.push(format!("{:<width$}VALUE\n", "KEY").as_bytes());
    for (key, value) in pairs {
        out.push(format!("{:<width$}", printable(key)).as_bytes());
        // expose: to standard output, with --show.
        match std::str::from_utf8(value.expose()) {
            Ok(text) => {
                for char in text.chars() {
                    if char.is_control() {
                        char.escape_default().for_each(|char| out.push(&[char as u8]));
                    } else {
                        out.push(char.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            Err(_) => out.push(format!("({} bytes that are not UTF-8)", value.len()).as_bytes()),
        }
        out.push(b"\n");
    }
}

/// One cell of CSV, always quoted.
fn push_csv(out: &mut SecretBuffer, key: &str, value: &SecretValue) -> Result<(), Failure> {
    // expose: to standard output, with --show.
    let text = std::str::from_utf8(value.expose()).map_err(|_| {
        Failure::new(Exit::No, format!("the key `{}` has a value that is not UTF-8", printable(key)))
            .hint("use --format json")
    })?;
    out.push(b"\"");
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.push(b"\"\"");
        }
        out.push(part.as_bytes());
    }
    out.push(b"\"");
    Ok(())
}

/// Writes one secret to a file that only its owner can read.
pub(super) fn export(globals: &Globals, args: &SecretArgs) -> Result<Exit, Failure> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => input::default_file(&args.name)?,
    };
    let to_stdout = file.as_os_str() == "-";
    // Before anything is read: a refusal costs nobody a value.
    if !to_stdout && !args.yes && file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let secret = fetch(globals, args)?;
    let pairs: Vec<(&str, &SecretValue)> = secret.values.iter().collect();
    let mut out = SecretBuffer::with_capacity(secret.values.byte_size() * 2 + 1024);
    pairs::yaml(&mut out, &pairs, "");
    if to_stdout {
        // expose: to standard output, as `-f -` asks.
        print(out.expose())?;
        return Ok(Exit::Done);
    }
    write_private(&file, &out, args.yes)?;
    print(format!("exported `{}` to {}\n", printable(&secret.name), printable(&file.to_string_lossy())).as_bytes())?;
    Ok(Exit::Done)
}

/// Makes `file` with mode 0600. With `replace` the whole new file takes the old one's place at once.
fn write_private(file: &Path, text: &SecretBuffer, replace: bool) -> Result<(), Failure> {
    let shown = printable(&file.to_string_lossy()).into_owned();
    let failed = |error: std::io::Error| Failure::new(Exit::No, format!("cannot write {shown}: {}", io_text(&error)));
    let path = if replace {
        let mut name = file.file_name().ok_or_else(|| Failure::usage(format!("{shown} is no file name")))?.to_owned();
        name.push(format!(".{}.new", std::process::id()));
        file.with_file_name(name)
    } else {
        file.to_owned()
    };
    // O_EXCL neither follows a link nor writes into what somebody else has put there.
    let mut written = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists(&path)),
        opened => opened.map_err(failed)?,
    };
    let done = fill(&mut written, text).and_then(|()| if replace { std::fs::rename(&path, file) } else { Ok(()) });
    if done.is_err() {
        // Half a file is worse than none.
        let _ = std::fs::remove_file(&path);
    }
    done.map_err(failed)
}

fn fill(file: &mut File, text: &SecretBuffer) -> std::io::Result<()> {
    // A strange umask may have taken our own rights.
    file.set_permissions(Permissions::from_mode(0o600))?;
    // expose: into the file that was asked for.
    file.write_all(text.expose())?;
    file.sync_all()
}

fn exists(file: &Path) -> Failure {
    Failure::new(Exit::No, format!("{} is there already", printable(&file.to_string_lossy())))
        .hint("name another with -f, or replace it with -y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_private_and_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a.yaml");
        let mut text = SecretBuffer::with_capacity(8);
        text.push(b"k: \"v\"\n");
        write_private(&file, &text, false).expect("written");
        assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o7777, 0o600);
        assert_eq!(write_private(&file, &text, false).expect_err("there already").exit.code(), 1);
        text.push(b"l: \"w\"\n");
        write_private(&file, &text, true).expect("replaced");
        assert_eq!(std::fs::read(&file).expect("read"), text.expose());
        assert_eq!(dir.path().read_dir().expect("a directory").count(), 1);
    }

    #[test]
    fn an_export_does_not_follow_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        let text = SecretBuffer::with_capacity(0);
        assert!(write_private(&link, &text, false).is_err());
        write_private(&link, &text, true).expect("the link itself is replaced");
        assert!(!target.exists());
    }
}
