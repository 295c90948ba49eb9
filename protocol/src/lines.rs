//! Byte offsets in a text as lines and columns, both from one, columns in characters: how every mistake is placed.

/// The lines of a text. Made once; each look-up afterwards costs the logarithm of the text's length, so that a text of
/// one long line with a mistake at every byte takes no longer than another.
pub struct Lines {
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// The offsets of all bytes that begin no character.
    continuations: Vec<usize>,
}

impl Lines {
    /// Takes note of the lines of `text`.
    pub fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let continuations = (0..text.len()).filter(|&at| !text.is_char_boundary(at)).collect();
        Self { starts, continuations }
    }

    /// Returns line and column of the character at this byte; an offset behind the end counts on in the last line.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts[line - 1];
        let before = |end: usize| self.continuations.partition_point(|&at| at < end);
        (line, offset - start - (before(offset) - before(start)) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "ab\n\nü€x\r\ny";
        let lines = Lines::of(text);
        for (part, place) in [("ab", (1, 1)), ("b", (1, 2)), ("ü", (3, 1)), ("€", (3, 2)), ("x", (3, 3)), ("y", (4, 1))]
        {
            assert_eq!(lines.line_and_column(text.find(part).expect("a part")), place, "{part}");
        }
        assert_eq!(lines.line_and_column(3), (2, 1));
        assert_eq!(lines.line_and_column(text.len()), (4, 2));
        assert_eq!(Lines::of("").line_and_column(0), (1, 1));
    }
}
