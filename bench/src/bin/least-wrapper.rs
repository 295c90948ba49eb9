//! The least that an exec wrapper can do: `least-wrapper SOCKET PATH VARIABLE CMD [ARG...]` gets one value over the socket,
//! puts it into one variable and becomes the command. No checks, no configuration, no useful message.
//!
//! What it costs over the bare command is the price of the idea; what `keyside-exec` costs over it is ours.

use std::ffi::OsString;
use std::io::{Error, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let error = launch(std::env::args_os().skip(1)).err();
    eprintln!("least-wrapper: {}", error.map_or_else(|| "no command".to_owned(), |error| error.to_string()));
    ExitCode::from(125)
}

fn launch(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Error> {
    let mut next = || arguments.next().ok_or_else(|| Error::other("usage: SOCKET PATH VARIABLE CMD [ARG...]"));
    let (socket, path, variable, program) = (next()?, next()?, next()?, next()?);
    let value = fetch(socket, path)?;
    Err(std::process::Command::new(program).args(arguments).env(variable, value).exec())
}

fn fetch(socket: OsString, path: OsString) -> Result<OsString, Error> {
    let mut stream = UnixStream::connect(socket)?;
    let path = path.to_string_lossy();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::with_capacity(4096);
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").filter(|_| answer.get(9..12) == Some(b"200"));
    let head = head.ok_or_else(|| Error::other("no value came"))?;
    Ok(OsString::from_vec(answer.split_off(head + 4)))
}
