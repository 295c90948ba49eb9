//! HTTP/1.1 on a Unix socket, written by hand, so that a scenario can send any bytes.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Gid, Uid};
use serde_json::Value;

use crate::canary::url_escaped;
use crate::home::Home;

/// Longer than any of the agent's own deadlines: reaching it is a fault.
const PATIENCE: Duration = Duration::from_secs(25);

/// One connection.
pub struct Client<'h> {
    stream: UnixStream,
    received: Vec<u8>,
    home: Option<&'h Home>,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The whole head, as it came.
    pub head: String,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// Reads the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// Panics unless it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// Panics unless it is a problem of this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.head);
        let problem = reply.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].is_string(), "{field} is missing: {problem}");
        }
        reply
    }
}

impl Client<'_> {
    /// Connects, or says why not.
    pub fn try_connect(path: &Path) -> io::Result<Self> {
        Ok(Self::over(UnixStream::connect(path)?))
    }

    /// Connects to a socket that is there.
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Connects as `uid`, without any group but its own. Only for root: a thread gives up its own identity for it.
    pub fn connect_as(path: &Path, uid: u32) -> Self {
        let path = path.to_owned();
        let connect = move || {
            rustix::thread::set_thread_groups(&[]).expect("root may");
            rustix::thread::set_thread_gid(Gid::from_raw(uid)).expect("root may");
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).expect("root may");
            UnixStream::connect(path).expect("a socket for everybody")
        };
        Self::over(std::thread::spawn(connect).join().expect("the socket lets everybody in"))
    }

    fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes it");
        Self { stream, received: Vec::new(), home: None }
    }

    /// Has heads and problems searched at the end of `home`.
    pub fn recorded(self, home: &Home) -> Client<'_> {
        Client { stream: self.stream, received: self.received, home: Some(home) }
    }

    /// Asks for `target` and returns the reply.
    pub fn get(&mut self, target: &str) -> Reply {
        self.request("GET", target, &[], None)
    }

    /// Asks for the whole secret `name`.
    pub fn secret(&mut self, name: &str) -> Reply {
        self.get(&format!("/v1/secrets/{}", url_escaped(name.as_bytes())))
    }

    /// Asks for one value.
    pub fn value(&mut self, name: &str, key: &str) -> Reply {
        self.get(&format!("/v1/secrets/{}/{}", url_escaped(name.as_bytes()), url_escaped(key.as_bytes())))
    }

    /// Sends `body` to `target`.
    pub fn post(&mut self, target: &str, body: &Value) -> Reply {
        self.request("POST", target, &[], Some(body))
    }

    /// Sends a request and returns the reply.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            bytes.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        bytes.push_str("\r\n");
        bytes.push_str(&body);
        self.send(bytes);
        self.reply().expect("a reply")
    }

    /// Sends any bytes. A server that has closed by then shows in what is read.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // An error means that the server was quicker.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Reads one reply; none where the connection was closed instead.
    pub fn reply(&mut self) -> Option<Reply> {
        let end = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => {
                    if !self.read() {
                        assert!(self.received.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.received));
                        return None;
                    }
                }
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("a head is ASCII");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let mut reply = Reply { status, head, body: Vec::new() };
        let length = match (status, reply.header("content-length")) {
            (304, _) | (_, None) => 0,
            (_, Some(length)) => length.parse().expect("a length"),
        };
        while self.received.len() < length {
            assert!(self.read(), "the connection ended inside a body");
        }
        reply.body = self.received.drain(..length).collect();
        if let Some(home) = self.home {
            home.record("the head of a reply", reply.head.clone());
            if status >= 400 {
                home.record("a problem", reply.body.clone());
            }
        }
        Some(reply)
    }

    /// Reads one reply that may be cut off, by which none is meant then.
    pub fn whole_reply(&mut self) -> Option<Reply> {
        while self.read() {}
        let end = self.received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let mut reply = Reply { status: 0, head, body: Vec::new() };
        reply.status = reply.head.split(' ').nth(1)?.parse().ok()?;
        let length: usize = reply.header("content-length")?.parse().ok()?;
        let body = self.received.get(end..end + length)?;
        reply.body = body.to_vec();
        self.received.drain(..end + length);
        Some(reply)
    }

    /// Asks for a stream of events and returns its first one's data, the hello.
    pub fn watch(&mut self, query: &str) -> Value {
        self.send(format!("GET /v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let reply = self.reply().expect("a reply").expect(200);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"), "{}", reply.head);
        let (event, hello) = self.event().expect("a hello");
        assert_eq!(event, "hello");
        hello
    }

    /// Reads the next event of a stream: its name and its data; none at the end of the stream.
    pub fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let end = loop {
                match self.received.windows(2).position(|window| window == b"\n\n") {
                    Some(at) => break at + 2,
                    None if self.read() => {}
                    None => return None,
                }
            };
            let block = String::from_utf8(self.received.drain(..end).collect()).expect("events are text");
            if let Some(home) = self.home {
                home.record("an event", block.clone());
            }
            let part = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(event), Some(data)) = (part("event: "), part("data: ")) {
                return Some((event, serde_json::from_str(&data).expect("JSON")));
            }
            assert!(block.starts_with(':'), "neither an event nor a comment: {block}");
        }
    }

    /// Closes the half that the client speaks on.
    pub fn close_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    }

    /// Reads the next event of a stream as `event name`.
    pub fn told(&mut self) -> String {
        match self.event() {
            Some((event, data)) => format!("{event} {}", data["secret"].as_str().unwrap_or_default()),
            None => "end".to_owned(),
        }
    }

    /// Tells whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && !self.read()
    }

    /// Tells whether the server closes the connection, or says its last word, within `limit`.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("a socket takes it");
        let mut byte = [0; 1];
        let closed = match self.stream.read(&mut byte) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes it");
        closed
    }

    /// Reads some bytes; false at the end of the connection.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("neither a byte nor an end for {PATIENCE:?}: {error}"),
        }
    }
}
