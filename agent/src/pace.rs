//! What stands between a connection and HTTP: its deadlines (hyper's own timer counts an idle kept-alive connection as a
//! slow head, and has none for writes), the one spelling of a head, and replies that need no HTTP library.

use std::cell::RefCell;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use keyside_protocol::json::SecretBuffer;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::{HeadScan, REFUSED};
use crate::sys::wiping::wipe;

/// From accepting to the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// From a request's first byte to the end of its head.
const HEAD: Duration = Duration::from_secs(5);
/// From the end of the head to the end of the body.
const BODY: Duration = Duration::from_secs(5);
/// Between a reply and the next request.
const IDLE: Duration = Duration::from_secs(30);
/// Without progress while writing.
const WRITE: Duration = Duration::from_secs(10);
/// For each of these, on a connection that is only let in for a probe.
const HURRY: Duration = Duration::from_secs(2);

const WAITING_FIRST: u8 = 0;
const IN_HEAD: u8 = 1;
const HANDLING: u8 = 2;
const IN_BODY: u8 = 3;
const WAITING_NEXT: u8 = 4;

/// Milliseconds on the coarse monotonic clock: a few milliseconds of grain are enough here, and it is read for
/// every request.
fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Where a connection is and since when. Written by one connection's task and read by the guard of all, to whom a value
/// of a moment ago is as good: relaxed order is enough.
pub struct Pace {
    phase: AtomicU8,
    /// When the phase began.
    since: AtomicU64,
    /// Since when a write makes no progress; zero when none is waiting.
    write_waits: AtomicU64,
    /// A body was read, and may have held values: the buffer that it came in is wiped before it is used again.
    had_body: AtomicBool,
    /// None of the limits is longer.
    longest: Duration,
}

impl Pace {
    /// A connection that was opened now.
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(WAITING_FIRST),
            since: AtomicU64::new(now_ms()),
            write_waits: AtomicU64::new(0),
            had_body: AtomicBool::new(false),
            longest: Duration::MAX,
        }
    }

    /// The same for a connection that takes one of few places.
    pub fn hurried() -> Self {
        Self { longest: HURRY, ..Self::new() }
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.since.store(now_ms(), Ordering::Relaxed);
    }

    fn received(&self) {
        if matches!(self.phase.load(Ordering::Relaxed), WAITING_FIRST | WAITING_NEXT) {
            self.enter(IN_HEAD);
        }
    }

    /// A request is being answered; its own deadline applies.
    pub fn handling(&self) {
        self.phase.store(HANDLING, Ordering::Relaxed);
    }

    /// A request's body is being read.
    pub fn reading_body(&self) {
        self.had_body.store(true, Ordering::Relaxed);
        self.enter(IN_BODY);
    }

    /// Tells whether the next byte begins a request and no reply is on its way.
    fn is_at_rest(&self) -> bool {
        matches!(self.phase.load(Ordering::Relaxed), WAITING_FIRST | WAITING_NEXT) && !self.is_write_waiting()
    }

    /// The reply is made.
    pub fn replied(&self) {
        self.enter(WAITING_NEXT);
    }

    /// A write waits for the client to take it.
    pub fn write_waits(&self) {
        if !self.is_write_waiting() {
            self.write_waits.store(now_ms().max(1), Ordering::Relaxed);
        }
    }

    /// The client took something.
    pub fn write_moved(&self) {
        self.write_waits.store(0, Ordering::Relaxed);
    }

    /// Tells whether a write waits for the client.
    pub fn is_write_waiting(&self) -> bool {
        self.write_waits.load(Ordering::Relaxed) != 0
    }

    /// Returns how long the connection may go on as it is; zero when a deadline has passed.
    fn remaining(&self) -> Duration {
        self.remaining_at(now_ms())
    }

    fn remaining_at(&self, now: u64) -> Duration {
        let left = |since: u64, limit: Duration| {
            limit.min(self.longest).saturating_sub(Duration::from_millis(now.saturating_sub(since)))
        };
        // While a reply waits to be taken, its own deadline is the one that counts.
        match (self.write_waits.load(Ordering::Relaxed), self.phase.load(Ordering::Relaxed)) {
            (0, HANDLING) => IDLE,
            (0, WAITING_FIRST) => left(self.since.load(Ordering::Relaxed), FIRST_BYTE),
            (0, IN_HEAD) => left(self.since.load(Ordering::Relaxed), HEAD),
            (0, IN_BODY) => left(self.since.load(Ordering::Relaxed), BODY),
            (0, _) => left(self.since.load(Ordering::Relaxed), IDLE),
            (waits, _) => left(waits, WRITE),
        }
    }

    /// Tells whether a deadline has passed.
    pub fn is_exceeded(&self) -> bool {
        self.remaining().is_zero()
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

/// Replies up to this size go to the kernel as one buffer: it costs the kernel less than two, measured as a thirtieth
/// of a warm read.
pub const ONE_BUFFER: usize = 4096;

thread_local! {
    /// Where head and body of a small reply are put together: ours and not hyper's, which keeps what it has sent until
    /// the connection's next reply.
    static REPLY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(ONE_BUFFER));
}

