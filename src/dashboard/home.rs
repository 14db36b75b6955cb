//! The first page: is tonight's sweep fine, and who needs a hand?

use axum::{
    extract::{Extension, State},
    response::IntoResponse,
};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::{
    DashboardState, Of, Page, Visitor, actions,
    format::{self, counted, day, instant, number, span},
    layout::{self, Again},
    plot,
};
use crate::{
    domain::{MerchantState, Run, RunStatus},
    reconcile::ports::{
        Gauges, GlobalPause, MerchantIssue, MerchantRegistry, Overview, RunFilter, RunStore, SweepSummary,
    },
};

const NIGHTS: u64 = 30;
const STORES: u64 = 25;
/// Runs that are named whatever they came to, by hand or by the schedule.
const LATEST: u64 = 8;
/// An event that waits for so long is worth a look.
const EVENTS_LATE: TimeDelta = TimeDelta::hours(1);
/// While a sweep is under way.
const REFRESH: u32 = 10;

/// The page.
pub async fn show<L: RunStore + Overview, R: MerchantRegistry>(
    State(desk): State<DashboardState<L, R>>,
    Extension(visitor): Of,
) -> Page {
    let store = &desk.api.store;
    let latest = RunFilter { limit: LATEST, ..RunFilter::default() };
    let (gauges, nights, attention, latest, global_pause, now) = tokio::try_join!(
        store.gauges(),
        store.nights(NIGHTS),
        store.attention(STORES),
        store.runs(latest),
        store.global_pause(),
        store.now()
    )?;
    let tonight = nights.iter().find(|night| night.made > 0);
    let under_way = tonight.is_some_and(|night| night.took.is_none());
    let again = if under_way || gauges.runs_active > 0 { Again::In(REFRESH) } else { Again::Never };
    let content = html! {
        (verdict(&gauges, tonight, attention.len(), global_pause.as_ref()))
        @if let Some(global_pause) = &global_pause { (paused_banner(global_pause, &visitor, now)) }
        @if desk.api.metrics.salla_is_away() {
            div.note.bad role="status" { p { strong { "Salla does not answer." } " Runs wait at their cursors, and go on by themselves when it is back." } }
        }
        (sweep(tonight, now))
        (numbers(&gauges, now))
        (hands(&attention, &visitor, now))
        (history(&nights, now))
        (latest_runs(&latest, now))
        @if visitor.operates && global_pause.is_none() {
            section {
                h2 { "Everything" }
                p.soft { "While all stores are paused no run begins, and those under way are given back at their cursors." }
                div.buttons { (actions::button(&visitor, "/dashboard/all/pause", "Pause all stores")) }
            }
        }
    };
    Ok(layout::page("Tonight", &visitor, again, &content).into_response())
}

/// Runs by hand are in no night.
fn latest_runs(runs: &[Run], now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "The latest runs" }
            @if runs.is_empty() { p { "None yet." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Asked for" } th { "Store" } th { "Status" } th { "Trigger" } th { "Read" } th { "Created" } th { "Updated" } } }
                tbody { @for run in runs { tr {
                    td data-label="Asked for" { a href=(format::run_address(run.run_id)) { (instant(run.queued_at, now)) } }
                    td data-label="Store" { a href=(format::store_address(run.merchant_id)) { (run.merchant_id) } }
                    td data-label="Status" { (format::status(run.status)) }
                    td data-label="Trigger" { (run.trigger.as_str()) }
                    td data-label="Read" { (number(run.totals.fetched)) }
                    td data-label="Created" { (number(run.totals.created)) }
                    td data-label="Updated" { (number(run.totals.updated)) }
                } } }
            } } }
        }
    }
}

/// In one sentence: must somebody do something?
fn verdict(
    gauges: &Gauges,
    tonight: Option<&SweepSummary>,
    hands: usize,
    global_pause: Option<&GlobalPause>,
) -> Markup {
    let failed = tonight.map_or(0, |night| night.count(RunStatus::Failed));
    let text = if global_pause.is_some() {
        "All stores are paused".to_owned()
    } else if tonight.is_some_and(|night| night.took.is_none()) {
        if failed == 0 {
            "The sweep is under way".to_owned()
        } else {
            format!("The sweep is under way; {} so far", counted(failed, "run failed", "runs failed"))
        }
    } else if gauges.merchants_overdue > 0 {
        format!("{} behind", counted(gauges.merchants_overdue, "store is", "stores are"))
    } else if failed > 0 {
        format!("{} in the last sweep", counted(failed, "run failed", "runs failed"))
    } else if hands > 0 {
        format!("{} a hand", counted(hands as u64, "store needs", "stores need"))
    } else if tonight.is_none() {
        "The schedule has not fired yet".to_owned()
    } else {
        "The last sweep is fine".to_owned()
    };
    html! { h1 { (text) } }
}

