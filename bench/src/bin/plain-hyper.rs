//! The reference server: `plain-hyper SOCKET` answers every `GET` with 200 bytes over HTTP/1.1.
//!
//! It is the agent's own HTTP library on the agent's kind of runtime and with the headers that the agent promises, but
//! with no look-up, no grant and no deadline behind it: what it costs over the echo floor is the price of HTTP, the rest
//! of the agent's cost is ours.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
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
                let _ = http1::Builder::new()
                    .writev(false)
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    })
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(&[b'x'; 200])));
    response.headers_mut().clone_from(HEADERS.get_or_init(headers));
    Ok(response)
}

static HEADERS: OnceLock<HeaderMap> = OnceLock::new();

/// As long as a real reply's.
fn headers() -> HeaderMap {
    let pairs = [
        ("content-type", "application/octet-stream"),
        ("cache-control", "no-store"),
        ("keyside-protocol", "1"),
        ("etag", "\"0123456789abcdef-1000\""),
        ("keyside-version", "01234567-89ab-cdef-0123-456789abcdef:2026-01-01T00:00:00.000000"),
        ("keyside-stale", "false"),
        ("age", "0"),
    ];
    pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect()
}