/// What can answer the commonest requests as they came from the socket, without the HTTP library.
pub trait Shortcut {
    /// Appends the whole reply, head and body, to `reply`, which is empty and takes [`ONE_BUFFER`] bytes; false leaves the
    /// request to the library, and nothing has happened then.
    ///
    /// `request` is what came after the end of the request before: any bytes at all, and only where they are one whole
    /// request and nothing else may they be answered. The reply leaves the connection open.
    fn answer(&self, request: &[u8], reply: &mut Vec<u8>) -> bool;
}

/// Answers nothing.
impl Shortcut for () {
    fn answer(&self, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }
}

/// A stream that tells its [`Pace`] what moves, lets only one spelling of a request's head through, and leaves no
/// copy behind. What its [`Shortcut`] answers never comes through.
pub struct PacedStream<S, A> {
    stream: S,
    pace: std::sync::Arc<Pace>,
    heads: HeadScan,
    shortcut: A,
    /// What the client has not taken yet of a reply by the shortcut.
    unsent: Option<Unsent>,
    /// What is left to be read instead, once a head was refused.
    refused: Option<&'static [u8]>,
}

struct Unsent {
    bytes: SecretBuffer,
    sent: usize,
}

impl<S, A> PacedStream<S, A> {
    /// Wraps `stream`.
    pub fn new(stream: S, pace: std::sync::Arc<Pace>, shortcut: A) -> Self {
        Self { stream, pace, heads: HeadScan::default(), shortcut, unsent: None, refused: None }
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, A: Shortcut + Unpin> AsyncRead for PacedStream<S, A> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.refused.is_some() {
            self.refuse(buf);
            return Poll::Ready(Ok(()));
        }
        if self.pace.phase.load(Ordering::Relaxed) == WAITING_NEXT && self.pace.had_body.load(Ordering::Relaxed) {
            // hyper takes the same buffer for the next request, from its beginning.
            self.pace.had_body.store(false, Ordering::Relaxed);
            wipe(buf.initialize_unfilled());
        }
        let before = buf.filled().len();
        loop {
            std::task::ready!(self.send_rest(cx))?;
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
            let came = &buf.filled()[before..];
            if came.is_empty() {
                return polled;
            }
            if self.heads.is_between_requests() && self.pace.is_at_rest() && self.answer_at_once(cx, came)? {
                buf.set_filled(before);
                continue;
            }
            self.pace.received();
            let accepted = self.heads.accept(came);
            if accepted < came.len() {
                buf.set_filled(before + accepted);
                self.refused = Some(REFUSED);
                self.refuse(buf);
            }
            return polled;
        }
    }
}

impl<S, A> PacedStream<S, A> {
    /// The rest of what stands for a refused head, then the end.
    fn refuse(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.refused.unwrap_or_default();
        let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        self.refused = Some(later);
    }
}

impl<S: AsyncWrite + Unpin, A: Shortcut> PacedStream<S, A> {
    /// Lets the shortcut answer `request`, and tells whether it did.
    fn answer_at_once(&mut self, cx: &mut Context<'_>, request: &[u8]) -> std::io::Result<bool> {
        REPLY.with_borrow_mut(|reply| {
            if !self.shortcut.answer(request, reply) {
                return Ok(false);
            }
            self.pace.enter(WAITING_NEXT);
            let polled = Pin::new(&mut self.stream).poll_write(cx, reply);
            let sent = match self.wrote(polled) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(0),
            };
            if let Ok(sent) = sent
                && sent < reply.len()
            {
                let mut bytes = SecretBuffer::with_capacity(reply.len());
                bytes.push(reply);
                self.unsent = Some(Unsent { bytes, sent });
            }
            wipe(reply);
            reply.clear();
            sent.map(|_| true)
        })
    }
}

