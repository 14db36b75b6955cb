//! Reads the rows of a list, and keeps at most [`MAX_ROWS`].

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Rows beyond this number are discarded unread.
pub(in crate::salla) const MAX_ROWS: usize = 10_001;

/// The rows of a list, as far as they are read.
pub(in crate::salla) struct Rows<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut rows = Vec::new();
                while rows.len() < MAX_ROWS {
                    let Some(row) = list.next_element()? else { return Ok(rows) };
                    rows.push(row);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(rows)
            }
        }
        deserializer.deserialize_seq(List).map(Rows)
    }
}

/// The values of an object whose keys are numbers, in their order: PHP writes a list with gaps in this way.
pub(in crate::salla) struct Numbered<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Numbered<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose keys are numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut rows = Vec::new();
                while map.next_key::<u64>()?.is_some() {
                    let row = map.next_value()?;
                    if rows.len() < MAX_ROWS {
                        rows.push(row);
                    }
                }
                Ok(rows)
            }
        }
        deserializer.deserialize_map(Values).map(Numbered)
    }
}
