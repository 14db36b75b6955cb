//! The heart: what Salla says, against what we hold.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Columns, ContentHash, PayloadHash, Record, Unreadable};

/// A record whose time stamp is later than Salla's clock by more than this is set aside.
pub const STAMP_TOLERANCE: TimeDelta = TimeDelta::minutes(10);

/// A stored time stamp that is later than Salla's clock by more than this does not win. The clocks of other writers may
/// be an hour ahead; local time that was stored as UTC is three hours ahead in Riyadh.
pub const STORED_STAMP_TOLERANCE: TimeDelta = TimeDelta::minutes(90);

/// What the platform's database holds of a record.
#[derive(Debug, Clone)]
pub struct StoredRecord<R: Record> {
    /// The version of the stored record; `None` if another writer omitted it.
    pub updated_at: Option<DateTime<Utc>>,
    /// The content hash of the stored record; `None` if it could not be hashed.
    pub content_hash: Option<ContentHash>,
    /// Of the text that it was written from, and of `content_hash`; `None` when another writer wrote it.
    pub payload_hash: Option<PayloadHash>,
    /// Marked as gone on Salla's side.
    pub deleted: bool,
    /// The columns beside the payload.
    pub columns: R::Columns,
    /// The version of its items, for a kind with items.
    pub items_version: Option<DateTime<Utc>>,
    /// The columns that can be compared, if our own copy of a record in a table of the platform has another version or is missing.
    /// `None`: all columns, and the payload.
    pub known: Option<Vec<&'static str>>,
}

impl<R: Record> StoredRecord<R> {
    /// What all of it hashes to; `None` when the content could not be hashed.
    #[must_use]
    pub fn state(&self) -> Option<ContentHash> {
        Some(state::<R>(self.updated_at, self.content_hash?, &self.columns))
    }

    /// Whether its payload can be compared.
    fn has_content(&self) -> bool {
        self.known.as_ref().is_none_or(|known| known.contains(&"payload"))
    }

    /// Whether it was written from this very text.
    #[must_use]
    pub fn is_from(&self, payload: &str) -> bool {
        self.payload_hash.is_some_and(|payload_hash| {
            self.content_hash.map(|print| PayloadHash::of(print, payload)) == Some(payload_hash)
        })
    }

    /// What a copy of `record` hashes to.
    #[must_use]
    pub fn state_of(record: &R) -> ContentHash {
        state::<R>(record.updated_at(), record.content_hash(), record.columns())
    }
}

fn state<R: Record>(updated_at: Option<DateTime<Utc>>, content: ContentHash, columns: &R::Columns) -> ContentHash {
    let at = updated_at.map(|at| at.timestamp_micros());
    ContentHash::of_text(&format!("{at:?} {content} {}", columns.canonical()))
}

/// The decision about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// We do not hold it.
    Create,
    /// We hold an older version, or another content under the same time stamp.
    Update {
        /// Which columns differ, and `payload` when the raw JSON does.
        fields: Vec<&'static str>,
    },
    /// We hold it as gone, and as it is or newer: it is there all the same.
    Restore,
    /// We hold a newer version, with another content.
    NewerLocally,
    /// We hold it, as new or newer, with the same content.
    Unchanged,
    /// A table of the platform holds it, as far as it can be compared. Our own copy is missing, or has another version.
    Adopt,
}

impl Decision {
    /// Whether the stored record needs no write. [`Decision::Adopt`] writes our own copy only.
    #[must_use]
    pub fn leaves_it(&self) -> bool {
        matches!(self, Self::NewerLocally | Self::Unchanged | Self::Adopt)
    }
}

/// Decides about one listed record.
///
/// Newer wins; where the age is equal, Salla's content wins. A stored version that is later than `latest`, Salla's clock with
/// [`STORED_STAMP_TOLERANCE`], does not win.
///
/// # Errors
/// When the payload has to be hashed and cannot be.
pub fn assess<R: Record>(
    remote: &R,
    stored: Option<&StoredRecord<R>>,
    latest: Option<DateTime<Utc>>,
) -> Result<Decision, Unreadable> {
    let Some(stored) = stored else {
        remote.hash()?;
        return Ok(Decision::Create);
    };
    let theirs = remote.updated_at();
    let ours = stored.updated_at.filter(|at| latest.is_none_or(|latest| *at <= latest));
    let older = theirs.is_some() && ours < theirs;
    let same_age = theirs.is_none() || ours == theirs;
    let other_content = (older || same_age)
        && stored.has_content()
        && !stored.is_from(remote.payload())
        && stored.content_hash != Some(remote.hash()?);
    let mut fields = remote.columns().differing(&stored.columns);
    if let Some(known) = &stored.known {
        fields.retain(|field| known.contains(field));
    }
    if older || same_age && (other_content || !fields.is_empty()) {
        if other_content {
            fields.push("payload");
        }
        if stored.deleted {
            // Not the name of the column, which would say that the record is deleted in Salla.
            fields.push("restored");
        }
        Ok(Decision::Update { fields })
    } else if stored.deleted {
        Ok(Decision::Restore)
    } else if !same_age && (!fields.is_empty() || has_other_content(remote, stored)) {
        Ok(Decision::NewerLocally)
    } else if stored.known.is_some() && same_age {
        remote.hash()?;
        Ok(Decision::Adopt)
    } else {
        Ok(Decision::Unchanged)
    }
}

