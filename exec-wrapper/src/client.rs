//! A client of the agent's socket: HTTP/1.1, one request at a time, whole replies, one deadline a request.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::message::Problem;
use keyside_protocol::value::SecretValue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use zeroize::Zeroize as _;

use crate::stream::Lines;
use crate::sys;

/// The uid that the kernel shows for anybody without a mapping: it says nothing about who that is.
const OVERFLOW_UID: u32 = 65_534;
/// The most bytes of a reply's head.
const MAX_HEAD: usize = 16 * 1024;
/// The most bytes of a reply's body.
const MAX_BODY: u64 = 256 * 1024 * 1024;

/// Whom to believe as server, beside root and ourselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trust {
    /// The agent's uid, where it is neither root's nor our own.
    pub agent_uid: Option<u32>,
}

impl Trust {
    fn accepts(self, uid: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        uid != OVERFLOW_UID && (uid == 0 || uid == own || Some(uid) == self.agent_uid)
    }
}

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing to connect to, nobody listens, or we may not. [`is_transient`](Self::is_transient) tells them apart.
    #[error("cannot connect to the agent at {}: {}", path.display(), describe(*reason))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        reason: Errno,
    },
    /// A path that does not fit into a socket address.
    #[error("the socket path {} has {} bytes; a Unix socket's path has at most 107", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The server is none of those to trust; nothing was sent to it.
    #[error("the server on the socket runs as uid {uid}, which is neither root nor our own")]
    Untrusted {
        /// The server's uid.
        uid: u32,
    },
    /// The deadline passed.
    #[error("the agent did not answer within {}", keyside_protocol::units::Span(*after))]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The connection ended before the reply did.
    #[error("the agent closed the connection before it had answered")]
    Closed,
    /// Another failure of the connection.
    #[error("the connection to the agent failed: {}", describe(*.0))]
    Broken(Errno),
    /// A reply that is no HTTP of this protocol.
    #[error("the agent's reply cannot be read: {0}")]
    Malformed(&'static str),
}

fn describe(reason: Errno) -> &'static str {
    match reason {
        Errno::NOENT => "no such file",
        Errno::CONNREFUSED => "nobody listens there",
        Errno::ACCESS | Errno::PERM => "permission denied",
        Errno::NOTSOCK => "it is not a socket",
        Errno::AGAIN => "its queue is full",
        Errno::NOTDIR => "a part of the path is not a directory",
        Errno::PROTOTYPE => "it is a socket of another kind",
        Errno::CONNRESET => "it was reset",
        Errno::PIPE => "it was closed",
        Errno::MFILE | Errno::NFILE => "too many open files",
        Errno::LOOP => "too many symbolic links",
        _ => "a system call failed",
    }
}

impl ClientError {
    /// Tells whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { reason, .. } => {
                // A regular file, a directory or a FIFO refuses a connect too; that is looked at where it is waited for.
                matches!(*reason, Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN)
            }
            Self::TimedOut { .. } | Self::Closed | Self::Broken(_) => true,
            Self::PathTooLong { .. } | Self::Untrusted { .. } | Self::Malformed(_) => false,
        }
    }

    /// Returns what to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { reason: Errno::NOENT | Errno::CONNREFUSED, .. } => {
                Some("is the agent running? start it with `keyside agent`, or name its socket with --socket".to_owned())
            }
            Self::Connect { reason: Errno::ACCESS | Errno::PERM, .. } => Some(
                "the socket's mode, group and directory decide who may connect; see [agent] socket_mode".to_owned(),
            ),
            Self::Connect { .. } => Some("name the agent's socket with --socket or KEYSIDE_SOCKET".to_owned()),
            Self::PathTooLong { .. } => Some("choose a shorter path for the socket".to_owned()),
            Self::Untrusted { uid: OVERFLOW_UID } => {
                Some("that uid stands for a user unknown in this namespace and is never trusted".to_owned())
            }
            Self::Untrusted { uid } => Some(format!("if that is the agent's user, say --agent-uid {uid}")),
            Self::TimedOut { .. } => Some("a back-end may hang; `keyside status` shows the state of each".to_owned()),
            Self::Closed | Self::Broken(_) => Some("the agent's log says why".to_owned()),
            Self::Malformed(_) => {
                Some("is it a Keyside agent, at most two minor versions apart from this program?".to_owned())
            }
        }
    }
}

