//! Starts moto and ministack; each ends with its guard.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running stand-in for AWS.
pub(super) struct Peer {
    child: Child,
    /// Where it answers.
    pub(super) url: String,
    /// Where it is installed.
    pub(super) place: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts moto. None, and a word on stderr, where it is not installed.
pub(super) fn moto(variables: &[(&str, &str)]) -> Option<Peer> {
    let place = installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh")?;
    let mut command = Command::new(place.join("bin/moto_server"));
    let port = free_port();
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).envs(variables.iter().copied());
    Some(start(command, port, place, "/moto-api/data.json"))
}

/// Starts ministack, likewise.
pub(super) fn ministack() -> Option<Peer> {
    let place = installed("KEYSIDE_MINISTACK", "ministack-1.5.33", "install-ministack.sh")?;
    let mut command = Command::new(place.join("bin/ministack"));
    let port = free_port();
    command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).env("MINISTACK_REGION", super::REGION);
    command.env("SERVICES", "secretsmanager,sts,iam,imds").env("LOG_LEVEL", "WARNING");
    Some(start(command, port, place, "/_ministack/health"))
}

/// Returns the folder of a stand-in.
fn installed(variable: &str, folder: &str, script: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let place = named
        .or_else(|| peers().map(|peers| peers.join(folder)))
        .filter(|place| place.join(".keyside-complete").is_file());
    if place.is_none() {
        eprintln!("skipped: {folder} is not installed (tests/peers/{script})");
    }
    place
}

/// Returns the folder of everything that is installed for the tests.
pub(super) fn peers() -> Option<PathBuf> {
    let peers = std::env::var_os("KEYSIDE_PEERS").map(PathBuf::from);
    peers.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers")))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    listener.local_addr().expect("bound").port()
}

fn start(mut command: Command, port: u16, place: PathBuf, path: &str) -> Peer {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("the stand-in starts");
    let mut peer = Peer { child, url: format!("http://127.0.0.1:{port}"), place };
    let until = Instant::now() + Duration::from_secs(60);
    while !answers(port, path) {
        assert!(peer.child.try_wait().expect("its state").is_none(), "the stand-in has ended");
        assert!(Instant::now() < until, "the stand-in does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    peer
}

fn answers(port: u16, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let mut reply = [0; 12];
    stream.write_all(request.as_bytes()).is_ok() && stream.read_exact(&mut reply).is_ok() && reply.ends_with(b"200")
}
