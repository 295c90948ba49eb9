//! The smallest framing of an HTTP/1.1 response that a closed loop needs.

/// Returns the request for `path`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Returns the request that sends `body`, a JSON text, to `path`.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// More than any server here sends.
const MOST_HEADERS: usize = 32;

/// One complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Bytes of head and body together.
    pub(crate) length: usize,
}

/// Returns the response once `bytes` holds all of it, `None` while some are missing.
///
/// Only `Content-Length` is understood: but for a stream of events, no reply of the agent is chunked.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Response>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the response is no HTTP"),
    };
    let status = response.code.ok_or("the status line has no code")?;
    let length_of_body = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
        .ok_or("the response has no content-length")?;
    let length = head + length_of_body;
    Ok((bytes.len() >= length).then_some(Response { status, length }))
}

/// Tells whether an idle connection has what it asked for: a whole response, or the first event of a stream.
pub(crate) fn has_begun(bytes: &[u8]) -> Result<bool, &'static str> {
    match parse_head(bytes)? {
        None => Ok(false),
        Some((200, head)) if is_event_stream(&bytes[..head]) => {
            Ok(bytes[head..].windows(6).any(|window| window == b"event:"))
        }
        Some((200, _)) => Ok(parse(bytes)?.is_some()),
        Some(_) => Err("any status but 200"),
    }
}

/// Status, and length of the head without its closing empty line.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, usize)>, &'static str> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or("the status line has no code")?;
    Ok(Some((status, head)))
}

fn is_event_stream(head: &[u8]) -> bool {
    let media_type = b"text/event-stream";
    head.windows(media_type.len()).any(|window| window.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_has_begun_with_its_first_event_or_its_whole_response() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(has_begun(stream), Ok(false));
        assert_eq!(has_begun(&[&stream[..], b"1f\r\nevent: hello\ndata: {}\n\n\r\n"].concat()), Ok(true));
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(has_begun(whole), Ok(true));
        assert_eq!(has_begun(&whole[..whole.len() - 1]), Ok(false));
        assert!(has_begun(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    #[test]
    fn a_body_is_announced_with_its_length() {
        let request = post("/v1/resolve", b"{}");
        assert!(
            request.starts_with(b"POST /v1/resolve HTTP/1.1\r\n") && request.ends_with(b"Content-Length: 2\r\n\r\n{}")
        );
    }

    #[test]
    fn a_response_is_complete_with_its_last_byte() {
        let bytes = b"HTTP/1.1 200 OK\r\nETag: \"a:b\"\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(parse(bytes), Ok(Some(Response { status: 200, length: bytes.len() })));
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn a_response_whose_end_is_unknown_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 OK\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: one\r\n\r\n").is_err());
    }
}
