//! The closed loops: each connection has exactly one request in flight.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token};

use crate::error::BenchError;
use crate::latency::Latencies;
use crate::process;
use crate::target::Target;

/// Larger than any answer that is measured: a thousand values in one are.
const BUFFER: usize = 512 * 1024;
/// For each of many connections, which ask for single values.
const SMALL_BUFFER: usize = 16 * 1024;

/// One measured slice of one target.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) latencies: Latencies,
    wall: Duration,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

impl Slice {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of server CPU for each request; not a number where the server is unknown.
    pub(crate) fn server_us(&self) -> f64 {
        self.server_cpu.map_or(f64::NAN, |cpu| self.per_request(cpu))
    }

    /// Microseconds of this program's CPU for each request.
    pub(crate) fn client_us(&self) -> f64 {
        self.per_request(self.client_cpu)
    }

    /// Requests that one core can do in a second, this program's part included: what `requests_per_second` is where both
    /// sides share a CPU that nobody else uses, and what holds where somebody does.
    pub(crate) fn requests_per_core_second(&self) -> f64 {
        1e6 / (self.server_us() + self.client_us())
    }

    fn per_request(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.latencies.count() as f64
    }
}

/// Loads `target` for `time` and accounts CPU on both sides. The first wrong answer ends the run: a figure that counts
/// failures is worth nothing.
pub(crate) fn run(target: &Target, connections: usize, time: Duration) -> Result<Slice, BenchError> {
    let server_before = target.server.map(process::cpu_time).transpose()?;
    let client_before = process::own_cpu_time()?;
    let begin = Instant::now();
    let latencies = match (target.fresh, connections) {
        (true, _) => fresh(target, time),
        (false, 1) => single(target, time),
        (false, _) => many(target, connections, time),
    }?;
    let wall = begin.elapsed();
    let client_cpu = process::own_cpu_time()? - client_before;
    let server_after = target.server.map(process::cpu_time).transpose()?;
    let server_cpu = server_after.zip(server_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Slice { latencies: latencies.sorted(), wall, server_cpu, client_cpu })
}

/// One kept connection and blocking calls: the latency that a simple client sees.
fn single(target: &Target, time: Duration) -> Result<Latencies, BenchError> {
    let requests = target.requests();
    let mut stream = target.connect()?;
    let mut latencies = Latencies::with_room();
    let mut buffer = vec![0; BUFFER];
    let begin = Instant::now();
    for request in requests.iter().cycle() {
        let at = Instant::now();
        exchange(target, &mut stream, request, &mut buffer)?;
        latencies.record(at.elapsed());
        if begin.elapsed() >= time {
            break;
        }
    }
    Ok(latencies)
}

/// A new connection for each request; connect is inside the latency.
fn fresh(target: &Target, time: Duration) -> Result<Latencies, BenchError> {
    let requests = target.requests();
    let mut latencies = Latencies::with_room();
    let mut buffer = vec![0; BUFFER];
    let begin = Instant::now();
    for request in requests.iter().cycle() {
        let at = Instant::now();
        exchange(target, &mut target.connect()?, request, &mut buffer)?;
        latencies.record(at.elapsed());
        if begin.elapsed() >= time {
            break;
        }
    }
    Ok(latencies)
}

/// Asks for each of the first `keys` keys once, on one kept connection.
pub(crate) fn each_once(target: &Target, keys: usize) -> Result<(), BenchError> {
    let mut stream = target.connect()?;
    let mut buffer = vec![0; BUFFER];
    target.requests().iter().take(keys).try_for_each(|request| exchange(target, &mut stream, request, &mut buffer))
}

fn exchange(
    target: &Target,
    stream: &mut std::os::unix::net::UnixStream,
    request: &[u8],
    buffer: &mut [u8],
) -> Result<(), BenchError> {
    stream.write_all(request).map_err(BenchError::system("write a request"))?;
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).map_err(BenchError::system("read an answer"))? {
            0 => return Err(target.wrong("the connection was closed, or the answer is too long")),
            count => filled += count,
        }
        if target.complete(&buffer[..filled])? {
            return Ok(());
        }
    }
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    filled: usize,
    sent_at: Instant,
    next_request: usize,
}

/// Many kept connections on one thread and one epoll set.
fn many(target: &Target, count: usize, time: Duration) -> Result<Latencies, BenchError> {
    let requests = target.requests();
    let mut poll = Poll::new().map_err(BenchError::system("epoll"))?;
    let mut events = Events::with_capacity(count);
    let mut latencies = Latencies::with_room();
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let stream = target.connect()?;
        stream.set_nonblocking(true).map_err(BenchError::system("non-blocking"))?;
        let mut stream = UnixStream::from_std(stream);
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE)
            .map_err(BenchError::system("register a connection"))?;
        connections.push(Connection {
            stream,
            buffer: vec![0; SMALL_BUFFER],
            filled: 0,
            sent_at: Instant::now(),
            // Spread over the keys, or all connections would ask for the same one at once.
            next_request: index * requests.len() / count,
        });
    }
    let begin = Instant::now();
    for connection in &mut connections {
        send(target, connection, &requests)?;
    }
    while begin.elapsed() < time {
        match poll.poll(&mut events, Some(Duration::from_secs(10))) {
            Ok(()) if events.is_empty() => return Err(target.wrong("no answer within 10 s")),
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(BenchError::system("epoll")(error)),
        }
        for event in &events {
            advance(target, &mut connections[event.token().0], &requests, &mut latencies)?;
        }
    }
    Ok(latencies)
}

/// Reads what is there; records a complete answer and sends the next request.
fn advance(
    target: &Target,
    connection: &mut Connection,
    requests: &[Vec<u8>],
    latencies: &mut Latencies,
) -> Result<(), BenchError> {
    loop {
        match connection.stream.read(&mut connection.buffer[connection.filled..]) {
            Ok(0) => return Err(target.wrong("the connection was closed, or the answer is too long")),
            Ok(count) => connection.filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(BenchError::system("read an answer")(error)),
        }
        if target.complete(&connection.buffer[..connection.filled])? {
            latencies.record(connection.sent_at.elapsed());
            connection.filled = 0;
            // The answer to the next request raises a new edge: no need to read again now.
            return send(target, connection, requests);
        }
    }
}

fn send(target: &Target, connection: &mut Connection, requests: &[Vec<u8>]) -> Result<(), BenchError> {
    let request = &requests[connection.next_request];
    connection.next_request = (connection.next_request + 1) % requests.len();
    connection.sent_at = Instant::now();
    match connection.stream.write(request).map_err(BenchError::system("write a request"))? {
        count if count == request.len() => Ok(()),
        _ => Err(target.wrong("the request does not fit into the socket's buffer")),
    }
}
