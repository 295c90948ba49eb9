//! A relay before a stand-in: counts the calls that pass, and stops them on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Its connection is closed.
    Close,
    /// Closed if it reads a value.
    CloseReads,
    /// Nothing.
    Stall,
}

pub(super) struct Relay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    targets: Arc<Mutex<Vec<String>>>,
    acceptor: JoinHandle<()>,
}

impl Relay {
    /// Starts one before the stand-in at `url`.
    pub(super) async fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let behind = url.trim_start_matches("http://").to_owned();
        let mode = watch::channel(Mode::Pass).0;
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let (modes, seen) = (mode.clone(), Arc::clone(&targets));
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(relay(stream, behind.clone(), modes.subscribe(), Arc::clone(&seen)));
            }
        });
        Self { address, mode, targets, acceptor }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Returns what sets the mode, for a guard.
    pub(super) fn lever(&self) -> watch::Sender<Mode> {
        self.mode.clone()
    }

    /// Returns the names of the calls that came, and forgets them.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.targets.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn relay(
    mut stream: TcpStream,
    behind: String,
    mut modes: watch::Receiver<Mode>,
    targets: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    loop {
        let request = read_message(&mut stream).await?;
        let text = String::from_utf8_lossy(&request).into_owned();
        let target = text.lines().find_map(|line| line.strip_prefix("x-amz-target: secretsmanager."));
        let target = target.unwrap_or_default().trim().to_owned();
        let reads = target.contains("GetSecretValue");
        targets.lock().unwrap_or_else(PoisonError::into_inner).push(target);
        modes.wait_for(|mode| *mode != Mode::Stall).await.ok()?;
        let mode = *modes.borrow();
        if mode == Mode::Close || mode == Mode::CloseReads && reads {
            return None;
        }
        let mut server = TcpStream::connect(&behind).await.ok()?;
        server.write_all(&request).await.ok()?;
        let reply = read_message(&mut server).await?;
        stream.write_all(&reply).await.ok()?;
    }
}

/// Reads one request or reply with its body, whose length it says.
async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if message.len() >= end + 4 + length.unwrap_or(0) {
                return Some(message);
            }
        }
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            read => message.extend_from_slice(&buffer[..read]),
        }
    }
}
