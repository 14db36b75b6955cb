//! A hash of the content of a record. It distinguishes two versions with the same time stamp.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use super::{UnknownValue, canonical::canonical};

/// Stands before the digits. The number rises in two cases:
///
/// - The same JSON would get another hash. Then rows with an older prefix are compared by content,
///   and do not count as changed.
/// - A column is derived in another way. Otherwise a row with the same hash would not be written
///   again.
const PREFIX: &str = "2:";

/// The first 128 bits of the SHA-256 of a JSON document in canonical form: keys sorted, numbers
/// normalised, volatile fields left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 16]);

impl ContentHash {
    /// What the text of every content hash of the present version begins with.
    #[must_use]
    pub fn prefix() -> &'static str {
        PREFIX
    }

    /// Its first 64 bits.
    #[must_use]
    pub fn short(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().unwrap_or_default())
    }

    /// Hashes the JSON text of a record.
    ///
    /// # Errors
    /// When `json` is not JSON.
    pub fn of_json(json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::take(Sha256::digest(canonical(json)?).as_slice()))
    }
}

impl ContentHash {
    /// Hashes a text as it stands.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::take(Sha256::digest(text).as_slice())
    }

    fn take(digest: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }
}

/// A hash of a content hash and of the text that it was made of.
///
/// If the same text comes again, its canonical form need not be made again. If only the content hash
/// of a row was replaced, the hash no longer matches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadHash([u8; 16]);

impl PayloadHash {
    /// Of a text, and of what it hashes to.
    #[must_use]
    pub fn of(content_hash: ContentHash, text: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(content_hash.0);
        hasher.update(text);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize()[..16]);
        Self(bytes)
    }

    /// As it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for PayloadHash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = UnknownValue;

    /// Reads a content hash of the present version; one of another version is an error.
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        let unknown = || UnknownValue::new("content hash", text);
        let hex = text.strip_prefix(PREFIX).filter(|hex| hex.len() == 32 && hex.is_ascii()).ok_or_else(unknown)?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| unknown())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| unknown())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> ContentHash {
        ContentHash::of_json(json).unwrap()
    }

    #[test]
    fn key_order_space_and_the_spelling_of_numbers_do_not_count() {
        assert_eq!(of(r#"{"a":1e-2,"b":"x"}"#), of(r#"{ "b" : "x", "a" : 0.010 }"#));
    }

    #[test]
    fn numbers_of_any_size_are_one_in_every_spelling() {
        for spellings in [
            ["0", "-0.0", "-0e32", "0E-99999999999999999999"],
            ["-12.5", "-0.0125e3", "-1250E-2", "-12.50"],
            ["1e30", "1000000000000000000000000000000", "0.1E+31", "100e28"],
            ["1e-25", "100000e-30", "0.00000000000000000000000010", "0.1e-24"],
        ] {
            for spelling in spellings {
                assert_eq!(of(spelling), of(spellings[0]), "{spelling}");
            }
        }
        assert_ne!(of("1.23456789012345678901234567890e0"), of("1.23456789012345678901234567891e0"));
        assert_ne!(of("1e99999999999999999999"), of("1e99999999999999999998"));
    }

    #[test]
    fn volatile_fields_do_not_count_at_any_depth() {
        assert_eq!(of(r#"{"a":{"pending_payment_ends_at":5}}"#), of(r#"{"a":{"pending_payment_ends_at":4}}"#));
    }

    #[test]
    fn the_stored_hash_is_pinned() {
        let json =
            r#"{"none":null,"name":"\u0642ميص","id":7,"draft":false,"read":true,"b":{},"amounts":[9.50,-1.2E+3,0.0]}"#;
        assert_eq!(
            of(json).to_string(),
            "2:2a650100def221a4cfe779bbb440fdbc",
            "what hashes otherwise has another prefix"
        );
    }

    #[test]
    fn other_content_is_a_difference() {
        assert_ne!(of(r#"{"a":"1"}"#), of(r#"{"a":1}"#));
        assert_ne!(of(r#"{"a":[]}"#), of(r#"{"a":{}}"#));
        assert_ne!(of(r#"{"a":12345678901234.56}"#), of(r#"{"a":12345678901234.561}"#));
    }

    #[test]
    fn reads_what_it_wrote_and_nothing_of_another_version() {
        let content_hash = of(r#"{"a":1}"#);
        assert_eq!(content_hash.to_string().parse(), Ok(content_hash));
        assert!(content_hash.to_string().replace("2:", "1:").parse::<ContentHash>().is_err());
    }
}
