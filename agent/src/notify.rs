//! Words to whoever supervises the agent (`sd_notify(3)`): ready, reloading, stopping.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Returns where the supervisor listens, and removes that from the environment: it is meant for this process alone.
/// To be called once, before anything starts a thread.
pub fn take_address() -> Option<OsString> {
    let address = std::env::var_os(VARIABLE)?;
    crate::sys::remove_variables(std::iter::once(VARIABLE));
    Some(address)
}

/// The supervisor; nobody, where none has asked.
pub struct Supervisor(Option<UnixDatagram>);

impl Supervisor {
    /// The one at `NOTIFY_SOCKET`. One that cannot be reached is said in the log and otherwise as good as none.
    pub fn at(address: Option<&OsStr>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Self(None) };
        match connect(address) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is set but cannot be reached");
                Self(None)
            }
        }
    }

    /// Every socket is listened on.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving\n");
    }

    /// The configuration is read again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        // The supervisor compares it with the moment at which it asked.
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping\n");
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(words.as_bytes())
        {
            tracing::warn!(%error, "the supervisor could not be told");
        }
    }
}

fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A supervisor that does not read must not hold up the agent.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_hears_each_word_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).expect("free");
        let agent = Supervisor::at(Some(path.as_os_str()));
        agent.ready();
        agent.reloading();
        agent.stopping();
        let mut heard = [0; 256];
        let mut next = || {
            let length = supervisor.recv(&mut heard).expect("a word");
            String::from_utf8_lossy(&heard[..length]).into_owned()
        };
        assert!(next().starts_with("READY=1\n"));
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(next().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn without_a_supervisor_nothing_is_said() {
        Supervisor::at(None).ready();
        Supervisor::at(Some(OsStr::new(""))).ready();
        Supervisor::at(Some(OsStr::new("/nowhere/notify"))).ready();
    }
}
