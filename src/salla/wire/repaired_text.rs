//! The text of a body, of which a part may not be UTF-8.
//!
//! Salla cuts texts by bytes, and some stores write Windows-1256. One damaged name must not cost the page on which it
//! stands. Replaced text is never stored, because the row that holds it is set aside.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body with more replacements is read again as smaller pages: each replacement takes memory.
const MOST_REPLACED: usize = 1 << 16;

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
    /// Replaces bytes that are not UTF-8. `None`: nothing had to be replaced, or more than 65,536 places.
    pub fn of(body: &Bytes) -> Option<Self> {
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
            if replaced.len() > MOST_REPLACED {
                return None;
            }
        }
        if replaced.is_empty() {
            return None;
        }
        let text = ByteString::try_from(Bytes::from_owner(RepairedBody { text, _body: body.clone() })).ok()?;
        Some(Self { text, replaced })
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

/// The repaired text of a body. It keeps the body, and so the room that large answers are given.
struct RepairedBody {
    text: String,
    _body: Bytes,
}

impl AsRef<[u8]> for RepairedBody {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
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
        assert!(Repaired::of(&"{\"a\":\"قميص\"}\n".into()).is_none());
        assert!(
            Repaired::of(&Bytes::from_static(b"{\n\t\"a\": \"\\n\"\r\n}")).is_none(),
            "white space between values is allowed"
        );
    }

    #[test]
    fn the_place_of_damage_is_reported() {
        for damaged in
            [&b"[\"a\xd9\",\"b\"]"[..], b"[\"a\xe3\xc7\",\"b\"]", b"[\"a\nb\",\"b\"]", b"[\"a\\\"\x00b\",\"b\"]"]
        {
            let repaired = Repaired::of(&Bytes::from_static(damaged)).unwrap();
            let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(&repaired.text).unwrap();
            assert!(repaired.is_damaged(parts[0].get()) && !repaired.is_damaged(parts[1].get()), "{}", repaired.text);
            assert!(repaired.is_damaged_only_in(parts.iter().map(|part| part.get())));
            assert!(!repaired.is_damaged_only_in([parts[1].get()].into_iter()));
        }
    }

    #[test]
    fn a_body_of_invalid_bytes_is_not_repaired() {
        let of = |count: usize| Repaired::of(&[&b"[\""[..], &vec![0xd9; count], b"\"]"].concat().into());
        assert_eq!(of(MOST_REPLACED).unwrap().replaced.len(), MOST_REPLACED);
        assert!(of(MOST_REPLACED + 1).is_none());
    }

    #[test]
    fn a_repaired_text_keeps_the_room_of_its_body() {
        let room = std::sync::Arc::new(b"[\"a\xd9\"]".to_vec());
        struct Owner(std::sync::Arc<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let body = Bytes::from_owner(Owner(std::sync::Arc::clone(&room)));
        let text = Repaired::of(&body).unwrap().text;
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&room), 2);
        drop(text);
        assert_eq!(std::sync::Arc::strong_count(&room), 1);
    }
}
