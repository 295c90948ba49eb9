//! Sockets that whoever started us has bound already, by systemd's protocol (`sd_listen_fds(3)`): the agent is started
//! by its first client, or restarted without one being refused.
//!
//! Such a socket belongs to its owner: it is listened on, and never removed, changed or made again by us.

use std::os::fd::{IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::sys;

/// The first descriptor that is handed over; fixed by the protocol.
const FIRST: RawFd = 3;

/// More than any unit has.
const MOST: RawFd = 1024;

/// What the protocol says, and what is nobody else's business after us.
const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// One listening socket that was handed over.
#[derive(Debug)]
pub struct Inherited {
    /// What its unit calls it (`FileDescriptorName=`); the unit's own name where it calls it nothing.
    pub name: String,
    /// Where it is bound.
    pub path: PathBuf,
    /// The socket.
    pub listener: UnixListener,
}

/// Why what was handed over cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Nonsense in a variable.
    #[error("LISTEN_FDS is not a number of descriptors")]
    Count,
    /// The two disagree.
    #[error("LISTEN_FDNAMES has {names} names for {count} descriptors")]
    Names {
        /// How many names.
        names: usize,
        /// How many descriptors.
        count: usize,
    },
    /// One of the descriptors.
    #[error("descriptor {number} (`{name}`) that was handed over {why}")]
    Unusable {
        /// Its number.
        number: RawFd,
        /// What its unit calls it.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ActivationError {
    /// Returns what to try.
    pub fn hint(&self) -> &'static str {
        "a socket unit for this agent has ListenStream= with an absolute path, and Accept=no"
    }
}

/// Takes over the sockets that were handed to this process, and removes the variables that say so from its environment.
/// Empty when there are none, or when they are meant for another process.
///
/// To be called once, before anything else opens descriptors or starts a thread.
///
/// Errors: what was handed over is something else than a listening Unix stream socket with a path; nothing is closed.
pub fn take() -> Result<Vec<Inherited>, ActivationError> {
    let [pid, count, names, _] = VARIABLES.map(std::env::var_os);
    sys::remove_variables(VARIABLES.iter().copied().filter(|name| std::env::var_os(name).is_some()));
    let ours = pid.and_then(|pid| pid.to_str()?.parse().ok()) == Some(std::process::id());
    let Some(count) = count.filter(|_| ours) else { return Ok(Vec::new()) };
    let count: RawFd = count
        .to_str()
        .and_then(|count| count.parse().ok())
        .filter(|count| (0..=MOST).contains(count))
        .ok_or(ActivationError::Count)?;
    let names = names.map(|names| names.to_string_lossy().into_owned());
    let names = named(names.as_deref(), usize::try_from(count).unwrap_or(0))?;
    (FIRST..FIRST + count).zip(names).map(|(number, name)| take_one(number, name)).collect()
}

fn named(names: Option<&str>, count: usize) -> Result<Vec<String>, ActivationError> {
    let Some(names) = names else { return Ok(vec!["unknown".to_owned(); count]) };
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    // No descriptors and no names look like one empty name.
    match names.len() {
        found if found == count || count == 0 => Ok(names),
        found => Err(ActivationError::Names { names: found, count }),
    }
}

fn take_one(number: RawFd, name: String) -> Result<Inherited, ActivationError> {
    let socket = match sys::take_descriptor(number) {
        Ok(socket) => socket,
        Err(_) => return Err(ActivationError::Unusable { number, name, why: "is not open" }),
    };
    match checked(socket) {
        Ok((listener, path)) => Ok(Inherited { name, path, listener }),
        Err((socket, why)) => {
            // Not what was promised, so not ours to close.
            let _ = socket.into_raw_fd();
            Err(ActivationError::Unusable { number, name, why })
        }
    }
}

fn checked(socket: OwnedFd) -> Result<(UnixListener, PathBuf), (OwnedFd, &'static str)> {
    let why = match (socket_domain(&socket), socket_type(&socket), socket_acceptconn(&socket)) {
        (Err(_), ..) => "is not a socket",
        (Ok(family), ..) if family != AddressFamily::UNIX => "is not a Unix socket",
        (_, Ok(kind), _) if kind != SocketType::STREAM => "is not a stream socket",
        (_, _, Ok(true)) => {
            let listener = UnixListener::from(socket);
            let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
            return match path {
                Some(path) if path.is_absolute() => Ok((listener, path)),
                _ => Err((listener.into(), "has no absolute path: abstract sockets have no mode and no owner")),
            };
        }
        _ => "is not listening",
    };
    Err((socket, why))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    use super::*;

    fn refusal(socket: OwnedFd) -> &'static str {
        checked(socket).expect_err("refused").1
    }

    #[test]
    fn only_a_listening_stream_socket_with_a_path_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.sock");
        let bound = UnixListener::bind(&path).expect("free");
        assert_eq!(checked(bound.into()).expect("a listener").1, path);

        let datagram = std::os::unix::net::UnixDatagram::bind(directory.path().join("d.sock")).expect("free");
        assert_eq!(refusal(datagram.into()), "is not a stream socket");
        let (connected, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_eq!(refusal(connected.into()), "is not listening");
        let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        assert_eq!(refusal(tcp.into()), "is not a Unix socket");
        assert_eq!(refusal(tempfile::tempfile().expect("a file").into()), "is not a socket");
        let name = format!("keyside-test-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(name).expect("short");
        let unreachable = UnixListener::bind_addr(&name).expect("free");
        assert!(refusal(unreachable.into()).contains("abstract"));
    }

    #[test]
    fn there_are_as_many_names_as_descriptors() {
        assert_eq!(named(None, 2).expect("none"), ["unknown", "unknown"]);
        assert_eq!(named(Some("agent:team-a"), 2).expect("two"), ["agent", "team-a"]);
        assert!(named(Some(""), 0).is_ok());
        assert!(named(Some("agent"), 2).is_err());
        assert!(named(Some("a:b:c"), 2).is_err());
    }
}
