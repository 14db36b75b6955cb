//! Instants as they are read from the database. PostgreSQL stores some that no program can compute with (`infinity`, the
//! year 290000), on which the driver panics, and SQLite stores any text. A constraint keeps them out of our own tables;
//! where one stands all the same, it must cost nothing but itself.

use chrono::{DateTime, Datelike, Utc};
use sea_orm::{
    ColIdx, DbErr, QueryResult, TryGetError, TryGetable, Value,
    sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr},
    sqlx::{Row, ValueRef, postgres::PgRow},
};

/// An instant of the years 1 to 9999. Anything else in a column reads as NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub DateTime<Utc>);

/// PostgreSQL's epoch (2000-01-01), in microseconds since the Unix epoch.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Stamp {
    fn of(instant: DateTime<Utc>) -> Option<Self> {
        (1..=9999).contains(&instant.year()).then_some(Self(instant))
    }
}

/// The instant in a column; `None` also for a value that cannot be read.
pub fn instant(row: &QueryResult, column: &str) -> Option<DateTime<Utc>> {
    row.try_get::<Option<Stamp>>("", column).ok().flatten().map(|Stamp(instant)| instant)
}

/// A value of a column that other programs also write; `None` also for a value that cannot be read.
pub fn lenient<T: TryGetable>(row: &QueryResult, column: &str) -> Option<T> {
    row.try_get::<Option<T>>("", column).ok().flatten()
}

/// The instant of a required column; the Unix epoch if the value cannot be read.
pub fn or_epoch(stamp: Option<Stamp>) -> DateTime<Utc> {
    stamp.map_or(DateTime::UNIX_EPOCH, |Stamp(instant)| instant)
}

fn of_postgres<I: ColIdx>(row: &PgRow, index: I) -> Result<Option<DateTime<Utc>>, TryGetError> {
    let failed = |error: sea_orm::sqlx::Error| TryGetError::DbErr(DbErr::Type(error.to_string()));
    let raw = row.try_get_raw(index.as_sqlx_postgres_index()).map_err(failed)?;
    if raw.is_null() {
        return Ok(None);
    }
    // Prepared statements answer in the binary format: microseconds since the year 2000.
    let bytes = raw.as_bytes().map_err(|error| TryGetError::DbErr(DbErr::Type(error.to_string())))?;
    let micros = bytes.try_into().ok().map(i64::from_be_bytes);
    Ok(micros.and_then(|micros| micros.checked_add(POSTGRES_EPOCH_MICROS)).and_then(DateTime::from_timestamp_micros))
}

impl TryGetable for Stamp {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        let instant = match row.try_as_pg_row() {
            Some(row) => of_postgres(row, index)?,
            None => Option::<DateTime<Utc>>::try_get_by(row, index).ok().flatten(),
        };
        instant.and_then(Self::of).ok_or_else(|| TryGetError::Null(format!("{index:?}")))
    }
}

impl From<Stamp> for Value {
    fn from(Stamp(instant): Stamp) -> Self {
        instant.into()
    }
}

impl ValueType for Stamp {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <DateTime<Utc> as ValueType>::try_from(value).ok().and_then(Self::of).ok_or(ValueTypeErr)
    }

    fn type_name() -> String {
        "Stamp".to_owned()
    }

    fn array_type() -> ArrayType {
        <DateTime<Utc> as ValueType>::array_type()
    }

    fn column_type() -> ColumnType {
        <DateTime<Utc> as ValueType>::column_type()
    }
}

impl Nullable for Stamp {
    fn null() -> Value {
        <DateTime<Utc> as Nullable>::null()
    }
}
