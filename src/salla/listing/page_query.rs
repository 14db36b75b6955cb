//! How a page of a list is asked for.

use chrono::{Days, SecondsFormat};

use crate::{domain::Scope, reconcile::ports::PageRequest, salla::resources::api_resource::Capabilities};

/// The parameters that ask for a page of `page_size` records.
pub fn page_query(request: &PageRequest<'_>, list: &Capabilities, page_size: u32) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    let order = |usual| if request.by_id { list.by_id.or(usual) } else { usual };
    match request.scope {
        Scope::Changed { since } => {
            let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
            query.extend(list.changed_since.map(|name| (name, since)));
            query.extend(order(list.last_change_first).map(|(name, value)| (name, value.to_owned())));
        }
        Scope::Created { from, to } => {
            // Whether the days at the ends count, and in which zone, is not documented: a day more on each side.
            let from = from.and_then(|day| day.checked_sub_days(Days::new(1)));
            let to = to.and_then(|day| day.checked_add_days(Days::new(1)));
            let days = list.created_days.into_iter().flatten().zip([from, to]);
            query.extend(order(list.oldest_first).map(|(name, value)| (name, value.to_owned())));
            query.extend(days.filter_map(|(name, day)| Some((name, day?.to_string()))));
        }
        Scope::SortedByChange => query.extend(list.last_change_first.map(|(name, value)| (name, value.to_owned()))),
    }
    if list.paged {
        query.extend([("page", request.number.to_string()), ("per_page", page_size.to_string())]);
    }
    query
}
