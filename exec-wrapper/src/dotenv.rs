//! `--env-file`: lines of `NAME=TEMPLATE`.
//!
//! Blank lines and lines that start with `#` are passed over; `export ` may stand before a name. A value without
//! quotes ends at the line's end or before a blank and `#`, and blanks around it are dropped. Within `'...'` nothing is
//! special; within `"..."` a backslash stands before `"`, `\`, `$`, `` ` ``, `n`, `r`, `t`, and before anything else for
//! itself. Quoted values may span lines. `$NAME` is never expanded: it is data.

/// Where a file stops making sense. The text is not quoted: it may be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct DotenvError {
    /// 1-based.
    pub(crate) line: usize,
    what: &'static str,
}

/// Reads the pairs in order, repeats included.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DotenvError> {
    let mut reader = Reader { rest: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), line: 1 };
    let mut pairs = Vec::new();
    loop {
        reader.skip_blanks();
        match reader.rest.first() {
            None => return Ok(pairs),
            Some(b'\n' | b'\r') => reader.skip_line(),
            Some(b'#') => reader.skip_line(),
            Some(_) => pairs.push(reader.pair()?),
        }
    }
}

struct Reader<'b> {
    rest: &'b [u8],
    line: usize,
}

impl<'b> Reader<'b> {
    fn fail<T>(&self, what: &'static str) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, what })
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.rest = &self.rest[blanks..];
    }

    fn take_line(&mut self) -> &'b [u8] {
        let end = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        self.line += 1;
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    fn skip_line(&mut self) {
        self.take_line();
    }

    fn pair(&mut self) -> Result<(String, Vec<u8>), DotenvError> {
        if let Some(rest) = self.rest.strip_prefix(b"export").filter(|rest| matches!(rest.first(), Some(b' ' | b'\t')))
        {
            self.rest = rest;
            self.skip_blanks();
        }
        let Some(end) = self.rest.iter().position(|byte| matches!(byte, b'=' | b'\n')) else {
            return self.fail("a name without `=`");
        };
        if self.rest[end] == b'\n' {
            return self.fail("a name without `=`");
        }
        let name = self.rest[..end].trim_ascii_end();
        let name = match std::str::from_utf8(name) {
            Ok(name) if crate::deny::is_variable_name(name) => name.to_owned(),
            _ => return self.fail("what stands before `=` is no variable name"),
        };
        self.rest = &self.rest[end + 1..];
        self.skip_blanks();
        let value = match self.rest.first() {
            Some(b'\'') => self.single_quoted()?,
            Some(b'"') => self.double_quoted()?,
            _ => return Ok((name, unquoted(self.take_line()))),
        };
        let after = self.line;
        let tail = self.take_line().trim_ascii();
        if !tail.is_empty() && tail[0] != b'#' {
            self.line = after;
            return self.fail("text after a closing quote");
        }
        Ok((name, value))
    }

    fn single_quoted(&mut self) -> Result<Vec<u8>, DotenvError> {
        let inner = &self.rest[1..];
        let Some(end) = inner.iter().position(|&byte| byte == b'\'') else {
            return self.fail("a quote that is never closed");
        };
        let value = inner[..end].to_vec();
        self.line += value.iter().filter(|&&byte| byte == b'\n').count();
        self.rest = &inner[end + 1..];
        Ok(value)
    }

    fn double_quoted(&mut self) -> Result<Vec<u8>, DotenvError> {
        let mut value = Vec::new();
        let mut lines = 0;
        let mut at = 1;
        loop {
            match (self.rest.get(at), self.rest.get(at + 1)) {
                (None, _) => return self.fail("a quote that is never closed"),
                (Some(b'"'), _) => {
                    self.rest = &self.rest[at + 1..];
                    self.line += lines;
                    return Ok(value);
                }
                (Some(b'\\'), Some(&escaped @ (b'"' | b'\\' | b'$' | b'`' | b'n' | b'r' | b't'))) => {
                    value.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => other,
                    });
                    at += 2;
                }
                (Some(&byte), _) => {
                    lines += usize::from(byte == b'\n');
                    value.push(byte);
                    at += 1;
                }
            }
        }
    }
}

fn unquoted(line: &[u8]) -> Vec<u8> {
    let comment = (0..line.len()).find(|&at| line[at] == b'#' && (at == 0 || matches!(line[at - 1], b' ' | b'\t')));
    line[..comment.unwrap_or(line.len())].trim_ascii_end().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &[(&str, &str)]) {
        let pairs = parse(input.as_bytes()).expect("a dotenv file");
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).expect("text"))).collect();
        assert_eq!(pairs, expected, "{input:?}");
    }

    #[test]
    fn each_way_of_writing_a_value_is_read() {
        check("", &[]);
        check("# c\n\n  A=1\r\nexport B = two words  # c\n", &[("A", "1"), ("B", "two words")]);
        check("A=\nB=#\nC=a#b\nD='# $x \\n'\n", &[("A", ""), ("B", ""), ("C", "a#b"), ("D", "# $x \\n")]);
        check("A=\"a\\n\\\"b\\\\ \\q $X\"", &[("A", "a\n\"b\\ \\q $X")]);
        check(
            "A='x\ny'\nB=\"p\nq\" # c\nC={{ db.pw | url }}",
            &[("A", "x\ny"), ("B", "p\nq"), ("C", "{{ db.pw | url }}")],
        );
        check("exportA=1\nA=2\nA=3", &[("exportA", "1"), ("A", "2"), ("A", "3")]);
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_never_quoted() {
        for (input, line) in
            [("A=1\nhunter2", 2), ("A='1\n2'\n1B=hunter2", 3), ("A=\"x", 1), ("A='x' hunter2", 1), ("=x", 1)]
        {
            let error = parse(input.as_bytes()).expect_err("a mistake");
            assert_eq!(error.line, line, "{input:?}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
