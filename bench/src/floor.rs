//! The floor: a blocking echo server with a thread for each connection, the least that an answer over a Unix socket can
//! cost. It is a process of its own, so that its CPU time and its scheduling are those of a real server.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// Serves until it is killed: every byte read is written back.
pub(crate) fn serve(socket: &str) -> Result<(), BenchError> {
    let listener = UnixListener::bind(socket).map_err(BenchError::system(format!("listen on {socket}")))?;
    for stream in listener.incoming() {
        let mut stream = stream.map_err(BenchError::system("accept"))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count) = stream.read(&mut buffer) {
                if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// A running echo server; ended and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Floor {
    child: Child,
    socket: String,
}

impl Floor {
    /// Starts the server as a child and waits until it accepts.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let socket = std::env::temp_dir().join(format!("keyside-bench-{}.sock", std::process::id()));
        let socket = socket.to_string_lossy().into_owned();
        let child = std::env::current_exe()
            .and_then(|program| {
                Command::new(program).args(["serve-echo", "--socket", &socket]).stdin(Stdio::null()).spawn()
            })
            .map_err(BenchError::system("start the echo server"))?;
        let floor = Self { child, socket };
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(source) = UnixStream::connect(&floor.socket) {
            if Instant::now() > deadline {
                return Err(BenchError::System { doing: "wait for the echo server".to_owned(), source });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(floor)
    }

    /// The path it listens on.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
