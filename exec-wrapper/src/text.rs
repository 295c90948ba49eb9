//! A template of any bytes. The grammar speaks of text; bytes that are not UTF-8 stand between its pieces untouched.

use keyside_protocol::json::SecretBuffer;
use keyside_protocol::reference::Reference;
use keyside_protocol::template::{RenderError, Template, TemplateError};
use keyside_protocol::value::SecretValue;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Text {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Template(Template),
}

impl Text {
    /// Parses bytes by the template grammar; any malformed `{{` is an error.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TemplateError> {
        Self::parse_with(bytes, Template::parse)
    }

    /// Parses bytes and leaves every malformed `{{` as it stands.
    pub(crate) fn parse_lenient(bytes: &[u8]) -> Self {
        let Ok(text) =
            Self::parse_with(bytes, |piece| Ok::<_, std::convert::Infallible>(Template::parse_lenient(piece)));
        text
    }

    fn parse_with<E: MovedDown>(bytes: &[u8], parse: impl Fn(&str) -> Result<Template, E>) -> Result<Self, E> {
        // Most values hold no placeholder at all.
        if !bytes.windows(2).any(|pair| pair == b"{{") {
            return Ok(Self { pieces: vec![Piece::Bytes(bytes.to_vec())] });
        }
        let mut pieces = Vec::new();
        let mut lines = 0;
        for chunk in bytes.utf8_chunks() {
            pieces.push(Piece::Template(parse(chunk.valid()).map_err(|error| error.moved_down(lines))?));
            lines += chunk.valid().matches('\n').count();
            if !chunk.invalid().is_empty() {
                pieces.push(Piece::Bytes(chunk.invalid().to_vec()));
            }
        }
        Ok(Self { pieces })
    }

    /// Iterates over the references, in order, repeats included.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().flat_map(|piece| match piece {
            Piece::Bytes(_) => None.into_iter().flatten(),
            Piece::Template(template) => Some(template.references()).into_iter().flatten(),
        })
    }

    /// Tells whether nothing in it needs resolving.
    pub(crate) fn is_literal(&self) -> bool {
        self.references().next().is_none()
    }

    /// Puts the values in, each once.
    pub(crate) fn render<'v>(
        &self,
        value_of: impl Fn(&Reference) -> &'v SecretValue,
    ) -> Result<SecretValue, RenderError> {
        match self.pieces.as_slice() {
            [Piece::Bytes(bytes)] => Ok(SecretValue::copy_of(bytes)),
            [Piece::Template(template)] => template.render(value_of),
            pieces => {
                let mut out = SecretBuffer::with_capacity(256);
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => out.push(bytes),
                        // expose: into another wiped buffer.
                        Piece::Template(template) => out.push(template.render(&value_of)?.expose()),
                    }
                }
                Ok(out.into_value())
            }
        }
    }
}

/// An error whose line is counted from the start of its piece.
trait MovedDown {
    fn moved_down(self, lines: usize) -> Self;
}

impl MovedDown for TemplateError {
    fn moved_down(mut self, lines: usize) -> Self {
        self.line += lines;
        self
    }
}

impl MovedDown for std::convert::Infallible {
    fn moved_down(self, _: usize) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(bytes: &[u8]) -> Vec<u8> {
        let value = SecretValue::copy_of(b"V{{a.b}}");
        let text = Text::parse(bytes).expect("a template");
        text.render(|_| &value).expect("rendered").expose().to_vec()
    }

    #[test]
    fn bytes_that_are_not_text_stay_as_they_are() {
        assert_eq!(rendered(b"\xff{{a.b}}\xfe\xfd{{c.d}}x"), b"\xffV{{a.b}}\xfe\xfdV{{a.b}}x");
        assert_eq!(rendered(b"\xff plain }} \n"), b"\xff plain }} \n");
    }

    #[test]
    fn a_malformed_place_is_counted_over_the_whole() {
        assert_eq!(Text::parse(b"a\n\xffb\n{{oops").expect_err("malformed").line, 3);
    }
}