impl<S: AsyncWrite + Unpin, A> PacedStream<S, A> {
    /// Sends what is left of the shortcut's last reply; nothing else is sent or read before that.
    fn send_rest(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(Unsent { bytes, sent }) = &mut self.unsent {
            // expose: to the socket.
            let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes.expose()[*sent..]);
            let now = match &polled {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(now)) => *now,
                _ => 0,
            };
            *sent += now;
            if *sent == bytes.len() {
                self.unsent = None;
            }
            std::task::ready!(self.wrote(polled))?;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        let waits = &self.pace.write_waits;
        if polled.is_ready() {
            if waits.load(Ordering::Relaxed) != 0 {
                waits.store(0, Ordering::Relaxed);
                self.pace.since.store(now_ms(), Ordering::Relaxed);
            }
        } else if waits.load(Ordering::Relaxed) == 0 {
            waits.store(now_ms().max(1), Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, A: Unpin> AsyncWrite for PacedStream<S, A> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.send_rest(cx))?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.send_rest(cx))?;
        let polled = if slices.iter().map(|slice| slice.len()).sum::<usize>() <= ONE_BUFFER {
            REPLY.with_borrow_mut(|reply| {
                slices.iter().for_each(|slice| reply.extend_from_slice(slice));
                let polled = Pin::new(&mut self.stream).poll_write(cx, reply);
                wipe(reply);
                reply.clear();
                polled
            })
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
        };
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.send_rest(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.send_rest(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    /// The guard reads the kernel's clock, so the limits are shown by where the pace says it is, not by waiting for them.
    #[test]
    fn each_phase_has_its_own_limit() {
        let pace = Pace::new();
        assert!(pace.remaining() <= FIRST_BYTE);
        pace.received();
        assert!(pace.remaining() <= HEAD && pace.phase.load(Ordering::Relaxed) == IN_HEAD);
        pace.handling();
        pace.reading_body();
        assert!(pace.remaining() <= BODY);
        pace.replied();
        assert!(pace.remaining() > HEAD, "an idle kept-alive connection has longer than a head");
    }

    #[test]
    fn each_limit_is_over_when_its_time_is_and_a_byte_now_and_then_buys_none() {
        let over_after = |pace: &Pace| {
            let since = pace.since.load(Ordering::Relaxed);
            (0..60).find(|seconds| pace.remaining_at(since + seconds * 1000).is_zero())
        };
        let pace = Pace::new();
        assert_eq!(over_after(&pace), Some(5), "the first byte");
        pace.received();
        assert_eq!(over_after(&pace), Some(5), "the head");
        let began = pace.since.load(Ordering::Relaxed);
        pace.received();
        assert_eq!(pace.since.load(Ordering::Relaxed), began, "more of the head");
        pace.handling();
        assert_eq!(over_after(&pace), None, "a request has its own deadline");
        pace.reading_body();
        assert_eq!(over_after(&pace), Some(5), "the body");
        let began = pace.since.load(Ordering::Relaxed);
        pace.received();
        assert_eq!(pace.since.load(Ordering::Relaxed), began, "more of the body");
        pace.replied();
        assert_eq!(over_after(&pace), Some(30), "the next request");
        pace.write_waits.store(pace.since.load(Ordering::Relaxed), Ordering::Relaxed);
        assert_eq!(over_after(&pace), Some(10), "a reply that is not taken");
        let hurried = Pace::hurried();
        assert_eq!(over_after(&hurried), Some(2));
        hurried.received();
        assert_eq!(over_after(&hurried), Some(2));
    }

    #[tokio::test]
    async fn a_refused_head_is_read_as_one_that_no_parser_takes_and_then_the_end() {
        for room in [1, 2, 100] {
            let (ours, mut theirs) = duplex(100);
            let mut stream = PacedStream::new(ours, std::sync::Arc::new(Pace::new()), ());
            theirs.write_all(b"GET / HTTP/1.1\nsmuggled").await.expect("fits");
            let mut read: Vec<u8> = Vec::new();
            let mut piece = vec![0; room];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                read.extend(&piece[..count]);
            }
            assert_eq!(read, b"GET / HTTP/1.1\0\n\n", "{room}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_starts_the_write_deadline_and_progress_ends_it() {
        let (ours, mut theirs) = duplex(4);
        let pace = std::sync::Arc::new(Pace::new());
        let mut stream = PacedStream::new(ours, std::sync::Arc::clone(&pace), ());
        pace.replied();
        stream.write_all(b"1234").await.expect("fits");
        let write = |stream: &mut PacedStream<_, ()>, cx: &mut Context<'_>| Pin::new(stream).poll_write(cx, b"5");
        let blocked = std::future::poll_fn(|cx| Poll::Ready(write(&mut stream, cx).is_pending())).await;
        assert!(blocked);
        assert!(pace.write_waits.load(Ordering::Relaxed) > 0);
        assert!(pace.remaining() <= WRITE);
        let mut taken = [0; 4];
        theirs.read_exact(&mut taken).await.expect("there");
        stream.write_all(b"5").await.expect("room again");
        assert_eq!(pace.write_waits.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn head_and_body_of_a_small_reply_leave_as_one_and_large_ones_leave_whole_too() {
        for size in [0, 10, ONE_BUFFER, 3 * ONE_BUFFER] {
            let (ours, mut theirs) = duplex(4 * ONE_BUFFER);
            let mut stream = PacedStream::new(ours, std::sync::Arc::new(Pace::new()), ());
            let (head, body) = (b"head".as_slice(), vec![7; size]);
            let mut sent = 0;
            while sent < head.len() + size {
                let slices = match sent.checked_sub(head.len()) {
                    None => [IoSlice::new(&head[sent..]), IoSlice::new(&body)],
                    Some(of_body) => [IoSlice::new(&body[of_body..]), IoSlice::new(b"")],
                };
                sent += stream.write_vectored(&slices).await.expect("room");
                assert!(size >= ONE_BUFFER || sent == head.len() + size, "one write");
            }
            let mut received = vec![0; sent];
            theirs.read_exact(&mut received).await.expect("there");
            assert_eq!(received, [head, &body].concat());
            REPLY.with_borrow(|reply| assert!(reply.is_empty() && reply.capacity() == ONE_BUFFER));
        }
    }

    /// Answers `?` with a hundred bytes.
    struct Hundred;

    impl Shortcut for Hundred {
        fn answer(&self, request: &[u8], reply: &mut Vec<u8>) -> bool {
            let is_known = request == b"?";
            if is_known {
                reply.extend(0..100);
            }
            is_known
        }
    }

    #[tokio::test]
    async fn what_the_shortcut_answers_is_never_read_and_all_of_its_reply_leaves_first() {
        let (ours, mut theirs) = duplex(16);
        let pace = std::sync::Arc::new(Pace::new());
        let mut stream = PacedStream::new(ours, std::sync::Arc::clone(&pace), Hundred);
        theirs.write_all(b"?").await.expect("fits");
        let mut read = [0; 8];
        let blocked = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut read));
            Poll::Ready(polled.is_pending())
        });
        assert!(blocked.await);
        assert!(pace.is_write_waiting(), "its client takes nothing, and that has a deadline");
        let mut taken = Vec::new();
        let client = async {
            let mut piece = [0; 7];
            while taken.len() < 100 {
                let count = theirs.read(&mut piece).await.expect("there");
                taken.extend(&piece[..count]);
            }
            theirs.write_all(b"GET / HTTP/1.1\r\n").await.expect("fits");
            theirs
        };
        let server = async {
            let count = stream.read(&mut read).await.expect("the next request");
            stream.write_all(b"after").await.expect("room");
            count
        };
        let (mut theirs, count) = tokio::join!(client, server);
        assert_eq!((taken, &read[..count]), ((0..100).collect(), b"GET / HT".as_slice()));
        let mut after = [0; 5];
        theirs.read_exact(&mut after).await.expect("there");
        assert_eq!(&after, b"after");
        assert!(!pace.is_write_waiting());
    }

    #[tokio::test]
    async fn the_shortcut_sees_only_what_begins_a_request() {
        let (ours, mut theirs) = duplex(64);
        let pace = std::sync::Arc::new(Pace::new());
        let mut stream = PacedStream::new(ours, std::sync::Arc::clone(&pace), Hundred);
        let mut read = [0; 64];
        for piece in [b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n".as_slice(), b"?"] {
            theirs.write_all(piece).await.expect("fits");
            let count = stream.read(&mut read).await.expect("comes through");
            assert_eq!(&read[..count], piece);
        }
        // The request is being answered: what follows it waits for its turn.
        pace.handling();
        theirs.write_all(b"?").await.expect("fits");
        assert_eq!(stream.read(&mut read).await.expect("comes through"), 1);
    }

    #[tokio::test]
    async fn the_buffer_that_a_body_came_in_is_wiped_before_the_next_request_is_awaited() {
        let (ours, _theirs) = duplex(64);
        let pace = std::sync::Arc::new(Pace::new());
        let mut stream = PacedStream::new(ours, std::sync::Arc::clone(&pace), ());
        let mut read = |memory: &mut [u8]| {
            let mut buffer = ReadBuf::new(memory);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut stream).poll_read(&mut cx, &mut buffer).is_pending());
        };
        let mut memory = *b"a value";
        read(&mut memory);
        pace.reading_body();
        read(&mut memory);
        assert_eq!(&memory, b"a value", "the body is still being read");
        pace.replied();
        read(&mut memory);
        assert_eq!(memory, [0; 7]);
    }
}
