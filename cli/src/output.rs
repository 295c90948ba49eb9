//! Standard output and standard error: the only place that writes to either.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use crate::exit::{Exit, Failure};

/// Writes a result to standard output, past std's buffer, which is never wiped.
///
/// A reader that has gone (`keyside ... | head -1`) is no failure: it has all it wanted.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    print_on(bytes).map(|_| ())
}

/// Writes a part of a result that goes on, like [`print()`]; false when the reader has gone and no more is wanted.
pub fn print_on(bytes: &[u8]) -> Result<bool, Failure> {
    if keyside_exec_wrapper::stdout_was_closed() {
        return Err(cannot_write(rustix::io::Errno::BADF));
    }
    let stdout = io::stdout();
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(stdout.as_fd(), rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable()?,
            Err(rustix::io::Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(cannot_write(errno)),
        }
    }
    Ok(true)
}

/// A shell may hand us a pipe that somebody else made non-blocking.
fn wait_writable() -> Result<(), Failure> {
    let stdout = io::stdout();
    let mut fds = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::OUT)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(cannot_write(errno)),
    }
}

fn cannot_write(errno: rustix::io::Errno) -> Failure {
    Failure::new(Exit::No, format!("cannot write to standard output: {}", io_text(&errno.into())))
        .hint("is it open, and is there room on its disk?")
}

/// Tells whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes one line to standard error; a closed one is nobody's concern.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes `keyside: warning: ...` to standard error.
pub fn warn(what: &str) {
    say(&format!("keyside: warning: {what}"));
}

/// Writes a failure to standard error in the promised form.
pub fn complain(failure: &Failure) {
    for line in &failure.lines {
        say(line);
    }
    if !failure.what.is_empty() {
        say(&format!("keyside: {}", failure.what));
    }
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {hint}"));
    }
}

/// Returns an I/O error's text in our form: lower case, without std's `(os error N)`.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// Replaces control characters by their escapes, so that a name cannot move the cursor or forge a line.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { safe.extend(char.escape_default()) } else { safe.push(char) }
    }
    Cow::Owned(safe)
}

/// Lays out rows in columns, two blanks apart; the last column is not padded, and no line ends in a blank.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = if column + 1 == row.len() { 0 } else { widths[column] + 2 };
            let _ = write!(line, "{cell:<pad$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A style of text on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// All is well.
    Green,
    /// Something is missing.
    Red,
    /// Not known.
    Yellow,
}

/// Colours `text`, when `on`.
pub fn paint(text: &str, paint: Paint, on: bool) -> String {
    let code = match paint {
        Paint::Green => 32,
        Paint::Red => 31,
        Paint::Yellow => 33,
    };
    if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(printable("ключ 🔐"), "ключ 🔐");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_in_no_blank() {
        let rows = [vec!["a".into(), "bb".into(), String::new()], vec!["ccc".into(), "d".into(), "e".into()]];
        assert_eq!(columns(&rows), "a    bb\nccc  d   e\n");
    }

    #[test]
    fn an_io_error_reads_as_ours() {
        assert_eq!(io_text(&io::Error::from_raw_os_error(2)), "no such file or directory");
    }
}