/// A connection to the agent whose server was checked.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the socket at `path` without waiting, and checks who serves it before anything is sent.
    pub fn connect(path: &Path, trust: &Trust) -> Result<Self, ClientError> {
        let failed = |reason| ClientError::Connect { path: path.to_owned(), reason };
        // A Linux socket address holds 108 bytes with the NUL; abstract names are nobody's.
        if path.as_os_str().len() > 107 {
            return Err(ClientError::PathTooLong { path: path.to_owned() });
        }
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        // Non-blocking: a connect to a full queue would otherwise sleep without a limit.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        Self::over(UnixStream::from(socket), trust)
    }

    /// Speaks over a connected stream, whose server is checked first.
    pub fn over(stream: UnixStream, trust: &Trust) -> Result<Self, ClientError> {
        let uid = sys::peer_uid(stream.as_fd()).map_err(broken)?;
        if trust.accepts(uid) { Ok(Self { stream }) } else { Err(ClientError::Untrusted { uid }) }
    }

    /// Sends one request and reads the whole reply. `target` is path and query, already percent-encoded. A `body` is
    /// sent as JSON unless `headers` hold a `content-type`. After an error the connection is of no further use.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        let until = Until { at: Instant::now() + deadline, span: deadline };
        match self.ask(method, target, headers, body, until) {
            // The server may have answered and closed before it read everything (a 413, say): look for that answer.
            Err(ClientError::Broken(Errno::PIPE | Errno::CONNRESET)) => {
                self.read_reply(method, until).map_err(|error| match error {
                    ClientError::Broken(_) => ClientError::Closed,
                    other => other,
                })
            }
            Err(error) => Err(error),
            Ok(()) => self.read_reply(method, until),
        }
    }

    pub(crate) fn open_stream(
        self,
        target: &str,
        at: Instant,
        span: Duration,
    ) -> Result<Result<Lines, Reply>, ClientError> {
        let until = Until { at, span };
        self.ask("GET", target, &[("accept", "text/event-stream")], None, until)?;
        let (head, length, received) = self.read_head(until)?;
        if head.status == 200 {
            // expose: events hold no values.
            let rest = received.expose()[length..].to_vec();
            return Ok(Ok(Lines::new(self, rest)));
        }
        self.read_body("GET", head, length, received, until).map(Err)
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one request.
    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        until: Until,
    ) -> Result<(), ClientError> {
        let mut head = String::with_capacity(160);
        let _ = write!(head, "{method} {target} HTTP/1.1\r\nhost: keyside\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head.push_str("content-type: application/json\r\n");
            }
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        // One segment for the usual small request; the copy is wiped, for a body may hold values.
        let body = body.unwrap_or_default();
        let mut request = SecretBuffer::with_capacity(head.len() + body.len());
        request.push(head.as_bytes());
        request.push(body);
        // expose: into the agent's socket.
        self.write_all(request.expose(), until)
    }

    fn write_all(&self, mut bytes: &[u8], until: Until) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => until.wait_for(&self.stream, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(reason) => return Err(ClientError::Broken(reason)),
            }
        }
        Ok(())
    }

    /// Reads at least one byte; 0 means that the server closed.
    fn read_some(&self, buffer: &mut [u8], until: Until) -> Result<usize, ClientError> {
        loop {
            until.wait_for(&self.stream, PollFlags::IN)?;
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, read)) => return Ok(read),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(0),
                Err(reason) => return Err(ClientError::Broken(reason)),
            }
        }
    }

    fn read_reply(&self, method: &str, until: Until) -> Result<Reply, ClientError> {
        let (head, head_length, received) = self.read_head(until)?;
        self.read_body(method, head, head_length, received, until)
    }

    /// Reads as far as the end of the head; returns what was received with the head's length.
    fn read_head(&self, until: Until) -> Result<(Head, usize, SecretBuffer), ClientError> {
        let mut first = [0_u8; USUAL_REPLY];
        let mut received = SecretBuffer::with_capacity(0);
        loop {
            let read = self.read_some(&mut first, until)?;
            if read == 0 {
                return Err(ClientError::Closed);
            }
            received.push(&first[..read]);
            // What was read and no more: wiping costs time for each byte.
            first[..read].zeroize();
            // expose: looked at for the end of the head.
            if let Some(parsed) = parse_head(received.expose())? {
                // An interim reply says nothing yet.
                if parsed.0.status >= 200 {
                    return Ok((parsed.0, parsed.1, received));
                }
                let mut rest = SecretBuffer::with_capacity(received.len() - parsed.1);
                // expose: into another wiped buffer.
                rest.push(&received.expose()[parsed.1..]);
                received = rest;
                // expose: as above.
                if let Some(parsed) = parse_head(received.expose())? {
                    return Ok((parsed.0, parsed.1, received));
                }
            }
            if received.len() > MAX_HEAD {
                return Err(ClientError::Malformed("its head is too long"));
            }
        }
    }

    fn read_body(
        &self,
        method: &str,
        head: Head,
        head_length: usize,
        received: SecretBuffer,
        until: Until,
    ) -> Result<Reply, ClientError> {
        let length = match (head.status, method) {
            (204 | 304, _) | (_, "HEAD") => Some(0),
            _ => head.content_length()?,
        };
        if length.is_some_and(|length| length > MAX_BODY) {
            return Err(ClientError::Malformed("its body is too long"));
        }
        // expose: the first part of the body moves into its own wiped buffer of the announced size.
        let rest = &received.expose()[head_length..];
        let mut body =
            SecretBuffer::with_capacity(length.map_or(rest.len().max(USUAL_REPLY), |length| length as usize));
        body.push(rest);
        drop(received);
        // Most replies are here already; then there is nothing to wipe.
        if length == Some(body.len() as u64) {
            return Ok(Reply { status: head.status, headers: head.headers, body });
        }
        let mut first = zeroize::Zeroizing::new([0_u8; USUAL_REPLY]);
        loop {
            match length {
                Some(length) if body.len() as u64 == length => break,
                Some(length) if body.len() as u64 > length => {
                    return Err(ClientError::Malformed("more bytes than it announced"));
                }
                _ => {}
            }
            let room = length.map_or(first.len(), |length| first.len().min(length as usize - body.len()));
            match self.read_some(&mut first[..room], until)? {
                0 if length.is_none() => break,
                0 => return Err(ClientError::Closed),
                read => body.push(&first[..read]),
            }
            if body.len() as u64 > MAX_BODY {
                return Err(ClientError::Malformed("its body is too long"));
            }
        }
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

fn broken(error: io::Error) -> ClientError {
    ClientError::Broken(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Room for what a step usually asks for: some twenty values of a few hundred bytes.
const USUAL_REPLY: usize = 8192;

/// A deadline, and the span it was made of.
#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    span: Duration,
}

impl Until {
    fn wait_for(self, stream: &UnixStream, events: PollFlags) -> Result<(), ClientError> {
        loop {
            let left = self.at.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(stream, events)], Some(&left)) {
                Ok(0) => return Err(ClientError::TimedOut { after: self.span }),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(reason) => return Err(ClientError::Broken(reason)),
            }
        }
    }
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The announced length; none means "until the connection ends".
    fn content_length(&self) -> Result<Option<u64>, ClientError> {
        if self.headers.iter().any(|(name, _)| name == "transfer-encoding") {
            return Err(ClientError::Malformed("it is chunked"));
        }
        let mut lengths = self.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
        let Some(first) = lengths.next() else { return Ok(None) };
        if lengths.any(|other| other != first) {
            return Err(ClientError::Malformed("it has two lengths"));
        }
        first.parse().map(Some).map_err(|_| ClientError::Malformed("its length is no number"))
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers =
                response.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value))).collect();
            Ok(Some((Head { status: response.code.unwrap_or(0), headers }, length)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(ClientError::Malformed("it is not HTTP")),
    }
}

