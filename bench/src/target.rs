//! What is measured: a socket, a protocol on it, and the bytes of each request.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use crate::error::BenchError;
use crate::{http, process};

/// The longest a blocking read waits: a server that hangs ends the run instead of freezing it.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// How a request and its answer are framed.
#[derive(Debug, Clone)]
pub(crate) enum Protocol {
    /// `GET path`, or `POST path` where there is a body, on a kept connection; `{n}` in the path becomes a key number.
    Http { path: String, body: Option<Vec<u8>> },
    /// One line out, one line back; `{n}` becomes a key number.
    Line { request: String },
    /// `size` bytes out, the same number back.
    Echo { size: usize },
}

/// One server to measure.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its name in the tables; the socket's path until a better one is given.
    pub(crate) name: String,
    pub(crate) socket: String,
    pub(crate) protocol: Protocol,
    /// `{n}` runs over `0..keys`.
    pub(crate) keys: usize,
    /// Connect, ask once, close.
    pub(crate) fresh: bool,
    /// What the idle connections of a crowd ask for.
    pub(crate) idle: String,
    /// Whose CPU time is charged to the requests; set by `find_server`.
    pub(crate) server: Option<Pid>,
}

impl Target {
    pub(crate) fn new(socket: String) -> Self {
        Self {
            name: socket.clone(),
            socket,
            protocol: Protocol::Http { path: "/".to_owned(), body: None },
            keys: 1,
            fresh: false,
            idle: "/".to_owned(),
            server: None,
        }
    }

    /// Sends this file's text with each request instead of only asking for the path.
    pub(crate) fn give_body(&mut self, file: &str) -> Result<(), BenchError> {
        let content = std::fs::read(file).map_err(|error| BenchError::Usage(format!("--body {file}: {error}")))?;
        match &mut self.protocol {
            Protocol::Http { body, .. } => *body = Some(content),
            _ => return Err(BenchError::Usage("--body needs --http before it".to_owned())),
        }
        Ok(())
    }

    /// Every request this target gets, made beforehand so that the loop only copies bytes.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        (0..self.keys.max(1))
            .map(|number| match &self.protocol {
                Protocol::Http { path, body: None } => http::get(&path.replace("{n}", &number.to_string())),
                Protocol::Http { path, body: Some(body) } => http::post(path, body),
                Protocol::Line { request } => format!("{}\n", request.replace("{n}", &number.to_string())).into_bytes(),
                Protocol::Echo { size } => vec![b'x'; *size],
            })
            .collect()
    }

    /// Tells whether `answer` is complete; any status but 200 is an error.
    pub(crate) fn complete(&self, answer: &[u8]) -> Result<bool, BenchError> {
        match &self.protocol {
            Protocol::Echo { size } => Ok(answer.len() >= *size),
            Protocol::Line { .. } => Ok(answer.ends_with(b"\n")),
            Protocol::Http { .. } => match http::parse(answer) {
                Ok(None) => Ok(false),
                Ok(Some(response)) if response.status == 200 && response.length == answer.len() => Ok(true),
                Ok(Some(response)) if response.status == 200 => Err(self.wrong("more bytes than the response has")),
                Ok(Some(response)) => Err(self.wrong(format!("status {}", response.status))),
                Err(what) => Err(self.wrong(what)),
            },
        }
    }

    /// Connects for blocking calls.
    pub(crate) fn connect(&self) -> Result<UnixStream, BenchError> {
        let failed = || BenchError::system(format!("connect to {}", self.socket));
        let stream = UnixStream::connect(&self.socket).map_err(failed())?;
        stream.set_read_timeout(Some(READ_LIMIT)).map_err(failed())?;
        Ok(stream)
    }

    /// Asks the kernel who listens on the socket.
    pub(crate) fn find_server(&mut self) -> Result<(), BenchError> {
        let credentials = getsockopt(&self.connect()?, PeerCredentials)
            .map_err(BenchError::system(format!("peer of {}", self.socket)))?;
        // A server in another pid namespace has no pid here.
        self.server = (credentials.pid() > 0).then(|| Pid::from_raw(credentials.pid()));
        Ok(())
    }

    /// The process behind the socket, where `find_server` could tell.
    pub(crate) fn server(&self) -> Result<Pid, BenchError> {
        self.server.ok_or_else(|| self.wrong("its process is in another pid namespace"))
    }

    /// What the server has in memory.
    pub(crate) fn memory(&self) -> Result<process::Memory, BenchError> {
        process::memory(self.server()?)
    }

    /// An error that names this target.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> BenchError {
        BenchError::Answer { target: self.name.clone(), what: what.into() }
    }
}
