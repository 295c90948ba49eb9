//! `GET /v1/secrets/{name}/{key}` in its commonest form, answered from memory as it comes from the socket: no waiting, no
//! allocation, no HTTP library. Whatever is out of the ordinary goes the long way, which decides everything anew; both
//! ways give the same reply.

use std::sync::Arc;

use keyside_protocol::PROTOCOL_VERSION;

use super::request::is_our_host;
use super::{Agent, Connection, Current};
use crate::cache::Hit;
use crate::pace::{ONE_BUFFER, Shortcut};

/// More than a head without a version needs.
const HEAD: usize = 512;

/// The requests of one connection that can be answered from memory.
pub struct WarmReads {
    current: Arc<Current>,
    connection: Arc<Connection>,
}

impl WarmReads {
    /// Those of `connection`.
    pub fn new(current: Arc<Current>, connection: Arc<Connection>) -> Self {
        Self { current, connection }
    }
}

impl Shortcut for WarmReads {
    fn answer(&self, request: &[u8], reply: &mut Vec<u8>) -> bool {
        let Some((name, key)) = plain_read(request) else { return false };
        let agent = self.current.agent();
        let is_answered = !self.connection.probes_only && answer(&agent, &self.connection, name, key, reply).is_some();
        if is_answered {
            agent.metrics.served_from_memory();
        }
        is_answered
    }
}

fn answer(agent: &Agent, connection: &Connection, name: &str, key: &str, reply: &mut Vec<u8>) -> Option<()> {
    if agent.audit.is_on() {
        return None;
    }
    let viewer = agent.access.viewer(&connection.peer, &connection.listener)?;
    if !viewer.may_read_key(name, key) {
        return None;
    }
    let hit = agent.resolver.recall(name)?;
    let position = hit.cached.secret.position(key)?;
    put_reply(agent.resolver.instance(), &hit, position, reply)
}

/// Returns name and key when `request` is nothing but one request for a value, without anything that could change the
/// answer: no query, no percent-encoding, and of the headers only such as every client sends.
fn plain_read(request: &[u8]) -> Option<(&str, &str)> {
    let head = request.strip_prefix(b"GET /v1/secrets/")?.strip_suffix(b"\r\n\r\n")?;
    let end = head.iter().position(|byte| *byte == b'\r')?;
    let (line, mut headers) = head.split_at(end);
    let path = line.strip_suffix(b" HTTP/1.1")?;
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"%?#\"<>\\^`{|}".contains(byte);
    if !path.iter().all(is_plain) {
        return None;
    }
    let (name, key) = std::str::from_utf8(path).ok()?.split_once('/')?;
    if name.is_empty() || key.is_empty() || key.contains('/') {
        return None;
    }
    let mut hosts = 0;
    while !headers.is_empty() {
        headers = headers.strip_prefix(b"\r\n")?;
        let (header, rest) = headers.split_at(headers.iter().position(|byte| *byte == b'\r').unwrap_or(headers.len()));
        let (header, value) = header.split_at(header.iter().position(|byte| *byte == b':')?);
        let value = value[1..].trim_ascii();
        if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return None;
        }
        let is = |name: &[u8]| header.eq_ignore_ascii_case(name);
        if is(b"host") {
            if !is_our_host(value) {
                return None;
            }
            hosts += 1;
        } else if is(b"connection") {
            if !value.eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
        } else if !(is(b"user-agent") || is(b"accept") || is(b"accept-encoding")) {
            return None;
        }
        headers = rest;
    }
    (hosts == 1).then_some((name, key))
}

