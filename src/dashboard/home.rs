//! The first page: the last sweep, and the merchants that need attention.

use axum::{
    extract::{Extension, State},
    response::IntoResponse,
};
use chrono::TimeDelta;
use maud::{Markup, html};

use super::{
    DashboardState, Page, Visitor, VisitorExtension, actions,
    format::{self, Clock, counted, day, instant, number, span},
    layout::{self, AutoRefresh},
    plot,
};
use crate::{
    domain::{MerchantState, Run, RunStatus, plain},
    reconcile::ports::{
        Gauges, GlobalPause, MerchantIssue, MerchantRegistry, Overview, RunFilter, RunStore, SweepSummary,
    },
};

const SWEEPS: u64 = 30;
const MERCHANTS: u64 = 25;
/// The newest runs, of every status and trigger.
const LATEST: u64 = 8;
/// An event that waits for longer is shown as a warning.
const EVENTS_LATE: TimeDelta = TimeDelta::hours(1);
/// Seconds between loads of the page during a sweep.
const REFRESH: u32 = 10;

/// The page.
pub async fn show<L: RunStore + Overview, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
) -> Page {
    let store = &dashboard.api.store;
    let latest = RunFilter { limit: LATEST, ..RunFilter::default() };
    let (gauges, sweeps, attention, latest, global_pause, now) = tokio::try_join!(
        store.gauges(),
        store.sweeps(SWEEPS),
        store.attention(MERCHANTS),
        store.runs(latest),
        store.global_pause(),
        store.now()
    )?;
    let clock = dashboard.clock(now);
    let last_sweep = sweeps.iter().find(|summary| summary.made > 0);
    let under_way = last_sweep.is_some_and(|summary| summary.took.is_none());
    let auto_refresh = if under_way || gauges.runs_active > 0 { AutoRefresh::In(REFRESH) } else { AutoRefresh::Never };
    let content = html! {
        (verdict(&gauges, last_sweep, attention.len(), global_pause.as_ref()))
        @if let Some(global_pause) = &global_pause { (paused_banner(global_pause, &visitor, clock)) }
        @if dashboard.api.metrics.salla_is_away() {
            div.note.bad role="status" { p { strong { "Salla does not answer." } " Runs wait at their cursors, and continue when it answers." } }
        }
        (sweep(last_sweep, clock))
        (numbers(&gauges, clock))
        (hands(&attention, &visitor, clock))
        (history(&sweeps, clock))
        (latest_runs(&latest, clock))
        @if visitor.operates && global_pause.is_none() {
            section {
                h2 { "Global pause" }
                p.soft { "During a global pause no run starts, and running runs are released at their cursors." }
                div.buttons { (actions::button(&visitor, "/dashboard/all/pause", "Pause all merchants")) }
            }
        }
    };
    Ok(layout::page("Overview", &visitor, auto_refresh, &content).into_response())
}

/// The newest runs, also those by hand.
fn latest_runs(runs: &[Run], clock: Clock) -> Markup {
    html! {
        section {
            h2 { "Latest runs" }
            @if runs.is_empty() { p { "None yet." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Queued" } th { "Merchant" } th { "Status" } th { "Trigger" } th { "Fetched" } th { "Created" } th { "Updated" } } }
                tbody { @for run in runs { tr {
                    td data-label="Queued" { a href=(format::run_address(run.run_id)) { (instant(run.queued_at, clock)) } }
                    td data-label="Merchant" { a href=(format::merchant_address(run.merchant_id)) { (run.merchant_id) } }
                    td data-label="Status" { (format::run_status(run)) }
                    td data-label="Trigger" { (run.trigger.as_str()) }
                    td data-label="Fetched" { (number(run.totals.fetched)) }
                    td data-label="Created" { @if run.dry_run { "–" } @else { (number(run.totals.created)) } }
                    td data-label="Updated" { @if run.dry_run { "–" } @else { (number(run.totals.updated)) } }
                } } }
            } } }
        }
    }
}

