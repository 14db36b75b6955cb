//! Lists that Salla does not let be read to their end.

use chrono::{DateTime, NaiveDate, Utc};

use crate::{
    domain::Scope,
    reconcile::ports::{Listed, PageRequest},
    salla::{resources::api_resource::ApiResource, wire::date},
};

/// Salla lets no list be read beyond this row.
const ROWS_THAT_CAN_BE_READ: u64 = 10_000;

/// Room for what comes in while a list is read.
const ROOM_TO_GROW: u64 = 1_000;

/// No order is older than Salla.
const FIRST_YEAR: i32 = 2016;

/// The first and the last day of a list that is too long, as far as its first page shows them.
pub(in crate::salla) fn too_long<R: ApiResource>(
    request: &PageRequest<'_>,
    total: Option<u64>,
    rows: &[Listed<R>],
    now: DateTime<Utc>,
) -> Option<(NaiveDate, NaiveDate)> {
    let Scope::Created { from, to } = request.scope else {
        return None;
    };
    let one_day = from.is_some() && from == to;
    let limit = if one_day { ROWS_THAT_CAN_BE_READ } else { ROWS_THAT_CAN_BE_READ - ROOM_TO_GROW };
    if request.number > 1 || total? <= limit {
        return None;
    }
    let created = |listed: &Listed<R>| listed.key.created_at;
    // The first row of a list without a requested order proves nothing.
    let ascending = R::LIST.oldest_first.is_some() && rows.first().and_then(created) <= rows.last().and_then(created);
    let oldest = rows.first().and_then(created).filter(|_| ascending).map(date::day_of);
    Some((oldest.or(NaiveDate::from_yo_opt(FIRST_YEAR, 1))?, date::day_of(now)))
}
