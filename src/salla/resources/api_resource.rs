//! The API of each kind of record: paths, parameters, and the reader of its rows.

use bytestring::ByteString;
use chrono::{DateTime, Utc};

use super::{
    privacy::{PersonalFields, Privacy},
    transform::FieldError,
};
use crate::domain::{OrderItem, Record, Unreadable};

/// A kind of record that Salla has a list of.
pub trait ApiResource: Record + Sized {
    /// What an app needs to be allowed to read them.
    const SCOPE: &'static str;

    /// Its list; a record that has an address is at its id below it.
    const PATH: &'static str;

    /// The requests that this list supports.
    const LIST: Capabilities;

    /// Salla counts what is asked of them by the address that it comes from, all merchants together.
    const COUNTED_BY_ADDRESS: bool = false;

    /// Where it has personal data; `None`: nowhere.
    const PERSONAL_FIELDS: Option<PersonalFields> = None;

    /// The items of a record, if they have a separate address. It contains the path, the parameter
    /// that names the record, and the reader of an item.
    const ITEMS: Option<Items> = None;

    /// The address of a single record; `None`: it has no address, and is searched in the list.
    const SINGLE: Option<&'static [(&'static str, &'static str)]>;

    /// Transforms one row of the list, or one record's details.
    ///
    /// # Errors
    /// When its id or its time stamp is missing, or a field that is there cannot be read.
    fn transform(row: &ByteString) -> Result<Self, Unreadable>;

    /// A row's id, and when it says that the record was created: as much as a summary needs.
    fn place(row: &str) -> Option<(i64, Option<DateTime<Utc>>)>;

    /// When it was created, if it says so.
    fn created_at(&self) -> Option<DateTime<Utc>>;
}

/// The address of order items, its parameter, and the reader of an item.
pub type Items = (&'static str, &'static str, fn(&str) -> Result<OrderItem, FieldError>);

/// The requests that a list supports, by the names of the parameters. They decide how a merchant is listed, and what
/// the listing guarantees.
#[derive(Debug, Clone, Copy)]
pub struct Capabilities {
    /// Only what changed at or after an instant. The specified filter; Salla's public documentation knows none.
    pub changed_since: Option<&'static str>,
    /// The list can be limited to days of creation. Without it, a list is read in one piece.
    pub created_days: Option<[&'static str; 2]>,
    /// The oldest first: its name and value. Without it a list is read over and over until two readings agree.
    pub oldest_first: Option<(&'static str, &'static str)>,
    /// In the order of the ids: its name and value.
    pub by_id: Option<(&'static str, &'static str)>,
    /// The last change first: its name and value.
    pub last_change_first: Option<(&'static str, &'static str)>,
    /// Whether it comes in pages. Otherwise all of it is one.
    pub paged: bool,
    /// Whether the rows of a list that is not filtered by change may be summaries, which lack `updated_at`.
    pub summaries: bool,
}

/// The settings of reading: which data are read, and how much of them.
#[derive(Debug)]
pub struct ReadOptions {
    /// Rows a page.
    pub page_size: u32,
    /// The data of customers that are kept.
    pub privacy: Privacy,
    /// Orders with their items.
    pub order_items: bool,
}
