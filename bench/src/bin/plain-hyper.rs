//! The reference server: `plain-hyper SOCKET` answers every `GET` with 200 bytes over HTTP/1.1.
//!
//! It is the agent's own HTTP library on the agent's kind of runtime, with no look-up, no grant and no deadline behind
//! it: what it costs over the echo floor is the price of HTTP, the rest of the agent's cost is ours.

use std::convert::Infallible;
use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

fn main() -> ExitCode {
    let Some(socket) = std::env::args_os().nth(1) else {
        eprintln!("usage: plain-hyper SOCKET");
        return ExitCode::from(2);
    };
    match serve(socket.as_ref()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("plain-hyper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &std::path::Path) -> std::io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A connection that ends badly is the client's loss alone.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    })
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(&[b'x'; 200]))))
}
