//! A reply that does not end: lines from the agent as they come.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::client::{Client, ClientError, Reply};

/// The longest line that is believed.
const MAX_LINE: usize = 64 * 1024;

/// Lines of an open reply.
pub struct Lines {
    client: Client,
    received: Vec<u8>,
    /// Bytes of `received` that hold no line's end.
    searched: usize,
}

/// How waiting for a line ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line, without its end.
    Line(String),
    /// The agent closed the stream.
    Ended,
    /// Whoever would read what is made of the lines has gone.
    Unwanted,
}

impl Client {
    /// Asks for a stream. Returns its lines, or the reply where it is another.
    ///
    /// Errors: as for [`send`](Self::send); the deadline is for the head.
    pub fn stream(self, target: &str, deadline: Duration) -> Result<Result<Lines, Reply>, ClientError> {
        self.open_stream(target, Instant::now() + deadline, deadline)
    }
}

impl Lines {
    pub(crate) fn new(client: Client, received: Vec<u8>) -> Self {
        Self { client, received, searched: 0 }
    }

    /// Waits for the next line, without a limit. `output` is where the caller writes: when nobody reads there any more,
    /// waiting ends.
    ///
    /// Errors: the connection fails; what comes is no line.
    pub fn next(&mut self, output: Option<BorrowedFd<'_>>) -> Result<Next, ClientError> {
        loop {
            if let Some(at) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=self.searched + at).collect();
                self.searched = 0;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return match std::str::from_utf8(line) {
                    Ok(line) => Ok(Next::Line(line.to_owned())),
                    Err(_) => Err(ClientError::Malformed("a line is not text")),
                };
            }
            self.searched = self.received.len();
            if self.received.len() > MAX_LINE {
                return Err(ClientError::Malformed("a line is too long"));
            }
            if !self.wait(output)? {
                return Ok(Next::Unwanted);
            }
            let mut bytes = [0; 4096];
            match rustix::net::recv(self.client.socket(), &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(Next::Ended),
                Ok((_, count)) => self.received.extend_from_slice(&bytes[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(reason) => return Err(ClientError::Broken(reason)),
            }
        }
    }

    /// Waits until something can be received; false when nobody reads `output` any more.
    fn wait(&self, output: Option<BorrowedFd<'_>>) -> Result<bool, ClientError> {
        loop {
            let mut fds = vec![PollFd::new(self.client.socket(), PollFlags::IN)];
            // Only the end of the reader shows there: nothing else is asked for.
            fds.extend(output.iter().map(|output| PollFd::new(output, PollFlags::empty())));
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(reason) => return Err(ClientError::Broken(reason)),
                Ok(_) if fds.get(1).is_some_and(|output| !output.revents().is_empty()) => return Ok(false),
                Ok(_) => return Ok(true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::client::Trust;

    const LONG: Duration = Duration::from_secs(10);

    /// Asks a server for a stream that plays `reply` and closes.
    fn asked(reply: &'static [u8]) -> Result<Result<Lines, Reply>, ClientError> {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        let server = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                theirs.read_exact(&mut byte).expect("a request");
                seen.push(byte[0]);
            }
            theirs.write_all(reply).expect("written");
        });
        let answer = Client::over(ours, &Trust::default()).expect("our own uid is trusted").stream("/x", LONG);
        server.join().expect("a server");
        answer
    }

    #[test]
    fn lines_come_one_by_one_and_then_the_end() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\na: 1\nb\r\n\nrest";
        let Ok(Ok(mut lines)) = asked(reply) else { panic!("a stream") };
        for line in ["a: 1", "b", ""] {
            assert_eq!(lines.next(None).expect("a line"), Next::Line(line.to_owned()));
        }
        assert_eq!(lines.next(None).expect("an end"), Next::Ended);
    }

    #[test]
    fn another_reply_is_read_whole() {
        let Ok(Err(reply)) = asked(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}") else { panic!("a reply") };
        assert_eq!((reply.status, reply.body()), (404, &b"{}"[..]));
    }

    #[test]
    fn waiting_ends_when_nobody_reads_what_would_be_written() {
        let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
        let mut lines = Lines::new(Client::over(ours, &Trust::default()).expect("trusted"), Vec::new());
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(lines.next(Some(writer.as_fd())).expect("no failure"), Next::Unwanted);
    }
}
