//! The questions of a probe, each with the requests that answer it.

use chrono::{DateTime, Days, NaiveDate, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use super::{Probe, ProbedRow, Seen};
use crate::{
    domain::{Order, Resources},
    reconcile::ports::{CredentialStore, SourceError, TokenOwner},
    salla::{
        resources::api_resource::ApiResource,
        wire::date::{self, day_of},
    },
};

/// So many rows have their details read, to see whether the list is sorted by time of change.
const DETAILS: usize = 6;

const PAGE_SIZE: usize = 60;

const LIST: &str = Order::PATH;

fn page(more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    [more, &[("page", "1".to_owned()), ("per_page", PAGE_SIZE.to_string())]].concat()
}

fn yes_or_no(is_shown: bool) -> String {
    if is_shown { "shown" } else { "missing" }.to_owned()
}

impl<C: CredentialStore> Probe<'_, C> {
    /// Whose store the token belongs to.
    pub(super) async fn ask_owner(&mut self) -> Result<(), SourceError> {
        let credentials = self.client.auth.credentials(self.merchant).await?;
        self.requests.add_one();
        let (as_expected, found) = match self.client.auth.user_info.owner(&credentials.tokens.access).await {
            Ok(owner) => (Some(owner == self.merchant), format!("merchant {owner}")),
            Err(reason) => (None, format!("Salla does not say it: {reason}")),
        };
        let consequence = "a token of another merchant is refused";
        self.find("owner of the token", as_expected, found, "this merchant", consequence);
        Ok(())
    }

    /// The plain list: its size, its pages, its rows, and its headers.
    pub(super) async fn ask_list(&mut self) -> Result<Seen, SourceError> {
        let unavailable =
            || SourceError::Unavailable { reason: "the probe sent no request".to_owned(), per_row: false };
        let seen = self.ask(LIST, &page(&[])).await?.ok_or_else(unavailable)?;
        self.find(
            "list of orders",
            Some(seen.status == 200),
            format!("status {}", seen.status),
            "status 200",
            "without the list, every run fails",
        );
        let rows = seen.rows.len();
        let is_full = seen.pagination.total.is_none_or(|total| total > rows as u64);
        let is_usual = rows == PAGE_SIZE || !is_full;
        self.find(
            "page size",
            Some(is_usual),
            format!("{rows} rows for per_page={PAGE_SIZE}"),
            "60 rows, unless the list is shorter",
            "smaller pages need more requests; nothing is lost",
        );
        let pagination = seen.pagination;
        self.find(
            "total and totalPages",
            Some(pagination.total.is_some() && pagination.total_pages.is_some()),
            format!(
                "total {}, totalPages {}",
                yes_or_no(pagination.total.is_some()),
                yes_or_no(pagination.total_pages.is_some())
            ),
            "both are shown",
            "without total, a list counts as read after two equal readings",
        );
        self.note_rows_and_headers(&seen);
        Ok(seen)
    }

    /// What the rows and the headers of the plain list show.
    fn note_rows_and_headers(&mut self, seen: &Seen) {
        let has_stamps = seen.rows.iter().any(|row| row.updated_at.is_some());
        self.find(
            "updated_at in rows",
            seen.rows.first().map(|_| true),
            yes_or_no(has_stamps),
            "shown (the specification) or missing (the documentation)",
            "without it, runs read the details of changed orders",
        );
        let zone = seen.rows.iter().find_map(|row| row.json["date"]["timezone"].as_str().map(str::to_owned));
        self.find(
            "time zone of date",
            zone.as_ref().map(|zone| zone == "Asia/Riyadh"),
            zone.unwrap_or_else(|| "not shown".to_owned()),
            "Asia/Riyadh",
            "a date without a zone is read as Asia/Riyadh",
        );
        let limit = seen.header("x-ratelimit-limit").map(str::to_owned);
        self.find(
            "rate limit headers",
            Some(limit.is_some()),
            limit.map_or_else(|| "missing".to_owned(), |limit| format!("{limit} requests per minute")),
            "X-RateLimit-Limit",
            "without it, salla.requests_per_minute holds",
        );
        let clock = seen.served_at.is_some();
        self.find("Date header", Some(clock), yes_or_no(clock), "shown", "without it, the watermark does not move");
    }

    /// Whether the server filters by time of change.
    pub(super) async fn ask_filter(&mut self, plain: &Seen) -> Result<Option<bool>, SourceError> {
        let since = plain.served_at.unwrap_or_else(Utc::now) - TimeDelta::hours(1);
        let query = page(&[("updated_at_min", since.to_rfc3339_opts(SecondsFormat::Secs, true))]);
        let Some(seen) = self.ask(LIST, &query).await? else { return Ok(None) };
        let is_stamped = seen.rows.iter().all(|row| row.updated_at.is_some());
        let older = seen.rows.iter().filter(|row| row.updated_at.is_some_and(|at| at < since)).count();
        let honours =
            seen.status == 200 && is_stamped && older == 0 && (!seen.rows.is_empty() || !plain.rows.is_empty());
        let found = match (seen.status, is_stamped, older) {
            (200, true, 0) => format!("{} rows, none is older", seen.rows.len()),
            (200, true, older) => format!("ignored: {older} of {} rows are older", seen.rows.len()),
            (200, false, _) => format!("{} rows without updated_at", seen.rows.len()),
            (status, ..) => format!("status {status}"),
        };
        self.find(
            "filter updated_at_min",
            Some(honours),
            found,
            "only changed orders",
            "without it, runs sort or scan",
        );
        Ok(Some(honours))
    }

    /// Whether the server sorts: by creation, and by time of change.
    pub(super) async fn ask_order(&mut self, plain: &Seen) -> Result<Option<bool>, SourceError> {
        if let Some(seen) = self.ask(LIST, &page(&[("sort_by", "created_at-asc".to_owned())])).await? {
            let stamps: Vec<_> = seen.rows.iter().filter_map(|row| row.created_at).collect();
            let is_sorted = stamps.is_sorted();
            let differ = stamps.first() != stamps.iter().max() || stamps.first() != stamps.iter().min();
            self.find(
                "sort_by=created_at-asc",
                differ.then_some(is_sorted),
                if is_sorted { "sorted" } else { "not sorted" }.to_owned(),
                "sorted",
                "without it, a scan reads the list two or three times",
            );
        }
        let query = page(&[("sort_by", "updated_at-desc".to_owned())]);
        let Some(seen) = self.ask(LIST, &query).await? else { return Ok(None) };
        let mut stamps: Vec<DateTime<Utc>> = seen.rows.iter().filter_map(|row| row.updated_at).collect();
        if stamps.is_empty() {
            let step = seen.rows.len().div_ceil(DETAILS).max(1);
            for row in seen.rows.iter().step_by(step) {
                let Some(details) = self.ask_details(row).await? else { continue };
                stamps.extend(details.updated_at);
            }
            let shown = !stamps.is_empty();
            self.find(
                "updated_at in details",
                (!seen.rows.is_empty()).then_some(shown),
                yes_or_no(shown),
                "shown",
                "without it, an order cannot be compared, and is skipped",
            );
        }
        let falls = stamps.windows(2).filter(|pair| pair[0] > pair[1]).count();
        let is_sorted = stamps.windows(2).all(|pair| pair[0] >= pair[1] - TimeDelta::minutes(1));
        // An order by creation that looks the same proves nothing.
        let is_same = seen.rows.iter().map(|row| row.id).eq(plain.rows.iter().map(|row| row.id));
        let as_expected = if is_sorted && (falls == 0 || is_same) { None } else { Some(is_sorted) };
        let found = match as_expected {
            Some(true) => format!("sorted in {} samples", stamps.len()),
            Some(false) => "not sorted".to_owned(),
            None if stamps.is_empty() => "cannot be told: no time of change is shown".to_owned(),
            None => "cannot be told from the order of the plain list".to_owned(),
        };
        self.find("sort_by=updated_at-desc", as_expected, found, "sorted", "without it, runs scan the list");
        Ok(as_expected)
    }

    async fn ask_details(&mut self, row: &ProbedRow) -> Result<Option<ProbedRow>, SourceError> {
        let format: Vec<_> =
            Order::SINGLE.into_iter().flatten().map(|&(name, value)| (name, value.to_owned())).collect();
        let seen = self.ask(&format!("{LIST}/{}", row.id), &format).await?;
        Ok(seen.and_then(|seen| ProbedRow::of(&seen.body["data"].to_string())))
    }

    /// Which days `from_date` and `to_date` include.
    pub(super) async fn ask_days(&mut self, plain: &Seen) -> Result<(), SourceError> {
        let dated = plain.rows.iter().filter_map(|row| Some((row.id, day_of(row.created_at?))));
        let dated: Vec<(i64, NaiveDate)> = dated.collect();
        let Some(&(id, day)) = dated.get(dated.len() / 2) else { return Ok(()) };
        let around = |before: u64, after: u64| {
            let from = day.checked_sub_days(Days::new(before)).unwrap_or(day);
            let to = day.checked_add_days(Days::new(after)).unwrap_or(day);
            page(&[("from_date", from.to_string()), ("to_date", to.to_string())])
        };
        let mut found = "the day of an order does not show it".to_owned();
        let mut as_expected = Some(false);
        for (before, after, words) in
            [(0, 0, "both days are included"), (0, 1, "to_date is excluded"), (1, 1, "both days are excluded")]
        {
            let Some(seen) = self.ask(LIST, &around(before, after)).await? else {
                return Ok(());
            };
            let is_outside = |row: &ProbedRow| {
                row.created_at.map(date::day_of).is_some_and(|at| (at - day).num_days().unsigned_abs() > 2)
            };
            if seen.rows.iter().any(is_outside) {
                "the parameters are ignored".clone_into(&mut found);
                break;
            }
            if seen.rows.iter().any(|row| row.id == id) {
                words.clone_into(&mut found);
                as_expected = Some(true);
                break;
            }
            if seen.pagination.total_pages > Some(1) {
                "the order may be on another page".clone_into(&mut found);
                as_expected = None;
                break;
            }
        }
        let consequence = "runs ask for one more day on both sides";
        self.find("from_date and to_date", as_expected, found, "the orders of these days", consequence);
        Ok(())
    }

    /// Whether more than 10,000 rows of a list can be read.
    pub(super) async fn ask_window(&mut self, plain: &Seen) -> Result<(), SourceError> {
        let first_behind = 10_000_usize.div_ceil(PAGE_SIZE) + 1;
        let found = match plain.pagination.total {
            Some(total) if total > 10_000 => {
                let query = [("page", first_behind.to_string()), ("per_page", PAGE_SIZE.to_string())];
                let Some(seen) = self.ask(LIST, &query).await? else { return Ok(()) };
                format!("page {first_behind}: status {}, {} rows", seen.status, seen.rows.len())
            }
            Some(total) => format!("not reached: {total} orders"),
            None => "not known: no total".to_owned(),
        };
        let consequence = "lists above 9,000 rows are divided by days";
        self.find("row 10,001 of a list", None, found, "cannot be read", consequence);
        Ok(())
    }

    /// What an error looks like.
    pub(super) async fn ask_error(&mut self) -> Result<(), SourceError> {
        let Some(seen) = self.ask(&format!("{LIST}/1"), &[]).await? else { return Ok(()) };
        let code = match &seen.body["error"]["code"] {
            Value::Null => "no code".to_owned(),
            code => format!("code {code}"),
        };
        self.find(
            "an order that does not exist",
            Some(seen.is_no_such_record),
            format!("status {}, {code}", seen.status),
            "status 404 or 410, in Salla's envelope",
            "otherwise no order is ever marked as deleted",
        );
        Ok(())
    }

    /// Whether the app may read what is configured.
    pub(super) async fn ask_scopes(&mut self, resources: Resources) -> Result<(), SourceError> {
        // The list of orders was the first question.
        let (mut missing, mut unknown) = (Vec::new(), Vec::new());
        for resource in resources.iter() {
            match self.has_scope(resource).await? {
                Some(true) => {}
                Some(false) => missing.push(resource.as_str()),
                None => unknown.push(resource.as_str()),
            }
        }
        let (as_expected, found) = match (missing.as_slice(), unknown.as_slice()) {
            ([], []) => (Some(true), "every configured resource can be read".to_owned()),
            ([], unknown) => (None, format!("not asked: {}", unknown.join(", "))),
            (missing, _) => (Some(false), format!("missing for {}", missing.join(", "))),
        };
        self.find("scopes", as_expected, found, "the scopes of reconcile.resources", "without it, that part fails");
        Ok(())
    }
}
