//! The page of a merchant: state, tokens, drift and runs.

use axum::{
    extract::{Extension, Path, Query, State},
    response::IntoResponse,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    DashboardState, Page, PageError, Visitor, VisitorExtension, actions,
    format::{self, Clock, counted, instant, number, span},
    layout::{self, AutoRefresh},
};
use crate::{
    domain::{Drift, Merchant, MerchantId, MerchantState, Period, Run, RunId, plain},
    reconcile::{
        self,
        ports::{DriftFilter, MerchantRegistry, Overview, RunFilter, RunStore, TokenState},
    },
};

const A_PAGE: usize = 20;
const REFRESH: u32 = 10;

/// Selects a page of runs.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    before: Option<RunId>,
}

/// The page.
pub async fn show<L: RunStore + Overview, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Path(id): Path<MerchantId>,
    Query(query): Query<PageQuery>,
) -> Page {
    let store = &dashboard.api.store;
    let merchant = dashboard.onboarding.register.merchant(id).await?;
    let merchant = merchant.ok_or_else(|| PageError::not_found(format!("no merchant {id} is registered")))?;
    let filter =
        RunFilter { merchant: Some(id), before: query.before, limit: A_PAGE as u64 + 1, ..RunFilter::default() };
    let (mut runs, token, now) = tokio::try_join!(store.runs(filter), store.token(id), store.now())?;
    let clock = dashboard.clock(now);
    let older = (runs.len() > A_PAGE).then(|| runs[A_PAGE - 1].run_id);
    runs.truncate(A_PAGE);
    let drift = match Period::new(None, None, now) {
        Ok(period) => {
            reconcile::report(store, DriftFilter { merchant: Some(id), period }).await?.and_then(|mut all| all.pop())
        }
        Err(_) => None,
    };
    let auto_refresh =
        if runs.iter().any(|run| !run.status.is_end()) { AutoRefresh::In(REFRESH) } else { AutoRefresh::Never };
    let content = html! {
        h1 { @if let Some(name) = &merchant.name { bdi dir="auto" { (plain(name)) } } @else { "Merchant " (id) } }
        p { "Merchant id " code { (id) } " · " span class=(format!("chip {}", merchant.state.as_str())) { (merchant.state.as_str().replace('_', " ")) } " " (merchant.state.advice()) }
        @if visitor.operates { (buttons(&merchant, &visitor)) }
        section {
            h2 { "State" }
            dl.facts {
                div { dt { "watermark" } dd { (format::maybe(merchant.watermark, clock, "never")) } }
                (tokens(token, clock))
            }
        }
        (of_drift(drift.as_ref()))
        (of_runs(&runs, older, &merchant, clock))
    };
    let title = merchant.name.as_deref().map(plain).unwrap_or_else(|| format!("Merchant {id}"));
    Ok(layout::page(&title, &visitor, auto_refresh, &content).into_response())
}

fn buttons(merchant: &Merchant, visitor: &Visitor) -> Markup {
    let to = |action: &str| format!("{}/{action}", format::merchant_address(merchant.merchant_id));
    html! {
        div.buttons {
            @if merchant.state != MerchantState::Uninstalled {
                (actions::button(visitor, &to("rerun"), "Rerun"))
                (actions::button(visitor, &to("rerun-full"), "Full rerun"))
            }
            @match merchant.state {
                MerchantState::Active => (actions::button(visitor, &to("pause"), "Pause")),
                MerchantState::Paused | MerchantState::SubscriptionExpired => (actions::button(visitor, &to("resume"), "Resume")),
                MerchantState::NeedsReauthorization | MerchantState::Uninstalled => {},
            }
        }
    }
}

fn tokens(token: Option<TokenState>, clock: Clock) -> Markup {
    let Some(token) = token else {
        return html! { div.bad { dt { "tokens" } dd { "none" } } };
    };
    html! {
        div class=(if token.revoked_at.is_some() { "bad" } else { "" }) {
            dt { "tokens" }
            dd {
                @if let Some(at) = token.revoked_at { "refused by Salla " (instant(at, clock)) }
                @else if let Some(at) = token.refresh_started_at { "refresh started " (instant(at, clock)) }
                @else if token.renewable { "valid" }
                @else { "without refresh token" }
            }
        }
        div { dt { "access token expires" } dd { (format::maybe(token.expires_at, clock, "not known")) } }
        div { dt { "tokens issued" } dd { (instant(token.issued_at, clock)) } }
    }
}

fn of_drift(drift: Option<&Drift>) -> Markup {
    html! {
        section {
            h2 { "Drift in the last 30 days" }
            @if let Some(drift) = drift {
                dl.facts {
                    div { dt { "missing" } dd { (number(drift.missing)) } }
                    div { dt { "stale" } dd { (number(drift.stale)) } }
                    div { dt { "stale (deleted)" } dd { (number(drift.deleted)) } }
                    div { dt { "backfilled" } dd { (number(drift.backfilled.total())) } }
                    div { dt { "skipped" } dd { (number(drift.skipped)) } }
                    div { dt { "failed" } dd { (number(drift.failed)) } }
                    @if let Some(seconds) = drift.lateness.median_seconds { div { dt { "median delay" } dd { (span(std::time::Duration::from_secs(seconds))) } } }
                    @if let Some(seconds) = drift.lateness.max_seconds { div { dt { "longest delay" } dd { (span(std::time::Duration::from_secs(seconds))) } } }
                }
                @if !drift.lost_webhooks.is_empty() {
                    p { "Lost webhooks: "
                        @for (index, (event, count)) in drift.lost_webhooks.iter().enumerate() { @if index > 0 { ", " } (number(*count)) " × " code { (event) } }
                    }
                }
                @if !drift.fields.is_empty() {
                    p { "Stale columns: "
                        @for (index, (field, count)) in drift.fields.iter().enumerate() { @if index > 0 { ", " } code { (field) } " " (number(*count)) }
                    }
                }
            } @else { p { "No run in this time." } }
        }
    }
}

fn of_runs(runs: &[Run], older: Option<RunId>, merchant: &Merchant, clock: Clock) -> Markup {
    html! {
        section {
            h2 { "Runs" }
            @if runs.is_empty() { p { "None." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Run" } th { "Trigger" } th { "Queued" } th { "Duration" } th.number { "Fetched" } th.number { "Corrected" } th { "Problem" } } }
                tbody { @for run in runs { tr {
                    td data-label="Run" { a href=(format::run_address(run.run_id)) { (format::run_status(run)) } }
                    td data-label="Trigger" { (run.trigger.as_str()) }
                    td data-label="Queued" { (instant(run.queued_at, clock)) }
                    td data-label="Duration" { (super::run::took(run, clock)) }
                    td.number data-label="Fetched" { (number(run.totals.fetched)) }
                    td.number data-label="Corrected" { @if run.dry_run { "–" } @else { (number(run.totals.created + run.totals.updated)) } }
                    td data-label="Problem" {
                        @if let Some(error) = &run.error { code { (error.kind.as_str()) } }
                        @else if run.totals.skipped + run.totals.failed > 0 { (counted(run.totals.skipped + run.totals.failed, "record skipped or failed", "records skipped or failed")) }
                        @else { "–" }
                    }
                } } }
            } } }
            @if let Some(older) = older { p { a rel="next" href=(format!("{}?before={older}", format::merchant_address(merchant.merchant_id))) { "Older" } } }
        }
    }
}
