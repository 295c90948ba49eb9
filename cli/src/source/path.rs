//! Where a string stands inside a document: `env.db.password`, `steps[2].env."a.b"`.

use std::fmt;

/// The way from the root to the current node, while a document is read in order.
#[derive(Default)]
pub(super) struct Path {
    frames: Vec<Frame>,
}

enum Frame {
    /// A mapping; the key whose value comes next, once it was read.
    Map(Option<String>),
    /// A list; the index of the current item.
    List(usize),
}

impl Path {
    pub(super) fn enter_map(&mut self) {
        self.frames.push(Frame::Map(None));
    }

    pub(super) fn enter_list(&mut self) {
        self.frames.push(Frame::List(0));
    }

    pub(super) fn leave(&mut self) {
        self.frames.pop();
    }

    /// Tells whether the next scalar is a key.
    pub(super) fn wants_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Map(None)))
    }

    pub(super) fn key(&mut self, key: String) {
        if let Some(Frame::Map(slot)) = self.frames.last_mut() {
            *slot = Some(key);
        }
    }

    /// The current value is complete: the next one is another key's or the next item.
    pub(super) fn value_done(&mut self) {
        match self.frames.last_mut() {
            Some(Frame::Map(key)) => *key = None,
            Some(Frame::List(index)) => *index += 1,
            None => {}
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for frame in &self.frames {
            match frame {
                Frame::Map(Some(key)) => {
                    if !first {
                        formatter.write_str(".")?;
                    }
                    let plain = !key.is_empty()
                        && key.chars().all(|char| !char.is_whitespace() && !matches!(char, '.' | '[' | ']' | '"'));
                    if plain { formatter.write_str(key)? } else { write!(formatter, "{key:?}")? }
                }
                Frame::Map(None) => {}
                Frame::List(index) => write!(formatter, "[{index}]")?,
            }
            first = false;
        }
        Ok(())
    }
}
