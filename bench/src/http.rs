//! The smallest framing of an HTTP/1.1 response that a closed loop needs.

/// One complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Bytes of head and body together.
    pub(crate) length: usize,
}

/// Returns the response once `bytes` holds all of it, `None` while some are missing.
///
/// Only `Content-Length` is understood: no reply of the agent to a `GET` is chunked.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Response>, &'static str> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or("the status line has no code")?;
    let length_of_body = bytes[..head]
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| line.split_at_checked(line.iter().position(|&byte| byte == b':')?))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
        .and_then(|(_, value)| std::str::from_utf8(&value[1..]).ok()?.trim().parse::<usize>().ok())
        .ok_or("the response has no content-length")?;
    let length = head + 4 + length_of_body;
    Ok((bytes.len() >= length).then_some(Response { status, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
