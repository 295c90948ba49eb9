//! A small HTTP/1.1 server that misbehaves on a script, for the tests of every back-end that speaks HTTP.
//!
//! Each request is kept and shown to the script, which says how to answer. It listens on a free loopback port of the
//! test's own runtime, with TLS where it is given a certificate, and ends when it is dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificate;

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As long as `Content-Length` says.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Returns the target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Returns the query, percent-decoding nothing; empty without one.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How to answer one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Properly.
    Reply(Reply),
    /// Not at all: the connection stays open and silent.
    Hang,
    /// Head and this many bytes of the body, then silence.
    HangAfter(Reply, usize),
    /// Head at once, then one byte of the body a second.
    Trickle(Reply),
    /// Head and this many bytes of the body, then the connection is closed.
    Truncated(Reply, usize),
    /// Head, then a chunked body that never ends.
    Endless(Reply),
    /// A gzip body of half a megabyte that would be 64 MiB of zeros, whether compression was asked for or not.
    GzipBomb,
    /// Bytes that are no HTTP, then the connection is closed.
    Garbage,
    /// The connection is closed without a word.
    Close,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// Makes a reply of `application/json`.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into().into_bytes() }.header("Content-Type", "application/json")
    }

    /// Makes a reply of bytes without a type.
    pub fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn head(&self, length: Option<usize>) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            Some(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
            None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        }
        head.into_bytes()
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

struct Shared {
    script: Mutex<Script>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
}

/// The running server.
pub struct Faulty {
    scheme: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl Faulty {
    /// Starts one that answers as `script` says.
    pub async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, script).await
    }

    /// Starts one that speaks TLS and shows this certificate.
    pub async fn start_tls(
        certificate: &Certificate,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls(certificate)), script).await
    }

    async fn listen(tls: Option<TlsAcceptor>, script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (script, requests, connections) =
            (Mutex::new(Arc::new(script) as Script), Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { script, requests, connections });
        let serving = Arc::clone(&shared);
        let acceptor = tokio::spawn(async move {
            // Connections end with the acceptor.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(greet(stream, tls.clone(), Arc::clone(&serving)));
            }
        });
        Self { scheme, address, shared, acceptor }
    }

    /// Answers as another script says from the next request on.
    pub fn follow(&self, script: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Returns its address: `http://127.0.0.1:PORT`, or with `https`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns how many connections have been made so far, whatever came of them.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns every request so far, in the order they were read.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Returns how many requests have come so far.
    pub fn calls(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// Returns how many requests for paths that end so have come so far.
    pub fn calls_to(&self, end: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|request| request.path().ends_with(end)).count()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Returns an address where every connection is refused.
pub fn refused_url() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls(certificate: &Certificate) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(certificate.pem.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("a key that fits");
    TlsAcceptor::from(Arc::new(config))
}

async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    match tls {
        None => serve(stream, shared).await,
        // A client that does not believe us is what a test may want.
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        lock(&shared.requests).push(request.clone());
        let script = Arc::clone(&lock(&shared.script));
        // A client that has gone is no fault of the script's.
        if !matches!(answer(stream.get_mut(), script(&request)).await, Ok(true)) {
            return;
        }
    }
}

/// Reads one request; `None` when the client has gone or speaks no HTTP.
async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// Tells whether the connection may be used again.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: Answer) -> std::io::Result<bool> {
    match answer {
        Answer::Reply(reply) => {
            // 204 and 304 have no body, and neither has a length then.
            let mut bytes = reply.head(Some(reply.body.len()));
            bytes.extend_from_slice(&reply.body);
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(true)
        }
        Answer::Hang => silence(stream).await,
        Answer::HangAfter(reply, after) => {
            begin(stream, &reply, after).await?;
            silence(stream).await
        }
        Answer::Trickle(reply) => {
            stream.write_all(&reply.head(Some(reply.body.len()))).await?;
            for byte in reply.body {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(true)
        }
        Answer::Truncated(reply, after) => {
            begin(stream, &reply, after).await?;
            Ok(false)
        }
        Answer::Endless(reply) => {
            stream.write_all(&reply.head(None)).await?;
            let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Answer::GzipBomb => {
            let reply = Reply::json(200, "").header("Content-Encoding", "gzip");
            let reply = Reply { body: gzip_bomb(), ..reply };
            begin(stream, &reply, reply.body.len()).await?;
            Ok(false)
        }
        Answer::Garbage => {
            stream.write_all(b"\x15\x03\x01 this is not HTTP\r\n\r\n").await?;
            Ok(false)
        }
        Answer::Close => Ok(false),
    }
}

async fn begin(stream: &mut (impl AsyncWrite + Unpin), reply: &Reply, after: usize) -> std::io::Result<()> {
    stream.write_all(&reply.head(Some(reply.body.len()))).await?;
    stream.write_all(&reply.body[..after.min(reply.body.len())]).await?;
    stream.flush().await
}

/// Waits until the client has gone.
async fn silence(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<bool> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(false)
}

/// One block of deflate with fixed codes: a zero, then "258 bytes from one byte back", 13 bits each, without an end,
/// which no reader should reach (RFC 1951 3.2.6, RFC 1952 2.3).
fn gzip_bomb() -> Vec<u8> {
    const INFLATED: usize = 64 * 1024 * 1024;
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits: Vec<bool> = Vec::new();
    let code = |code: u32, length: u32| (0..length).rev().map(move |bit| code >> bit & 1 == 1);
    // The block's head (last block, type 01, low bit first), the literal 0, then eight matches at a time.
    bits.extend([true, true, false]);
    bits.extend(code(0b0011_0000, 8));
    for _ in 0..INFLATED / 258 {
        bits.extend(code(0b1100_0101, 8));
        bits.extend(code(0, 5));
    }
    bytes.extend(
        bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |byte, (place, bit)| byte | u8::from(*bit) << place)),
    );
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Sends `request` and returns everything until the server closes the connection.
    async fn exchange(server: &Faulty, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.expect("read");
        String::from_utf8_lossy(&reply).into_owned()
    }

    #[tokio::test]
    async fn requests_on_one_connection_are_kept_and_answered_by_the_script() {
        let server = Faulty::start(|request| match request.method.as_str() {
            "POST" => Reply::json(201, request.text()).header("X-Seen", request.query()).into(),
            _ => Answer::Close,
        })
        .await;
        let reply =
            exchange(&server, "POST /a/b?c=d HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n").await;
        assert!(
            reply.starts_with("HTTP/1.1 201 ") && reply.contains("X-Seen: c=d\r\n") && reply.ends_with("{}"),
            "{reply}"
        );
        assert_eq!(server.calls(), 2);
        assert_eq!(server.calls_to("/b"), 1);
        assert_eq!(server.requests()[0].header("content-length"), Some("2"));
    }

    #[tokio::test]
    async fn a_reply_may_be_cut_off() {
        let server = Faulty::start(|_| Answer::Truncated(Reply::bytes(200, "whole"), 3)).await;
        let reply = exchange(&server, "GET / HTTP/1.1\r\n\r\n").await;
        assert!(reply.contains("Content-Length: 5\r\n") && reply.ends_with("\r\n\r\nwho"), "{reply}");
    }

    #[test]
    fn the_bomb_is_small() {
        assert!(gzip_bomb().len() < 600_000);
    }
}