/// One sentence: whether a person must act.
fn verdict(
    gauges: &Gauges,
    last_sweep: Option<&SweepSummary>,
    hands: usize,
    global_pause: Option<&GlobalPause>,
) -> Markup {
    let failed = last_sweep.map_or(0, |summary| summary.count(RunStatus::Failed));
    let text = if global_pause.is_some() {
        "All merchants are paused".to_owned()
    } else if last_sweep.is_some_and(|summary| summary.took.is_none()) {
        if failed == 0 {
            "The sweep is running".to_owned()
        } else {
            format!("The sweep is running; {} so far", counted(failed, "run failed", "runs failed"))
        }
    } else if gauges.merchants_overdue > 0 {
        format!("{} overdue", counted(gauges.merchants_overdue, "merchant is", "merchants are"))
    } else if failed > 0 {
        format!("{} in the last sweep", counted(failed, "run failed", "runs failed"))
    } else if hands > 0 {
        format!("{} attention", counted(hands as u64, "merchant needs", "merchants need"))
    } else if last_sweep.is_none() {
        "No sweep has started yet".to_owned()
    } else {
        "The last sweep succeeded".to_owned()
    };
    html! { h1 { (text) } }
}

fn paused_banner(global_pause: &GlobalPause, visitor: &Visitor, clock: Clock) -> Markup {
    html! {
        div.note.warn role="status" {
            p { "Since " (instant(global_pause.since, clock)) ", by " (global_pause.by) ". No run starts, and sweeps wait." }
            @if visitor.operates { div.buttons { (actions::button(visitor, "/dashboard/all/resume", "Resume all merchants")) } }
        }
    }
}

fn sweep(last_sweep: Option<&SweepSummary>, clock: Clock) -> Markup {
    let Some(summary) = last_sweep else {
        return html! { section { h2 { "Last sweep" } p { "No sweep is recorded. The schedule starts the first one." } } };
    };
    let (ended, totals) = (summary.ended(), summary.totals());
    let (missing, stale) = totals.drift();
    let trigger = summary.trigger.map_or("skipped", |trigger| trigger.as_str());
    html! {
        section {
            h2 { "Sweep of " (instant(summary.scheduled_for, clock)) }
            progress max=(summary.made) value=(ended) aria-label="Ended runs" { (ended) " of " (summary.made) }
            p {
                strong { (number(ended)) " of " (number(summary.made)) } " done"
                @if let Some(took) = summary.took { ", in " (span(took)) }
                @else {
                    @let so_far = (clock.now - summary.started_at).to_std().unwrap_or_default();
                    ", for " (span(so_far)) " now"
                    @if ended > 0 && summary.made > ended {
                        @let left = so_far.mul_f64((summary.made - ended) as f64 / ended as f64);
                        ", about " (span(left)) " left"
                    }
                }
                " · trigger " code { (trigger) }
            }
            dl.facts {
                @for status in RunStatus::ALL {
                    @let count = summary.count(*status);
                    @if count > 0 || *status == RunStatus::Succeeded || *status == RunStatus::Failed {
                        div class=(if *status == RunStatus::Failed && count > 0 { "bad" } else if *status == RunStatus::Partial { "warn" } else { "" }) {
                            dt { (status.as_str()) } dd { (number(count)) }
                        }
                    }
                }
                div { dt { "missing" } dd { (number(missing)) } }
                div { dt { "stale" } dd { (number(stale)) } }
                div { dt { "backfilled" } dd { (number(totals.backfilled_total())) } }
                div { dt { "fetched" } dd { (number(totals.fetched)) } }
            }
        }
    }
}

fn numbers(gauges: &Gauges, clock: Clock) -> Markup {
    html! {
        section {
            h2 { "Merchants and queue" }
            dl.facts {
                @for (state, count) in &gauges.merchants {
                    @if *count > 0 || *state == MerchantState::Active {
                        div class=(if *state == MerchantState::NeedsReauthorization { "bad" } else { "" }) {
                            dt { (state.as_str().replace('_', " ")) }
                            dd { a href=(format!("/dashboard/merchants?state={}", state.as_str())) { (number(*count)) } }
                        }
                    }
                }
                div class=(if gauges.merchants_overdue > 0 { "bad" } else { "" }) { dt { "overdue (26 h)" } dd { (number(gauges.merchants_overdue)) } }
                div { dt { "running runs" } dd { (number(gauges.runs_active)) } }
                div { dt { "queued runs" } dd { (number(gauges.runs_queued)) } }
                div { dt { "oldest watermark" } dd { (format::maybe(gauges.oldest_watermark, clock, "–")) } }
                div { dt { "last success" } dd { (format::maybe(gauges.last_success, clock, "never")) } }
                @if let Some(backlog) = &gauges.backlog {
                    @let late = backlog.oldest.is_some_and(|oldest| clock.now - oldest > EVENTS_LATE);
                    div class=(if late { "warn" } else { "" }) { dt { "pending events" } dd { (number(backlog.pending)) } }
                    @if let Some(oldest) = backlog.oldest {
                        div class=(if late { "warn" } else { "" }) { dt { "oldest pending event" } dd { (instant(oldest, clock)) } }
                    }
                    @if let Some(lag) = backlog.replication_slot_lag_bytes { div { dt { "slot lag, MiB" } dd { (number(lag >> 20)) } } }
                }
            }
        }
    }
}

