//! The least server for many connections: `plain-line SOCKET` answers each line `get NAME` with a line of 200 bytes.
//!
//! The agent's kind of runtime and one look-up in a map of 1,000 names, but no HTTP, no grant and no deadline: what a
//! protocol made for nothing else would cost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

type Values = Rc<HashMap<String, Vec<u8>>>;

fn main() -> ExitCode {
    let Some(socket) = std::env::args_os().nth(1) else {
        eprintln!("usage: plain-line SOCKET");
        return ExitCode::from(2);
    };
    match serve(socket.as_ref()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("plain-line: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &std::path::Path) -> std::io::Result<Infallible> {
    let values: Values = Rc::new((0..1000).map(|number| (format!("secret-{number}"), vec![b'x'; 200])).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let values = Rc::clone(&values);
            tokio::task::spawn_local(async move {
                // A connection that ends badly is the client's loss alone.
                let _ = answer(stream, &values).await;
            });
        }
    })
}

async fn answer(stream: UnixStream, values: &Values) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(512, reader);
    let (mut line, mut reply) = (String::new(), Vec::new());
    while reader.read_line(&mut line).await? > 0 {
        reply.clear();
        let value = line.trim_end().strip_prefix("get ").and_then(|name| values.get(name));
        reply.extend_from_slice(value.map_or(b"!missing", Vec::as_slice));
        reply.push(b'\n');
        writer.write_all(&reply).await?;
        line.clear();
    }
    Ok(())
}