fn paused_banner(global_pause: &GlobalPause, visitor: &Visitor, now: DateTime<Utc>) -> Markup {
    html! {
        div.note.warn role="status" {
            p { "Since " (instant(global_pause.since, now)) ", by " (global_pause.by) ". No run begins, and a firing that comes due waits." }
            @if visitor.operates { div.buttons { (actions::button(visitor, "/dashboard/all/resume", "Let all stores go on")) } }
        }
    }
}

fn sweep(tonight: Option<&SweepSummary>, now: DateTime<Utc>) -> Markup {
    let Some(night) = tonight else {
        return html! { section { h2 { "Tonight's sweep" } p { "None is on record. The first comes with the next firing of the schedule." } } };
    };
    let (ended, totals) = (night.ended(), night.totals());
    let trigger = night.trigger.map_or("skipped", |trigger| trigger.as_str());
    html! {
        section {
            h2 { "Sweep of " (instant(night.scheduled_for, now)) }
            progress max=(night.made) value=(ended) aria-label="Runs that have ended" { (ended) " of " (night.made) }
            p {
                strong { (number(ended)) " of " (number(night.made)) } " done"
                @if let Some(took) = night.took { ", in " (span(took)) }
                @else {
                    @let so_far = (now - night.started_at).to_std().unwrap_or_default();
                    ", for " (span(so_far)) " now"
                    @if ended > 0 && night.made > ended {
                        @let left = so_far.mul_f64((night.made - ended) as f64 / ended as f64);
                        ", about " (span(left)) " to go"
                    }
                }
                " · trigger " code { (trigger) }
            }
            dl.facts {
                @for status in RunStatus::ALL {
                    @let count = night.count(*status);
                    @if count > 0 || *status == RunStatus::Succeeded || *status == RunStatus::Failed {
                        div class=(if *status == RunStatus::Failed && count > 0 { "bad" } else if *status == RunStatus::Partial { "warn" } else { "" }) {
                            dt { (status.as_str()) } dd { (number(count)) }
                        }
                    }
                }
                div { dt { "missing, created" } dd { (number(totals.created)) } }
                div { dt { "stale, updated" } dd { (number(totals.updated)) } }
                div { dt { "read" } dd { (number(totals.fetched)) } }
            }
        }
    }
}

fn numbers(gauges: &Gauges, now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "Stores and queue" }
            dl.facts {
                @for (state, count) in &gauges.merchants {
                    @if *count > 0 || *state == MerchantState::Active {
                        div class=(if *state == MerchantState::NeedsReauthorization { "bad" } else { "" }) {
                            dt { (state.as_str().replace('_', " ")) }
                            dd { a href=(format!("/dashboard/stores?state={}", state.as_str())) { (number(*count)) } }
                        }
                    }
                }
                div class=(if gauges.merchants_overdue > 0 { "bad" } else { "" }) { dt { "behind by more than 26 h" } dd { (number(gauges.merchants_overdue)) } }
                div { dt { "runs under way" } dd { (number(gauges.runs_active)) } }
                div { dt { "runs waiting" } dd { (number(gauges.runs_queued)) } }
                div { dt { "furthest back" } dd { (format::maybe(gauges.oldest_watermark, now, "–")) } }
                div { dt { "last success" } dd { (format::maybe(gauges.last_success, now, "never")) } }
                @if let Some(backlog) = &gauges.backlog {
                    @let late = backlog.oldest.is_some_and(|oldest| now - oldest > EVENTS_LATE);
                    div class=(if late { "warn" } else { "" }) { dt { "events to deliver" } dd { (number(backlog.pending)) } }
                    @if let Some(oldest) = backlog.oldest {
                        div class=(if late { "warn" } else { "" }) { dt { "the oldest since" } dd { (instant(oldest, now)) } }
                    }
                    @if let Some(lag) = backlog.replication_slot_lag_bytes { div { dt { "scheduled_for lag, MiB" } dd { (number(lag >> 20)) } } }
                }
            }
        }
    }
}

