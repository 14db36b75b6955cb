//! What Salla offers of each kind of record: where it is, how it can be asked for, and how its rows are read.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::orders;
use crate::domain::{Order, Record, Unreadable};

/// A kind of record that Salla has a list of.
pub trait Offered: Record + Sized {
    /// Its list; each record is at its id below it.
    const PATH: &'static str;

    /// What that list can be asked for.
    const LIST: Capabilities;

    /// What a single record is asked with.
    const SINGLE: &'static [(&'static str, &'static str)];

    /// Transforms one row of the list, or one record's details.
    ///
    /// # Errors
    /// When its id or its time stamp is missing, or a field that is there cannot be read.
    fn transform(row: &RawValue) -> Result<Self, Unreadable>;

    /// A row's id, and when it says that the record was created: as much as a summary needs.
    fn place(row: &RawValue) -> Option<(i64, Option<DateTime<Utc>>)>;

    /// When it was created, if it says so.
    fn created_at(&self) -> Option<DateTime<Utc>>;
}

/// What a list can be asked for, by the names of the parameters.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    /// Only what changed at or after an instant. The specified filter; Salla's public documentation knows none.
    pub changed_since: &'static str,
    /// Only what was created from one day to another.
    pub created_days: [&'static str; 2],
    /// The oldest first: its name and value.
    pub oldest_first: (&'static str, &'static str),
}

impl Offered for Order {
    const PATH: &'static str = "v2/orders";

    const LIST: Capabilities = Capabilities {
        changed_since: "updated_at_min",
        created_days: ["from_date", "to_date"],
        oldest_first: ("sort_by", "created_at-asc"),
    };

    // The full form is deprecated, and what a store answers without `format` is changing to the light one.
    const SINGLE: &'static [(&'static str, &'static str)] = &[("format", "light")];

    fn transform(row: &RawValue) -> Result<Self, Unreadable> {
        orders::transform(row)
    }

    fn place(row: &RawValue) -> Option<(i64, Option<DateTime<Utc>>)> {
        orders::place(row)
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        self.columns.salla_created_at
    }
}