/// A whole reply.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: SecretBuffer,
}

impl Reply {
    /// Returns the first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the body, in a buffer that is wiped with the reply. It may hold values.
    pub fn body(&self) -> &[u8] {
        // expose: to the caller, who reads JSON or one raw value from it.
        self.body.expose()
    }

    /// Takes the body as one value, without a copy.
    pub fn into_value(self) -> SecretValue {
        self.body.into_value()
    }

    /// Returns the error that the agent describes, when the reply is one.
    pub fn problem(&self) -> Option<Problem> {
        if self.status < 400 {
            return None;
        }
        serde_json::from_slice(self.body()).ok()
    }
}

/// Percent-encodes one path segment or query value: everything but RFC 3986's unreserved characters.
pub fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    /// Sends one request to a server that reads its head and then plays `reply`.
    fn answered(reply: &'static [u8]) -> Result<Reply, ClientError> {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let server = thread::spawn(move || {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                theirs.read_exact(&mut byte).expect("a request");
                seen.push(byte[0]);
            }
            theirs.write_all(reply).expect("written");
            String::from_utf8(seen).expect("text")
        });
        let mut client = Client::over(ours, &Trust::default()).expect("our own uid is trusted");
        let reply = client.send("GET", "/v1/x", &[("accept", "*/*")], None, LONG);
        let seen = server.join().expect("a server");
        assert_eq!(seen, "GET /v1/x HTTP/1.1\r\nhost: keyside\r\naccept: */*\r\n\r\n");
        reply
    }

    #[test]
    fn a_reply_is_read_whole_with_its_headers() {
        let reply = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: \"a-1\"\r\n\r\nabc").expect("a reply");
        assert_eq!((reply.status, reply.header("etag"), reply.body()), (200, Some("\"a-1\""), &b"abc"[..]));
        assert_eq!(reply.into_value().expose(), b"abc");
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc").expect("a reply").body(), b"abc");
    }

    #[test]
    fn an_interim_reply_is_passed_over() {
        let reply = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").expect("a reply");
        assert_eq!(reply.status, 204);
    }

    #[test]
    fn a_broken_reply_is_an_error_and_not_a_shorter_value() {
        for reply in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(answered(reply).is_err(), "{}", String::from_utf8_lossy(reply));
        }
    }

    #[test]
    fn a_server_that_says_nothing_costs_the_deadline_and_no_more() {
        let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
        let mut client = Client::over(ours, &Trust::default()).expect("trusted");
        let result = client.send("GET", "/", &[], None, SHORT);
        assert!(matches!(result, Err(ClientError::TimedOut { after: SHORT })));
    }

    #[test]
    fn only_root_ourselves_and_the_named_uid_are_trusted() {
        let own = rustix::process::geteuid().as_raw();
        let nobody = Trust::default();
        assert!(nobody.accepts(0) && nobody.accepts(own) && !nobody.accepts(4_242));
        assert!(Trust { agent_uid: Some(4_242) }.accepts(4_242));
        assert!(!Trust { agent_uid: Some(OVERFLOW_UID) }.accepts(OVERFLOW_UID));
    }

    #[test]
    fn a_problem_is_read_from_an_error_only() {
        let reply = answered(
            b"HTTP/1.1 403 Forbidden\r\n\r\n{\"type\":\"urn:x\",\"title\":\"t\",\"status\":403,\"code\":\"peer_refused\",\"detail\":\"no\",\"hint\":\"grant\"}",
        )
        .expect("a reply");
        assert_eq!(reply.problem().expect("a problem").detail, "no");
    }

    #[test]
    fn a_segment_is_encoded_once() {
        assert_eq!(encode_segment("a b/ü%.~"), "a%20b%2F%C3%BC%25.~");
    }

    #[test]
    fn an_overlong_path_is_named() {
        let path = PathBuf::from(format!("/{}", "x".repeat(107)));
        assert!(matches!(Client::connect(&path, &Trust::default()), Err(ClientError::PathTooLong { .. })));
    }
}
