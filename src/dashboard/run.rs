//! The page of a run: window, guarantee, totals and discrepancies.

use axum::{
    extract::{Extension, Path, Query, State},
    response::IntoResponse,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    DashboardState, Page, PageError, VisitorExtension, actions,
    format::{self, Clock, instant, number, span},
    layout::{self, AutoRefresh},
};
use crate::{
    domain::{Discrepancy, Found, Listing, Outcome, Resource, Run, RunId, RunStatus, plain},
    reconcile::ports::{MerchantRegistry, RunStore},
};

const A_PAGE: usize = 100;
const REFRESH: u32 = 5;

/// Selects a page of discrepancies.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    #[serde(default)]
    skip: u32,
}

/// The page.
pub async fn show<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Path(id): Path<RunId>,
    Query(query): Query<PageQuery>,
) -> Page {
    let store = &dashboard.api.store;
    let run = store.run(id).await?.ok_or_else(|| PageError::not_found("no run has this id"))?;
    let skip = u64::from(query.skip);
    let (mut found, merchant, now) = tokio::try_join!(
        store.discrepancies(id, skip, A_PAGE as u64 + 1),
        dashboard.onboarding.register.merchant(run.merchant_id),
        store.now()
    )?;
    let clock = dashboard.clock(now);
    let more = found.len() > A_PAGE;
    found.truncate(A_PAGE);
    let auto_refresh = if run.status.is_end() { AutoRefresh::Never } else { AutoRefresh::In(REFRESH) };
    let content = html! {
        p { @if let Some(merchant) = &merchant { (format::merchant(merchant)) } @else { "Merchant " (run.merchant_id) ", no longer registered" } }
        h1 { "Run " (format::status(run.status)) @if run.dry_run { " " span.chip { "dry run" } } }
        p { code { (run.run_id) } }
        (problem(&run, clock))
        @if visitor.operates {
            div.buttons {
                @if run.status.is_end() { (actions::button(&visitor, &format!("{}/rerun", format::merchant_address(run.merchant_id)), "Rerun")) }
                @else { (actions::button(&visitor, &format!("{}/cancel", format::run_address(id)), "Cancel")) }
            }
        }
        section {
            h2 { "Totals" }
            dl.facts {
                div { dt { "fetched" } dd { (number(run.totals.fetched)) } }
                @for outcome in Outcome::ALL {
                    @let newer = if outcome == Outcome::Unchanged { run.totals.newer_locally } else { 0 };
                    @let count = run.totals.of(outcome) - newer;
                    div class=(if count > 0 && matches!(outcome, Outcome::Skipped | Outcome::Failed) { "bad" } else { "" }) { dt { (outcome.as_str()) } dd { (number(count)) } }
                }
                div { dt { "created, backfilled" } dd { (number(run.totals.backfilled.created)) } }
                div { dt { "updated, backfilled" } dd { (number(run.totals.backfilled.updated)) } }
                div { dt { "newer locally" } dd { (number(run.totals.newer_locally)) } }
                div { dt { "requests to Salla" } dd { (number(run.requests)) } }
                div { dt { "duration" } dd { (took(&run, clock)) } }
            }
        }
        section {
            h2 { "Window" }
            dl.facts {
                div { dt { "from" } dd { (format::maybe(run.window.map(|window| window.since), clock, "not known yet")) } }
                div { dt { "to" } dd { (format::maybe(run.window.map(|window| window.until), clock, "not known yet")) } }
                div { dt { "queued" } dd { (instant(run.queued_at, clock)) } }
                div { dt { "trigger" } dd { (run.trigger.as_str()) } }
            }
            (guarantees(&run, clock))
        }
        (discrepancies(&found, &run, skip, more, clock))
    };
    Ok(layout::page("Run", &visitor, auto_refresh, &content).into_response())
}

/// Between a run's begin and its end, or now.
pub fn took(run: &Run, clock: Clock) -> String {
    let began = run.started_at.unwrap_or(run.queued_at);
    let took = (run.finished_at.unwrap_or(clock.now) - began).to_std().unwrap_or_default();
    match (run.started_at, run.finished_at) {
        (None, _) => format!("waiting for {}", span(took)),
        (Some(_), None) => format!("{} so far", span(took)),
        (Some(_), Some(_)) => span(took),
    }
}

fn problem(run: &Run, clock: Clock) -> Markup {
    html! {
        @if let Some(error) = &run.error {
            div.note.bad role="status" { p { strong { (error.kind.as_str()) } } p { (plain(&error.message)) } }
        } @else if let Some(waiting) = &run.waiting {
            div.note.warn role="status" {
                p { strong { "Waiting: " (waiting.reason.as_str()) } }
                p { (plain(&waiting.message)) }
                p { "Next attempt " (instant(waiting.until, clock)) ". Attempts since the last page: " (number(waiting.attempts.into())) "." }
            }
        } @else if run.status == RunStatus::Partial {
            div.note.warn role="status" { p { "Some records were skipped or failed. The list below names them. Later runs try them again." } }
        }
    }
}

