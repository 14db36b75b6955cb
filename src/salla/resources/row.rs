//! A row of a list, or the details of a record: a complete record, a summary, or unreadable. It does not affect other
//! rows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytestring::ByteString;

use super::{api_resource::ApiResource, transform::MISSING_STAMP};
use crate::{
    domain::{ContentHash, Summary, Unreadable},
    reconcile::ports::{Listed, Row, RowKey},
};

/// Reads a row. `stand_in` identifies a row without an id.
pub fn read<R: ApiResource>(raw: &ByteString, surrogate_key: impl Fn() -> u64) -> Listed<R> {
    guarded(raw, surrogate_key, R::transform)
}

/// A row with more values is not read: each value takes more memory than text.
const MAX_VALUES: usize = 100_000;

/// A row with too many values, as one that cannot be read; `None`: the row has fewer. `stand_in` identifies a row without an
/// id.
pub fn too_large<R: ApiResource>(raw: &str, surrogate_key: impl Fn() -> u64) -> Option<Listed<R>> {
    if memchr::memchr_iter(b',', raw.as_bytes()).count() < MAX_VALUES {
        return None;
    }
    let (id, created_at) = R::place(raw).unzip();
    let key = RowKey {
        id: id.unwrap_or_else(|| negative(surrogate_key())),
        updated_at: None,
        created_at: created_at.flatten(),
    };
    let reason = format!("has more than {MAX_VALUES} values");
    Some(Listed { key, row: Row::Unreadable(Unreadable::skipped(id, "", reason)) })
}

/// An id that Salla does not have.
fn negative(surrogate_key: u64) -> i64 {
    (surrogate_key | 1 << 63).cast_signed()
}

/// The problem of a row in which a part had to be replaced.
pub const NO_TEXT: &str = "holds what is not UTF-8, or control characters";

/// The same row as one that cannot be read.
pub fn set_aside<R: ApiResource>(listed: Listed<R>, path: &str, reason: &str) -> Listed<R> {
    let id = Some(listed.key.id).filter(|id| *id >= 0);
    Listed { row: Row::Unreadable(Unreadable::skipped(id, path, reason)), ..listed }
}

/// A defect of the parser's is the row's trouble, not the run's.
fn guarded<R: ApiResource>(
    raw: &ByteString,
    surrogate_key: impl Fn() -> u64,
    transform: impl Fn(&ByteString) -> Result<R, Unreadable>,
) -> Listed<R> {
    let panicked = |id| Unreadable::skipped(id, "", "cannot be read: the parser panicked");
    let read = catch_unwind(AssertUnwindSafe(|| transform(raw)));
    let key = |id: Option<i64>| RowKey {
        id: id.unwrap_or_else(|| negative(surrogate_key())),
        updated_at: None,
        created_at: None,
    };
    match read {
        Ok(Ok(record)) => Listed {
            key: RowKey { id: record.id(), updated_at: record.updated_at(), created_at: record.created_at() },
            row: Row::Whole(record),
        },
        Ok(Err(bad)) => match summary::<R>(raw, &bad) {
            Some((summary, created_at)) => {
                Listed { key: RowKey { created_at, ..key(Some(summary.id)) }, row: Row::Summary(summary) }
            }
            None => Listed { key: key(bad.id), row: Row::Unreadable(bad) },
        },
        Err(_) => {
            let id = catch_unwind(AssertUnwindSafe(|| R::place(raw).map(|(id, _)| id))).ok().flatten();
            Listed { key: key(id), row: Row::Unreadable(panicked(id)) }
        }
    }
}

/// A row that lacks nothing but `updated_at`.
fn summary<R: ApiResource>(raw: &str, bad: &Unreadable) -> Option<(Summary, Option<chrono::DateTime<chrono::Utc>>)> {
    if !R::LIST.summaries || (bad.path.as_str(), bad.reason.as_str()) != MISSING_STAMP {
        return None;
    }
    let (id, created_at) = R::place(raw)?;
    let content_hash = ContentHash::of_json(raw).ok()?;
    Some((Summary { id, content_hash }, created_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Order;

    fn raw(json: &str) -> ByteString {
        json.into()
    }

    fn read_whole(json: &str) -> Listed<Order> {
        read(&json.into(), || 7)
    }

    #[test]
    fn a_row_that_panics_the_parser_fails_alone() {
        let rows = [raw(r#"{"id":1,"updated_at":"2026-11-24 02:00:00"}"#), raw(r#"{"id":2}"#)];
        let parser = |row: &ByteString| {
            assert!(row.contains("updated_at"), "a defect");
            Order::transform(row)
        };
        let read: Vec<_> = rows.iter().map(|row| guarded(row, || 7, parser)).collect();
        assert!(matches!(&read[0].row, Row::Whole(order) if order.id == 1));
        assert!(matches!(&read[1].row, Row::Unreadable(bad) if bad.id == Some(2) && bad.reason.contains("panicked")));
    }

    #[test]
    fn a_row_with_too_many_values_is_not_read() {
        let row = |values: usize| {
            format!(r#"{{"id":7,"updated_at":"2026-11-24 02:00:00","note":[{}0]}}"#, "0,".repeat(values))
        };
        assert!(too_large::<Order>(&row(90_000), || 9).is_none());
        let large = too_large::<Order>(&row(100_000), || 9).unwrap();
        assert!(large.key.id == 7 && matches!(large.row, Row::Unreadable(bad) if bad.id == Some(7)));
    }

    #[test]
    fn a_row_without_a_stamp_is_a_summary() {
        let listed = read_whole(r#"{"id":"7","date":{"date":"2026-11-24 02:00:00.000000","timezone":"Asia/Riyadh"}}"#);
        assert!(matches!(listed.row, Row::Summary(summary) if summary.id == 7));
        assert_eq!(listed.key.created_at.unwrap().to_rfc3339(), "2026-11-23T23:00:00+00:00");
        assert!(matches!(read_whole(r#"{"id":7,"updated_at":"never"}"#).row, Row::Unreadable(_)));
        assert!(matches!(read_whole(r#"{"reference_id":7}"#).row, Row::Unreadable(_)));
    }

    #[test]
    fn countdowns_are_not_a_difference() {
        let content_hash = |json: &str| match read_whole(json).row {
            Row::Summary(summary) => summary.content_hash,
            other => panic!("{other:?}"),
        };
        let row = r#"{"id":7,"pending_payment_ends_at":172796,"read":false}"#;
        assert_eq!(content_hash(row), content_hash(&row.replace("172796", "9").replace("false", "true")));
        assert_ne!(content_hash(row), content_hash(&row.replace("\"id\":7", "\"id\":7,\"draft\":true")));
    }

    #[test]
    fn a_row_without_an_id_stands_under_a_negative_number() {
        assert_eq!(read_whole("[1]").key.id, i64::MIN + 7);
    }
}
