//! Cuts what a plug-in prints into lines, within bounds: a line that is too long is not kept, but whom it answers is
//! found out all the same.

use keyside_protocol::json::SecretBuffer;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroizing;

/// Bytes that are read at once.
const PIECE: usize = 16 << 10;

/// How many times the longest line is passed over before a line counts as one without end.
const PATIENCE: usize = 8;

/// What stands next.
pub(super) enum Next {
    /// A whole line, without its end.
    Line(SecretBuffer),
    /// A line longer than allowed, which was dropped; the id that it had.
    TooLong(Option<u64>),
    /// More than anybody would want to say in one line, and no end.
    Endless,
    /// Nothing more comes. A last line without an end is none: it may be half of one.
    End,
}

/// A stream of lines.
pub(super) struct Lines<R> {
    from: R,
    buffer: Zeroizing<Vec<u8>>,
    /// What of the buffer has not been passed on yet.
    unread: std::ops::Range<usize>,
    longest: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most `longest` bytes.
    pub(super) fn of(from: R, longest: usize) -> Self {
        Self { from, buffer: Zeroizing::new(vec![0; PIECE]), unread: 0..0, longest }
    }

    /// Returns the next line. Not to be dropped before it is done: what was read of a line would be lost.
    pub(super) async fn next(&mut self) -> Next {
        let mut line = SecretBuffer::with_capacity(0);
        let mut passed_over: Option<(usize, IdFinder)> = None;
        loop {
            if self.unread.is_empty() {
                match self.from.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => return Next::End,
                    Ok(read) => self.unread = 0..read,
                }
            }
            let unread = &self.buffer[self.unread.clone()];
            let end = unread.iter().position(|byte| *byte == b'\n');
            let piece = &unread[..end.unwrap_or(unread.len())];
            self.unread.start += piece.len() + usize::from(end.is_some());
            if passed_over.is_none() && line.len() + piece.len() > self.longest {
                let mut finder = IdFinder::default();
                // expose: looked through for the id, then wiped.
                finder.look(line.expose());
                line = SecretBuffer::with_capacity(0);
                passed_over = Some((0, finder));
            }
            match &mut passed_over {
                None => line.push(piece),
                Some((length, finder)) => {
                    finder.look(piece);
                    *length += piece.len();
                    if *length > self.longest.saturating_mul(PATIENCE) {
                        return Next::Endless;
                    }
                }
            }
            if end.is_some() {
                return match passed_over {
                    None => Next::Line(line),
                    Some((_, finder)) => Next::TooLong(finder.found()),
                };
            }
        }
    }
}

/// Finds the number under `id` in the outermost object of JSON text that comes in pieces, and keeps nothing else.
#[derive(Default)]
struct IdFinder {
    depth: u32,
    in_text: bool,
    escaped: bool,
    /// The outermost text that was read last, as far as it can matter.
    text: Vec<u8>,
    /// Behind `"id":`.
    wanted: bool,
    id: Vec<u8>,
}

/// A number has at most twenty digits, in quotes; a key that matters has two letters.
const MOST_KEPT: usize = 22;

impl IdFinder {
    fn look(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: u8) {
        let outermost = self.depth == 1;
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            if outermost && self.in_text && self.text.len() < MOST_KEPT {
                self.text.push(byte);
            }
            if self.wanted && self.in_text && self.id.len() < MOST_KEPT {
                self.id.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.text.clear();
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.wanted = false;
            }
            b',' => self.wanted = false,
            b':' if outermost => self.wanted = self.id.is_empty() && self.text == b"id",
            b'0'..=b'9' if self.wanted && outermost && self.id.len() < MOST_KEPT => self.id.push(byte),
            _ => {}
        }
    }

    fn found(&self) -> Option<u64> {
        super::reply::number(std::str::from_utf8(&self.id).ok().filter(|id| !id.is_empty())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], longest: usize) -> Vec<String> {
        let mut lines = Lines::of(text, longest);
        let mut seen = Vec::new();
        loop {
            seen.push(match lines.next().await {
                Next::Line(line) => String::from_utf8_lossy(line.expose()).into_owned(),
                Next::TooLong(id) => format!("too long: {id:?}"),
                Next::Endless | Next::End => return seen,
            });
        }
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_a_half_one_is_none() {
        assert_eq!(all(b"", 9).await, [""; 0]);
        assert_eq!(all(b"a\n\nb\r\nhalf", 9).await, ["a", "", "b\r"]);
        let long = format!("{}\n{}\n", "x".repeat(3 * PIECE), "y".repeat(5));
        assert_eq!(all(long.as_bytes(), 4 * PIECE).await, ["x".repeat(3 * PIECE), "y".repeat(5)]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over_and_still_has_its_id() {
        let long = "x".repeat(50);
        for (line, id) in [
            (format!(r#"{{"id":12,"result":"{long}"}}"#), Some(12)),
            (format!(r#"{{"result":{{"id":99,"a":["{long}\"id\":7"]}},"id": 34 }}"#), Some(34)),
            (format!(r#"{{"result":"\"id\":5,{long}","id":"56"}}"#), Some(56)),
            (format!(r#"{{"result":"{long}","id":null}}"#), None),
            (format!(r#"["id",7,"{long}"]"#), None),
            (format!(r#"{{"x":"id","y":3,"result":"{long}"}}"#), None),
            (long.clone(), None),
        ] {
            let text = format!("short\n{line}\nshort\n");
            assert_eq!(all(text.as_bytes(), 40).await, ["short", &format!("too long: {id:?}"), "short"], "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_given_up() {
        let mut lines = Lines::of(&[b'x'; 1000][..], 10);
        assert!(matches!(lines.next().await, Next::Endless));
        assert_eq!(all(&[b'x'; 1000], 1000).await, [""; 0], "a half line, only");
    }
}
