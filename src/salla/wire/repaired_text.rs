//! The text of a body, of which a part may not be UTF-8.
//!
//! Salla cuts texts by bytes, and some shops write Windows-1256: one name must not cost the page that it stands on. What is
//! replaced here is never stored: the row that holds it is set aside.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The body without a byte order mark.
pub fn without_mark(body: &Bytes) -> Bytes {
    if body.starts_with(BYTE_ORDER_MARK) { body.slice(BYTE_ORDER_MARK.len()..) } else { body.clone() }
}

/// A body whose invalid bytes, and control characters within JSON strings, are replaced.
#[derive(Debug)]
pub struct Repaired {
    pub text: ByteString,
    /// Where in `text` something was replaced, in ascending order.
    replaced: Vec<usize>,
}

impl Repaired {
    /// Replaces bytes that are not UTF-8. `None`: nothing had to be replaced.
    pub fn of(body: &[u8]) -> Option<Self> {
        let (mut text, mut replaced, mut state) = (String::with_capacity(body.len()), Vec::new(), State::Outside);
        for chunk in body.utf8_chunks() {
            for c in chunk.valid().chars() {
                if state != State::Outside && c.is_ascii_control() {
                    replaced.push(text.len());
                    text.push(' ');
                } else {
                    text.push(c);
                }
                state = state.after(c);
            }
            if !chunk.invalid().is_empty() {
                replaced.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        (!replaced.is_empty()).then(|| Self { text: text.into(), replaced })
    }

    /// Whether something was replaced within a part of the text.
    pub fn is_damaged(&self, part: &str) -> bool {
        self.count_in(part) > 0
    }

    /// Whether nothing was replaced but within these parts.
    pub fn is_damaged_only_in<'a>(&self, parts: impl Iterator<Item = &'a str>) -> bool {
        parts.map(|part| self.count_in(part)).sum::<usize>() == self.replaced.len()
    }

    fn count_in(&self, part: &str) -> usize {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        let Range { start, end } = start..start + part.len();
        self.replaced.partition_point(|at| *at < end) - self.replaced.partition_point(|at| *at < start)
    }
}

/// Where in a JSON text a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    InString,
    Escaped,
}

impl State {
    fn after(self, c: char) -> Self {
        match (self, c) {
            (Self::Outside, '"') | (Self::Escaped, _) => Self::InString,
            (Self::InString, '"') => Self::Outside,
            (Self::InString, '\\') => Self::Escaped,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_text_is_not_copied() {
        assert!(Repaired::of("{\"a\":\"قميص\"}\n".as_bytes()).is_none());
        assert!(Repaired::of(b"{\n\t\"a\": \"\\n\"\r\n}").is_none(), "white space between values is allowed");
    }

    #[test]
    fn the_place_of_damage_is_reported() {
        for damaged in
            [&b"[\"a\xd9\",\"b\"]"[..], b"[\"a\xe3\xc7\",\"b\"]", b"[\"a\nb\",\"b\"]", b"[\"a\\\"\x00b\",\"b\"]"]
        {
            let repaired = Repaired::of(damaged).unwrap();
            let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(&repaired.text).unwrap();
            assert!(repaired.is_damaged(parts[0].get()) && !repaired.is_damaged(parts[1].get()), "{}", repaired.text);
            assert!(repaired.is_damaged_only_in(parts.iter().map(|part| part.get())));
            assert!(!repaired.is_damaged_only_in([parts[1].get()].into_iter()));
        }
    }
}