/// Whether a version that is older than ours has another content, as far as it can be read.
fn has_other_content<R: Record>(remote: &R, stored: &StoredRecord<R>) -> bool {
    stored.has_content()
        && !stored.is_from(remote.payload())
        && remote.hash().is_ok_and(|hash| stored.content_hash != Some(hash))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Order, OrderColumns};

    fn columns(status: &str) -> OrderColumns {
        OrderColumns {
            reference_id: Some(7),
            status: Some(status.to_owned()),
            currency: Some("SAR".to_owned()),
            total_amount: None,
            salla_created_at: None,
        }
    }

    fn order(at: i64, status: &str) -> Order {
        let payload = format!(r#"{{"status":"{status}"}}"#);
        Order::new(1, Utc.timestamp_opt(at, 0).single(), false, columns(status), payload)
    }

    fn judge(remote: &Order, stored: Option<&StoredRecord<Order>>) -> Decision {
        assess(remote, stored, None).unwrap()
    }

    fn stored(order: &Order) -> StoredRecord<Order> {
        StoredRecord {
            updated_at: order.updated_at,
            content_hash: Some(order.content_hash()),
            payload_hash: None,
            deleted: false,
            columns: order.columns.clone(),
            items_version: None,
            known: None,
        }
    }

    #[test]
    fn a_missing_record_is_created() {
        assert_eq!(judge(&order(1, "a"), None), Decision::Create);
    }

    #[test]
    fn a_newer_record_updates_and_names_the_fields() {
        assert_eq!(
            judge(&order(2, "b"), Some(&stored(&order(1, "a")))),
            Decision::Update { fields: vec!["status", "payload"] }
        );
    }

    /// The text that a row was written from, and its content hash, say that nothing has changed; neither does alone.
    #[test]
    fn a_known_text_is_not_hashed_again() {
        // It cannot be: any reader would find it unreadable.
        let mut theirs = order(1, "a");
        theirs.payload = ("[".repeat(1000) + &"]".repeat(1000)).into();
        assert!(assess(&theirs, None, None).is_err() && assess(&theirs, Some(&stored(&order(1, "a"))), None).is_err());
        let print = order(1, "a").content_hash();
        let mut ours = stored(&order(1, "a"));
        ours.payload_hash = Some(PayloadHash::of(print, &theirs.payload));
        assert_eq!(judge(&theirs, Some(&ours)), Decision::Unchanged);
        ours.content_hash = Some(order(1, "b").content_hash());
        assert!(
            assess(&theirs, Some(&ours), None).is_err(),
            "another writer replaced the content hash and the content"
        );
        ours.content_hash = None;
        assert!(assess(&theirs, Some(&ours), None).is_err());
        ours.updated_at = order(2, "a").updated_at;
        assert_eq!(judge(&theirs, Some(&ours)), Decision::Unchanged, "what is older need not be readable");
    }

    #[test]
    fn a_newer_stored_record_stays() {
        assert_eq!(judge(&order(1, "a"), Some(&stored(&order(2, "b")))), Decision::NewerLocally);
        assert_eq!(judge(&order(1, "a"), Some(&stored(&order(2, "a")))), Decision::Unchanged);
    }

    #[test]
    fn a_stored_stamp_ahead_of_the_clock_does_not_win() {
        let ours = stored(&order(5_000, "b"));
        let at = |latest| assess(&order(1, "a"), Some(&ours), Utc.timestamp_opt(latest, 0).single()).unwrap();
        assert_eq!(at(4_999), Decision::Update { fields: vec!["status", "payload"] });
        assert_eq!(at(5_000), Decision::NewerLocally);
        let right = assess(&order(1, "b"), Some(&ours), Utc.timestamp_opt(1, 0).single()).unwrap();
        assert_eq!(right, Decision::Update { fields: vec![] }, "its stamp is corrected");
    }

    #[test]
    fn a_deleted_row_that_salla_lists_again_comes_back() {
        let mut ours = stored(&order(1, "a"));
        ours.deleted = true;
        assert_eq!(judge(&order(1, "a"), Some(&ours)), Decision::Restore);
        let fields = vec!["status", "payload", "restored"];
        assert_eq!(judge(&order(2, "b"), Some(&ours)), Decision::Update { fields });
    }

    #[test]
    fn a_newer_row_that_was_marked_as_gone_keeps_its_content() {
        let mut ours = stored(&order(2, "b"));
        ours.deleted = true;
        assert_eq!(judge(&order(1, "a"), Some(&ours)), Decision::Restore);
    }

    /// A kind without a time of change, whatever another writer stored.
    #[test]
    fn without_a_time_the_content_decides() {
        let mut theirs = order(1, "b");
        theirs.updated_at = None;
        for at in [0, 5] {
            let mut ours = stored(&order(at, "a"));
            assert_eq!(judge(&theirs, Some(&ours)), Decision::Update { fields: vec!["status", "payload"] });
            ours = stored(&order(at, "b"));
            assert_eq!(judge(&theirs, Some(&ours)), Decision::Unchanged);
            ours.deleted = true;
            assert_eq!(judge(&theirs, Some(&ours)), Decision::Restore);
        }
    }

    proptest! {
        #[test]
        fn an_assessed_record_is_unchanged_afterwards(remote_at in 0i64..4, local_at in proptest::option::of(0i64..4), remote in "[ab]", local in "[ab]") {
            let theirs = order(remote_at, &remote);
            let mut ours = local_at.map(|at| stored(&order(at, &local)));
            if !judge(&theirs, ours.as_ref()).leaves_it() {
                ours = Some(stored(&theirs));
            }
            prop_assert!(judge(&theirs, ours.as_ref()).leaves_it());
            prop_assert!(ours.unwrap().updated_at >= theirs.updated_at);
        }
    }
}