/// Appends what the long way would send: the same headers in the same order.
fn put_reply(instance: &str, hit: &Hit, position: usize, reply: &mut Vec<u8>) -> Option<()> {
    let version = hit.cached.secret.version();
    // expose: to the socket, as the reply's body.
    let value = hit.cached.secret.at(position).expose();
    let is_header_text = version.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_header_text || HEAD + version.len() + value.len() > ONE_BUFFER {
        return None;
    }
    // Piece by piece: the formatting of the standard library takes a twentieth of the whole request.
    let mut put = |text: &str| reply.extend_from_slice(text.as_bytes());
    put("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncache-control: no-store\r\nkeyside-protocol: ");
    put(PROTOCOL_VERSION);
    put("\r\netag: \"");
    put(instance);
    put("-");
    put(itoa::Buffer::new().format(hit.cached.revision()));
    put("\"\r\nkeyside-version: ");
    put(&version);
    put(if hit.stale { "\r\nkeyside-stale: true\r\nage: " } else { "\r\nkeyside-stale: false\r\nage: " });
    put(itoa::Buffer::new().format(hit.age.as_secs()));
    put("\r\ncontent-length: ");
    put(itoa::Buffer::new().format(value.len()));
    put("\r\n\r\n");
    reply.extend_from_slice(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::head::HeadScan;

    const HOST: &str = "Host: localhost\r\n";

    fn of(line: &str, headers: &str) -> Option<(String, String)> {
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        plain_read(request.as_bytes()).map(|(name, key)| (name.to_owned(), key.to_owned()))
    }

    #[test]
    fn the_requests_of_common_clients_are_plain() {
        for headers in [
            HOST,
            "host:KEYSIDE\r\n",
            "Host: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n",
            "Host: localhost\r\nUser-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
             Connection: keep-alive\r\n",
            "Host: localhost\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n",
        ] {
            let read = of("GET /v1/secrets/db/pass.word", headers);
            assert_eq!(read, Some(("db".to_owned(), "pass.word".to_owned())), "{headers:?}");
        }
    }

    #[test]
    fn whatever_could_change_the_answer_goes_the_long_way() {
        for line in [
            "HEAD /v1/secrets/db/key",
            "get /v1/secrets/db/key",
            "GET /v1/secrets/db",
            "GET /v1/secrets/db/",
            "GET /v1/secrets//key",
            "GET /v1/secrets/db/key/more",
            "GET /v1/secrets/db/key?backend=store",
            "GET /v1/secrets/d%62/key",
            "GET /v1/secrets/db/key#part",
            "GET /v1/secrets/d b/key",
            "GET /v1/secrets/d\u{e9}/key",
            "GET /v1/secrets/db/key HTTP/1.1\r\nX: y",
            "GET  /v1/secrets/db/key",
            "GET http://localhost/v1/secrets/db/key",
        ] {
            assert_eq!(of(line, HOST), None, "{line:?}");
        }
        for headers in [
            "",
            "Host: example.com\r\n",
            "Host: localhost\r\nHost: localhost\r\n",
            "Host: localhost\r\nConnection: close\r\n",
            "Host: localhost\r\nIf-None-Match: *\r\n",
            "Host: localhost\r\nCache-Control: no-cache\r\n",
            "Host: localhost\r\nContent-Length: 0\r\n",
            "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
            "Host: localhost\r\nOrigin: null\r\n",
            "Host: localhost\r\nX-Unknown: 1\r\n",
            "Host : localhost\r\n",
            "Host: localhost\r\n Accept: x\r\n",
            "Host: localhost\nAccept: x\r\n",
            "Host: localhost\rAccept: x\r\n",
            "Host: localhost\r\nAccept\r\n",
            "Host: localhost\r\nAccept: \u{7f}\r\n",
            "Host: localhost\r\n\r\nGET /v1/secrets/db/key HTTP/1.1\r\nHost: localhost\r\n",
        ] {
            assert_eq!(of("GET /v1/secrets/db/key", headers), None, "{headers:?}");
        }
        let whole = b"GET /v1/secrets/db/key HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(plain_read(whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(plain_read(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(plain_read(&[whole.as_slice(), b"G"].concat()), None, "the next request has begun");
    }

    proptest! {
        /// Pieces of requests in any order: what is taken for plain must be one whole request to a parser too, with that
        /// target, and pass the scan of heads.
        #[test]
        fn nothing_is_plain_that_a_parser_reads_otherwise(
            pieces in proptest::collection::vec(
                prop_oneof![
                    6 => Just("GET /v1/secrets/db/key HTTP/1.1\r\n".to_owned()),
                    6 => Just(HOST.to_owned()),
                    6 => Just("\r\n".to_owned()),
                    3 => Just("Accept: */*\r\n".to_owned()),
                    2 => "[ -~]{0,12}",
                    1 => "[\r\n:/ \u{0}a]{0,4}",
                ],
                1..6,
            )
        ) {
            let text = pieces.concat();
            let request = text.as_bytes();
            if let Some((name, key)) = plain_read(request) {
                prop_assert_eq!(HeadScan::default().accept(request), request.len());
                let mut headers = [httparse::EMPTY_HEADER; 16];
                let mut parsed = httparse::Request::new(&mut headers);
                prop_assert_eq!(parsed.parse(request), Ok(httparse::Status::Complete(request.len())));
                prop_assert_eq!(parsed.path.map(str::to_owned), Some(format!("/v1/secrets/{name}/{key}")));
                prop_assert_eq!((parsed.method, parsed.version), (Some("GET"), Some(1)));
            }
        }
    }
}
