//! The common part of every kind of record.

use std::{fmt, sync::OnceLock};

use bytestring::ByteString;
use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;

use super::{ContentHash, FieldChange, Outcome, Resource};

/// A record as Salla has it, transformed into our terms.
pub trait Record: Send + Sync + 'static {
    /// Its kind.
    const RESOURCE: Resource;

    /// The columns that the platform's database keeps beside the raw payload.
    type Columns: Columns;

    /// Salla's id, unique within a merchant and a resource.
    fn id(&self) -> i64;

    /// When Salla last changed it. One-second grain: equal stamps do not prove equal content. `None`: of this kind Salla
    /// does not say, and what is read later counts.
    fn updated_at(&self) -> Option<DateTime<Utc>>;

    /// The JSON text that Salla sent.
    fn payload(&self) -> &str;

    /// Hashes the payload, once.
    ///
    /// # Errors
    /// When it is not JSON after all: a text of half a character, or nested too deeply.
    fn hash(&self) -> Result<ContentHash, Unreadable>;

    /// What `payload` hashes to.
    fn content_hash(&self) -> ContentHash {
        // Without this check, the payload would keep its spelling forever.
        self.hash().unwrap_or_else(|_| ContentHash::of_text(self.payload()))
    }

    /// It exists, and Salla shows it in no list: a draft.
    fn is_unlisted(&self) -> bool;

    /// Its columns.
    fn columns(&self) -> &Self::Columns;
}

/// What the platform's database keeps of one kind of record beside the raw payload.
pub trait Columns: fmt::Debug + Clone + Default + PartialEq + Send + Sync + 'static {
    /// The kind.
    const RESOURCE: Resource;

    /// A text that is equal for equal columns.
    fn canonical(&self) -> String;

    /// The names of the columns in which `self` differs from `other`.
    fn differing(&self, other: &Self) -> Vec<&'static str>;

    /// The values of columns, before and after.
    fn changes(&self, before: &Self) -> Vec<FieldChange>;
}

/// A record of Salla with the columns of its kind.
#[derive(Debug, Clone)]
pub struct SallaRecord<C> {
    /// Salla's id.
    pub id: i64,
    /// When Salla last changed it, of a kind of which it says so.
    pub updated_at: Option<DateTime<Utc>>,
    /// It exists, and Salla shows it in no list.
    pub unlisted: bool,
    /// What an analyst asks for.
    pub columns: C,
    /// The JSON text that Salla sent, or what of it may be kept. As a rule a part of the answer that it came with, all of which
    /// is there as long as a part is.
    pub payload: ByteString,
    /// The hash of `payload`, once a caller has asked for it.
    content_hash: OnceLock<ContentHash>,
}

impl<C> SallaRecord<C> {
    /// A record whose payload is not hashed yet.
    #[must_use]
    pub fn new(
        id: i64,
        updated_at: Option<DateTime<Utc>>,
        unlisted: bool,
        columns: C,
        payload: impl Into<ByteString>,
    ) -> Self {
        Self { id, updated_at, unlisted, columns, payload: payload.into(), content_hash: OnceLock::new() }
    }
}

impl<C: Columns> Record for SallaRecord<C> {
    const RESOURCE: Resource = C::RESOURCE;

    type Columns = C;

    fn id(&self) -> i64 {
        self.id
    }

    fn updated_at(&self) -> Option<DateTime<Utc>> {
        self.updated_at
    }

    fn payload(&self) -> &str {
        &self.payload
    }

    fn hash(&self) -> Result<ContentHash, Unreadable> {
        if let Some(known) = self.content_hash.get() {
            return Ok(*known);
        }
        let hashed = ContentHash::of_json(&self.payload).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            Unreadable::skipped(Some(self.id), "", format!("is not valid JSON ({place})"))
        })?;
        Ok(*self.content_hash.get_or_init(|| hashed))
    }

    fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    fn columns(&self) -> &C {
        &self.columns
    }
}

/// Values of columns in a spelling that does not depend on how they were read.
pub trait Canonical {
    /// That spelling.
    fn canonical(&self) -> String;

    /// The value for people; `None`: the column is not set.
    fn shown(&self) -> Option<String>;
}

/// The value of a column is shown up to this many characters.
const LONGEST_SHOWN: usize = 200;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

macro_rules! canonical_as_they_are {
    ($($value:ty),+) => {
        $(impl Canonical for Option<$value> {
            fn canonical(&self) -> String {
                format!("{self:?}")
            }

            fn shown(&self) -> Option<String> {
                self.as_ref().map(|value| shortened(&value.to_string()))
            }
        })+
    };
}
canonical_as_they_are!(bool, i64, String);

impl Canonical for Option<Decimal> {
    fn canonical(&self) -> String {
        format!("{:?}", self.map(|number| number.normalize()))
    }

    fn shown(&self) -> Option<String> {
        self.map(|number| number.to_string())
    }
}

impl Canonical for Option<DateTime<Utc>> {
    fn canonical(&self) -> String {
        format!("{:?}", self.map(|at| at.timestamp_micros()))
    }

    fn shown(&self) -> Option<String> {
        self.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// The columns of a kind of record. Salla omits most fields at times, so all of them are optional.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident of $kind:ident { $($(#[$column_doc:meta])* $column:ident: $value:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$column_doc])* pub $column: Option<$value>,)+
        }

        impl $crate::domain::record::Columns for $name {
            const RESOURCE: $crate::domain::Resource = $crate::domain::Resource::$kind;

            fn canonical(&self) -> String {
                use $crate::domain::record::Canonical as _;
                [$(self.$column.canonical()),+].join(" ")
            }

            fn differing(&self, other: &Self) -> Vec<&'static str> {
                let differs = [$((stringify!($column), self.$column != other.$column)),+];
                differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
            }

            fn changes(&self, before: &Self) -> Vec<$crate::domain::FieldChange> {
                use $crate::domain::record::Canonical as _;
                let mut changes = Vec::new();
                $(if self.$column != before.$column {
                    let (field, before, after) = (stringify!($column).to_owned(), before.$column.shown(), self.$column.shown());
                    changes.push($crate::domain::FieldChange { field, before, after });
                })+
                changes
            }
        }
    };
}
pub(super) use columns;

/// A record that could not be read. Its neighbours are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// `Skipped`: it came and could not be transformed. `Failed`: Salla's answer fails whenever it holds the record.
    pub outcome: Outcome,
    /// Salla's id, when at least that could be read.
    pub id: Option<i64>,
    /// The path of the problem in the JSON of the record, such as `total.amount`; empty: the record itself.
    pub path: String,
    /// The problem at this path, without the value (it may be personal data).
    pub reason: String,
}

impl Unreadable {
    /// A record that came and could not be transformed.
    #[must_use]
    pub fn skipped(id: Option<i64>, path: &str, reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, id, path: path.to_owned(), reason: reason.into() }
    }

    /// A record of unknown id whose answer fails.
    #[must_use]
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, id: None, path: String::new(), reason: reason.into() }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}