/// The work of the run on each kind of record, and the guarantee that follows from it.
fn guarantees(run: &Run, clock: Clock) -> Markup {
    html! {
        @if run.resource_results.is_empty() { p { strong { "Guarantee: " } (guarantee(run.status, None, None)) } }
        @for resource_run in &run.resource_results {
            @let totals = resource_run.totals;
            p {
                strong { (resource_run.resource.as_str()) } " " (format::status(resource_run.status)) " "
                (number(totals.fetched)) " fetched, " (number(totals.created)) " created, " (number(totals.updated)) " updated"
                @if totals.incomplete() { ", " (number(totals.skipped + totals.failed)) " skipped or failed" }
                ". "
                @if let Some(window) = resource_run.window { "From " (instant(window.since, clock)) ". " }
                strong { "Guarantee: " } (guarantee(resource_run.status, resource_run.listing, Some(resource_run.resource)))
            }
            @if let Some(error) = &resource_run.error { div.note.bad { p { strong { (error.kind.as_str()) } } p { (plain(&error.message)) } } }
        }
    }
}

/// The guarantee after a kind of record was read.
fn guarantee(status: RunStatus, listing: Option<Listing>, resource: Option<Resource>) -> &'static str {
    match (status, listing) {
        (RunStatus::Queued | RunStatus::Running, _) => "none yet; the run has not ended.",
        (RunStatus::Failed | RunStatus::Cancelled, _) => {
            "none; the watermark did not move, and the next run covers the window again."
        }
        (_, None) => "none.",
        (_, Some(Listing::Filter)) => "every change in the window was read.",
        (_, Some(Listing::Scan)) if resource == Some(Resource::Orders) => {
            "every change that the list shows was read; other changes are read within the nights of reconcile.detail_check_nights."
        }
        (_, Some(Listing::Sort)) => {
            "every change that set the time of change was read. Other changes that the list shows are read within 7 nights."
        }
        (_, Some(Listing::Rotation)) => {
            "new records and a part of the older ones were read; all records are read within 28 nights."
        }
        (_, Some(Listing::Scan)) => {
            "all records of the merchant were read, as they were at the start of the run or later."
        }
    }
}

/// The columns that differed, with their values before and after where they are known.
fn fields(discrepancy: &Discrepancy) -> Markup {
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "not set".to_owned(), plain);
    html! {
        @if discrepancy.fields.is_empty() { "–" }
        @for (index, field) in discrepancy.fields.iter().enumerate() {
            @if index > 0 { br; }
            code { (field) }
            @if let Some(change) = discrepancy.changes.iter().find(|change| change.field == *field) {
                ": " bdi { (value(&change.before)) } " → " bdi { (value(&change.after)) }
            }
        }
    }
}

fn discrepancies(found: &[Found], run: &Run, skip: u64, more: bool, clock: Clock) -> Markup {
    let address = format::run_address(run.run_id);
    html! {
        section {
            h2 { "Discrepancies" }
            @if found.is_empty() { p { @if skip == 0 { "None." } @else { "No more." } } }
            @else { div.wide { table.cards {
                thead { tr { th { "Record" } th { "Kind" } th { "Fields" } th { "Stored version" } th { "Salla version" } th { "Delay" } th { "Reason" } } }
                tbody { @for one in found { @let discrepancy = &one.discrepancy; tr {
                    td data-label="Record" { (discrepancy.resource.as_str()) " " @if let Some(id) = discrepancy.salla_id { code { (id) } } @else { "without an id" } }
                    td data-label="Kind" { span class=(format!("chip {}", discrepancy.kind.as_str())) { (discrepancy.kind.as_str()) } @if discrepancy.backfill { " backfilled" } }
                    td data-label="Fields" { (fields(discrepancy)) }
                    td data-label="Stored version" { (format::maybe(discrepancy.local_updated_at, clock, "–")) }
                    td data-label="Salla version" { (format::maybe(discrepancy.remote_updated_at, clock, "–")) }
                    td data-label="Delay" { (one.late_seconds.map_or_else(|| "–".to_owned(), |seconds| span(std::time::Duration::from_secs(seconds)))) }
                    td data-label="Reason" { (discrepancy.reason.as_deref().map_or_else(|| "–".to_owned(), plain)) }
                } } }
            } } }
            p {
                @if skip > 0 { a rel="prev" href=(format!("{address}?skip={}", skip.saturating_sub(A_PAGE as u64))) { "Previous" } " " }
                @if more { a rel="next" href=(format!("{address}?skip={}", skip + A_PAGE as u64)) { "Next" } }
            }
        }
    }
}