/// Why a merchant needs attention, and what to do.
fn reason(attention: &MerchantIssue) -> (String, String) {
    let state = attention.merchant.state;
    if state == MerchantState::NeedsReauthorization {
        return ("Salla refuses its tokens".to_owned(), state.advice().to_owned());
    }
    match &attention.last {
        Some(run) if run.status == RunStatus::Failed => {
            let kind = run.error.as_ref().map_or("failed", |failure| failure.kind.as_str());
            (
                format!("its last run failed: {kind}"),
                run.error.as_ref().map_or_else(String::new, |failure| plain(&failure.message)),
            )
        }
        Some(run) if run.status == RunStatus::Partial => {
            let left = run.totals.skipped + run.totals.failed;
            (
                format!("{} skipped or failed", counted(left, "record", "records")),
                "open the run for the reasons".to_owned(),
            )
        }
        Some(_) if attention.overdue => (
            "no run has covered it for more than 26 h".to_owned(),
            "rerun it; if it stays overdue, open its runs".to_owned(),
        ),
        None if attention.overdue => {
            ("no run has covered it yet".to_owned(), "rerun it, or wait for the next sweep".to_owned())
        }
        _ => ("not known".to_owned(), "open its runs".to_owned()),
    }
}

fn hands(attention: &[MerchantIssue], visitor: &Visitor, clock: Clock) -> Markup {
    html! {
        section {
            h2 { "Merchants needing attention" }
            @if attention.is_empty() { p { "None." } }
            @else {
                div.wide { table.cards {
                    thead { tr { th { "Merchant" } th { "Problem" } th { "Action" } th { "Watermark" } th { "Last run" } @if visitor.operates { th { "" } } } }
                    tbody { @for one in attention {
                        @let (why, what) = reason(one);
                        tr {
                            td data-label="Merchant" { (format::merchant(&one.merchant)) }
                            td data-label="Problem" { (why) @if one.overdue { " " span.chip.failed { "overdue" } } }
                            td data-label="Action" { (what) }
                            td data-label="Watermark" { (format::maybe(one.merchant.watermark, clock, "never")) }
                            td data-label="Last run" { @if let Some(run) = &one.last { a href=(format::run_address(run.run_id)) { (format::run_status(run)) } } @else { "–" } }
                            @if visitor.operates { td { (actions::button(visitor, &format!("{}/rerun", format::merchant_address(one.merchant.merchant_id)), "Rerun")) } }
                        }
                    } }
                } }
                @if attention.len() as u64 >= MERCHANTS { p.soft { "There may be more merchants with these problems." } }
            }
        }
    }
}

fn history(sweeps: &[SweepSummary], clock: Clock) -> Markup {
    let oldest_first: Vec<SweepSummary> = sweeps.iter().rev().cloned().collect();
    html! {
        section {
            h2 { @if sweeps.len() > 1 { "Last " (sweeps.len()) " sweeps" } @else { "Sweeps" } }
            @if sweeps.is_empty() { p { "None yet." } }
            @else {
                ul.legend { li.missing { "missing" } li.stale { "stale" } li.backfilled { "backfilled" } li.took { "duration" } }
                (plot::corrected(&oldest_first, clock))
                (plot::took(&oldest_first, clock))
                details {
                    summary { "As a table" }
                    div.wide { table {
                        thead { tr { th { "Sweep" } th.number { "Runs" } th.number { "Failed" } th.number { "Partial" } th.number { "Missing" } th.number { "Stale" } th.number { "Backfilled" } th.number { "Duration" } } }
                        tbody { @for summary in sweeps {
                            @let totals = summary.totals();
                            tr {
                                td { (day(summary.scheduled_for, clock)) @if summary.trigger.is_none() { " " span.chip { "skipped" } } }
                                td.number { (number(summary.made)) }
                                td.number { (number(summary.count(RunStatus::Failed))) }
                                td.number { (number(summary.count(RunStatus::Partial))) }
                                @let (missing, stale) = totals.drift();
                                td.number { (number(missing)) }
                                td.number { (number(stale)) }
                                td.number { (number(totals.backfilled_total())) }
                                td.number { (summary.took.map_or_else(|| "–".to_owned(), span)) }
                            }
                        } }
                    } }
                }
            }
        }
    }
}
