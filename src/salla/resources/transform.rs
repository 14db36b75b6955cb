//! From a row of Salla to our record. The code reads every field by hand, from the text of the
//! JSON. So an error names its path, and an amount never passes through a float.

use std::borrow::Cow;

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    domain::{Columns, SallaRecord, Unreadable},
    json_object::object,
    salla::wire::{
        date,
        values::{integer, present, scalar, stated},
    },
};

/// Where the error is, and what it is.
pub type FieldError = (&'static str, &'static str);

/// The error of a row without a time of change, which may be a summary.
pub const MISSING_STAMP: FieldError = ("updated_at", "is missing");

/// The fields of a row that are looked at; all others stay in the payload.
pub trait ApiRow<'a>: Deserialize<'a> {
    /// What they become.
    type Columns: Columns;

    /// Whether Salla says of this kind when one was last changed.
    const DATED: bool = true;

    /// Salla's id.
    fn id(&self) -> Option<&'a RawValue>;

    /// When it was last changed.
    fn updated_at(&self) -> Option<&'a RawValue> {
        None
    }

    /// It is in no list.
    fn is_unlisted(&self) -> bool {
        false
    }

    /// The columns.
    ///
    /// # Errors
    /// When a field that is there cannot be read.
    fn columns(&self) -> Result<Self::Columns, FieldError>;
}

/// Transforms one row of a list, or one record's details.
///
/// # Errors
/// When the id or `updated_at` is missing, or a field that is there cannot be read.
pub fn transform<'a, W: ApiRow<'a>>(row: &'a ByteString) -> Result<SallaRecord<W::Columns>, Unreadable> {
    let whole = |error| Unreadable::skipped(None, "", reason::<W>(&error));
    let wire: W = object(row).map_err(whole)?;
    let id = stated(wire.id()).and_then(integer);
    let error = |(path, reason): FieldError| Unreadable::skipped(id, path, reason);
    let id = id.ok_or_else(|| {
        error(("id", if stated(wire.id()).is_some() { "is not a 64-bit integer" } else { "is missing" }))
    })?;
    let updated_at = instant(wire.updated_at(), "updated_at").map_err(error)?;
    if W::DATED && updated_at.is_none() {
        return Err(error(MISSING_STAMP));
    }
    let columns = wire.columns().map_err(error)?;
    Ok(SallaRecord::new(id, updated_at, wire.is_unlisted(), columns, row.clone()))
}

/// The message of serde. It names positions and types, and may quote a short value.
fn reason<'a, W: ApiRow<'a>>(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Data => format!("is not an object of {} ({place})", W::Columns::RESOURCE),
        _ => format!("is not valid JSON ({place})"),
    }
}

/// A text, or a number as it was spelt.
pub fn text(raw: Option<&RawValue>, path: &'static str) -> Result<Option<String>, FieldError> {
    present(raw).map(|raw| scalar(raw).map(Cow::into_owned).ok_or((path, "is not a text"))).transpose()
}

/// A whole number, sent as one or as a text.
pub fn whole_number(raw: Option<&RawValue>, path: &'static str) -> Result<Option<i64>, FieldError> {
    stated(raw).map(|raw| integer(raw).ok_or((path, "is not a 64-bit integer"))).transpose()
}

/// A date.
pub fn instant(raw: Option<&RawValue>, path: &'static str) -> Result<Option<DateTime<Utc>>, FieldError> {
    dated(raw).map(|raw| date::parse(raw).ok_or((path, "is not a date"))).transpose()
}

/// A day of birth.
pub fn birthday(raw: Option<&RawValue>, path: &'static str) -> Result<Option<DateTime<Utc>>, FieldError> {
    dated(raw).map(|raw| date::birthday(raw).ok_or((path, "is not a date"))).transpose()
}

fn dated(raw: Option<&RawValue>) -> Option<&RawValue> {
    stated(raw).filter(|raw| !date::is_blank(raw))
}

/// Whether.
pub fn flag(raw: Option<&RawValue>, path: &'static str) -> Result<Option<bool>, FieldError> {
    let flag = |raw: &RawValue| match raw.get() {
        "true" | "1" | "\"1\"" => Ok(true),
        "false" | "0" | "\"0\"" => Ok(false),
        _ => Err((path, "is neither true nor false")),
    };
    stated(raw).map(flag).transpose()
}