/// Why a store needs a hand, and what to do.
fn reason(attention: &MerchantIssue) -> (String, String) {
    let state = attention.merchant.state;
    if state == MerchantState::NeedsReauthorization {
        return ("its tokens are refused".to_owned(), state.advice().to_owned());
    }
    match &attention.last {
        Some(run) if run.status == RunStatus::Failed => {
            let kind = run.error.as_ref().map_or("failed", |failure| failure.kind.as_str());
            (
                format!("its last run failed: {kind}"),
                run.error.as_ref().map_or_else(String::new, |failure| failure.message.clone()),
            )
        }
        Some(run) if run.status == RunStatus::Partial => {
            let left = run.totals.skipped + run.totals.failed;
            (
                format!("{} left out", counted(left, "record was", "records were")),
                "see the run for which, and why".to_owned(),
            )
        }
        Some(_) if attention.overdue => (
            "nothing has covered it for more than 26 h".to_owned(),
            "rerun it; if it stays behind, look at its runs".to_owned(),
        ),
        None if attention.overdue => {
            ("no run has covered it yet".to_owned(), "rerun it, or wait for the next sweep".to_owned())
        }
        _ => ("see its runs".to_owned(), String::new()),
    }
}

fn hands(attention: &[MerchantIssue], visitor: &Visitor, now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "Stores that need a hand" }
            @if attention.is_empty() { p { "None." } }
            @else {
                div.wide { table.cards {
                    thead { tr { th { "Store" } th { "Why" } th { "What to do" } th { "Covered up to" } th { "Last run" } @if visitor.operates { th { "" } } } }
                    tbody { @for one in attention {
                        @let (why, what) = reason(one);
                        tr {
                            td data-label="Store" { (format::store(&one.merchant)) }
                            td data-label="Why" { (why) @if one.overdue { " " span.chip.failed { "behind" } } }
                            td data-label="What to do" { (what) }
                            td data-label="Covered up to" { (format::maybe(one.merchant.watermark, now, "never")) }
                            td data-label="Last run" { @if let Some(run) = &one.last { a href=(format::run_address(run.run_id)) { (format::status(run.status)) } } @else { "–" } }
                            @if visitor.operates { td { (actions::button(visitor, &format!("{}/rerun", format::store_address(one.merchant.merchant_id)), "Rerun")) } }
                        }
                    } }
                } }
                @if attention.len() as u64 >= STORES { p.soft { "There may be more: these are the first of each kind." } }
            }
        }
    }
}

fn history(nights: &[SweepSummary], now: DateTime<Utc>) -> Markup {
    let oldest_first: Vec<SweepSummary> = nights.iter().rev().cloned().collect();
    html! {
        section {
            h2 { @if nights.len() > 1 { "The last " (nights.len()) " nights" } @else { "The nights so far" } }
            @if nights.is_empty() { p { "None yet." } }
            @else {
                ul.legend { li.created { "missing, created" } li.updated { "stale, updated" } li.took { "time of the sweep" } }
                (plot::corrected(&oldest_first))
                (plot::took(&oldest_first, now))
                details {
                    summary { "As a table" }
                    div.wide { table {
                        thead { tr { th { "Night" } th.number { "Runs" } th.number { "Failed" } th.number { "Partial" } th.number { "Created" } th.number { "Updated" } th.number { "Took" } } }
                        tbody { @for night in nights {
                            @let totals = night.totals();
                            tr {
                                td { (day(night.scheduled_for)) @if night.trigger.is_none() { " " span.chip { "skipped" } } }
                                td.number { (number(night.made)) }
                                td.number { (number(night.count(RunStatus::Failed))) }
                                td.number { (number(night.count(RunStatus::Partial))) }
                                td.number { (number(totals.created)) }
                                td.number { (number(totals.updated)) }
                                td.number { (night.took.map_or_else(|| "–".to_owned(), span)) }
                            }
                        } }
                    } }
                }
            }
        }
    }
}
