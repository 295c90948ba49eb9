//! `/metrics` over TCP, where `[metrics] listen` asks for it: one route, few connections, the deadlines of the socket.

use std::convert::Infallible;
use std::future::ready;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::api::{Current, answer_scrape};
use crate::metrics::Refusal;
use crate::pace::{Pace, PacedStream};
use crate::timer::Timer;

/// Connections at the same time: a few scrapers, each with one.
const MOST_CONNECTIONS: usize = 16;

/// How often a connection's deadlines are looked at; the longest that one is overstepped.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// How long accepting rests when it fails.
const PAUSE: Duration = Duration::from_millis(500);

/// An address that is listened on; nobody is served yet.
pub struct ScrapeListener {
    listener: StdListener,
    address: SocketAddr,
}

impl ScrapeListener {
    /// Binds and listens. Errors: the kernel's own, above all an address in use.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn serve(self, current: Arc<Current>, timer: Arc<Timer>) {
        tracing::info!(address = %self.address, "serving /metrics");
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(address = %self.address, %error, "cannot serve /metrics"),
        };
        let mut connections = JoinSet::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "cannot accept connections for a moment");
                    timer.sleep(PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if connections.len() >= MOST_CONNECTIONS {
                current.agent().metrics.refused(Refusal::MetricsLimit);
                continue;
            }
            connections.spawn(converse(Arc::clone(&current), stream, Arc::clone(&timer)));
        }
    }
}

async fn converse(current: Arc<Current>, stream: TcpStream, timer: Arc<Timer>) {
    // Where the client came to: with a listener on every address, the one it named.
    let Ok(own) = stream.local_addr() else { return };
    let pace = Arc::new(Pace::new());
    let service = service_fn(|request| {
        pace.handling();
        let reply = answer_scrape(&current.agent(), &request, own);
        pace.replied();
        ready(Ok::<_, Infallible>(reply))
    });
    let head_limit = usize::try_from(current.agent().limits.header).unwrap_or(usize::MAX).max(8192);
    let stream = TokioIo::new(PacedStream::new(stream, Arc::clone(&pace), ()));
    let served = http1::Builder::new()
        .half_close(true)
        .auto_date_header(false)
        .max_buf_size(head_limit)
        .serve_connection(stream, service);
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
        () = overstepped(&pace, &timer) => current.agent().metrics.cut_off(),
    }
}

async fn overstepped(pace: &Pace, timer: &Timer) {
    while !pace.is_exceeded() {
        timer.sleep(SWEEP_INTERVAL).await;
    }
}
