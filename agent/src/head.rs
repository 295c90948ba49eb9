//! What the HTTP library lets pass in a request's head and this agent does not, looked for in the bytes themselves.
//!
//! A client and a server that disagree about where a request ends can be made to disagree about what the next one is.
//! So there is one spelling of a head here: lines end with CR LF, at most one Content-Length of digits alone, a target
//! without a fragment, a version that is known. Whatever else the library refuses by itself.

/// What is read instead of a line that is not acceptable, and instead of all that follows: no parser of HTTP takes it
/// for a part of a head, and one that looks for the end of a head first finds it.
pub(crate) const REFUSED: &[u8] = b"\0\n\n";

/// Follows the requests of one connection byte by byte, whatever pieces they come in.
#[derive(Default)]
pub(crate) struct HeadScan {
    part: Part,
    /// The beginning of a line whose end has not come yet. The library bounds heads, and so this.
    begun: Vec<u8>,
    content_length: Option<u64>,
    has_coding: bool,
}

/// Where in a request the next byte lies.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// In the request line, or in an empty line before it.
    #[default]
    RequestLine,
    Headers,
    /// In a body with so many bytes to come.
    Body(u64),
    /// Nothing that follows is looked at: the connection is about to be closed.
    Over,
}

impl HeadScan {
    /// Looks at the bytes that came next and returns how many of them are acceptable. Where that is not all of them,
    /// the rest is not to be read, and no byte after it.
    pub(crate) fn accept(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.part {
                Part::Over => return bytes.len(),
                Part::Body(left) => {
                    let here = (bytes.len() - at) as u64;
                    at += usize::try_from(left.min(here)).unwrap_or(usize::MAX);
                    self.part = if left > here { Part::Body(left - here) } else { Part::RequestLine };
                }
                Part::RequestLine | Part::Headers => {
                    let rest = &bytes[at..];
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.begun.extend_from_slice(rest);
                        return bytes.len();
                    };
                    let accepted = if self.begun.is_empty() {
                        self.line(&rest[..end])
                    } else {
                        let mut line = std::mem::take(&mut self.begun);
                        line.extend_from_slice(&rest[..end]);
                        self.line(&line)
                    };
                    if !accepted {
                        return at + end;
                    }
                    at += end + 1;
                }
            }
        }
        bytes.len()
    }

    /// Tells whether the next byte begins a request.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.part == Part::RequestLine && self.begun.is_empty()
    }

    /// Takes one line without its LF; false when it is not acceptable.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some((b'\r', line)) = line.split_last() else { return false };
        match (self.part, line) {
            // An empty line before a request is allowed (RFC 9112, 2.2).
            (Part::RequestLine, []) => true,
            (Part::RequestLine, line) => {
                self.part = Part::Headers;
                let known = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
                known && !line.contains(&b'#')
            }
            (_, []) => {
                let length = self.content_length.take().unwrap_or(0);
                self.part = match (self.has_coding, length) {
                    // Refused as soon as its head is read.
                    (true, _) => Part::Over,
                    (false, 0) => Part::RequestLine,
                    (false, length) => Part::Body(length),
                };
                true
            }
            (_, line) => self.header(line),
        }
    }

    fn header(&mut self, line: &[u8]) -> bool {
        if let Some(value) = value_of(line, b"content-length:") {
            let length = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()).flatten();
            // Twice is once too often, equal or not: only one of two readers may look at both.
            let first = self.content_length.is_none();
            self.content_length = length.and_then(|length| length.parse().ok());
            return first && self.content_length.is_some();
        }
        self.has_coding |= value_of(line, b"transfer-encoding:").is_some();
        true
    }
}

/// Returns what follows `name` in a header line, without the blanks around it.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, value) = line.split_at_checked(name.len())?;
    begin.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n";

    /// Feeds `text` in pieces of `size` and returns how much of it came through.
    fn passed(text: &[u8], size: usize) -> usize {
        let mut scan = HeadScan::default();
        let mut passed = 0;
        for piece in text.chunks(size) {
            let accepted = scan.accept(piece);
            passed += accepted;
            if accepted < piece.len() {
                break;
            }
        }
        passed
    }

    fn accepts(text: &str) -> bool {
        let counts: Vec<_> = [1, 2, 7, 4096].iter().map(|size| passed(text.as_bytes(), *size) == text.len()).collect();
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "the pieces must not matter: {text:?} {counts:?}");
        counts[0]
    }

    #[test]
    fn plain_requests_pass_one_after_the_other_with_any_bytes_in_their_bodies() {
        for text in [
            format!("{GET}\r\n"),
            format!("{GET}\r\n{GET}\r\n"),
            format!("\r\n{GET}\r\n"),
            format!("{GET}Content-Length: 0\r\n\r\n{GET}\r\n"),
            format!("{GET}content-LENGTH:  5\t\r\n\r\na\nb\n#{GET}\r\n"),
            format!("{GET}Content-Length: 00002\r\n\r\n\n\n{GET}\r\n"),
            "GET / HTTP/1.0\r\n\r\n".to_owned(),
        ] {
            assert!(accepts(&text), "{text:?}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_does_not_pass() {
        for text in [
            "GET / HTTP/1.1\nHost: localhost\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: localhost\n\r\n".to_owned(),
            format!("{GET}\n"),
            format!("\n{GET}\r\n"),
            format!("{GET}X: a\nb\r\n\r\n"),
            format!("{GET}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
            format!("{GET}Content-Length: 1\r\ncontent-length: 2\r\n\r\na"),
            format!("{GET}Content-Length: 1, 1\r\n\r\na"),
            format!("{GET}Content-Length: +1\r\n\r\na"),
            format!("{GET}Content-Length: -1\r\n\r\na"),
            format!("{GET}Content-Length: 1 1\r\n\r\na"),
            format!("{GET}Content-Length: 0x1\r\n\r\na"),
            format!("{GET}Content-Length:\r\n\r\n"),
            format!("{GET}Content-Length: 18446744073709551616\r\n\r\n"),
            "GET /#x HTTP/1.1\r\n\r\n".to_owned(),
            "GET /\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            format!("{GET}\r\nGET / HTTP/1.1\n\r\n"),
            format!("{GET}Content-Length: 1\r\n\r\naGET / HTTP/1.1\n\r\n"),
        ] {
            assert!(!accepts(&text), "{text:?}");
        }
    }

    #[test]
    fn nothing_behind_a_refused_line_comes_through() {
        let text = format!("GET / HTTP/1.1\n{GET}\r\n");
        assert_eq!(passed(text.as_bytes(), 4096), "GET / HTTP/1.1".len());
    }

    proptest! {
        #[test]
        fn no_line_that_ends_with_a_bare_lf_comes_through_in_any_pieces(
            before in "[a-zA-Z0-9:/ \r]{0,40}", size in 1_usize..50
        ) {
            prop_assume!(!before.ends_with('\r'));
            let text = format!("{GET}{before}\nX: y\r\n\r\n");
            prop_assert!(passed(text.as_bytes(), size) <= GET.len() + before.len());
        }
    }
}
