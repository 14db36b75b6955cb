//! A store: where it stands, what its runs came to, and what was wrong with it.

use axum::{
    extract::{Extension, Path, Query, State},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    DashboardState, Of, Page, PageError, Visitor, actions,
    format::{self, counted, instant, number, span},
    layout::{self, Again},
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

/// Which of its runs.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    before: Option<RunId>,
}

/// The page.
pub async fn show<L: RunStore + Overview, R: MerchantRegistry>(
    State(desk): State<DashboardState<L, R>>,
    Extension(visitor): Of,
    Path(id): Path<MerchantId>,
    Query(which): Query<Which>,
) -> Page {
    let store = &desk.api.store;
    let merchant = desk.onboarding.register.merchant(id).await?;
    let merchant = merchant.ok_or_else(|| PageError::not_found(format!("no merchant {id} is registered")))?;
    let filter =
        RunFilter { merchant: Some(id), before: which.before, limit: A_PAGE as u64 + 1, ..RunFilter::default() };
    let (mut runs, token, now) = tokio::try_join!(store.runs(filter), store.token(id), store.now())?;
    let older = (runs.len() > A_PAGE).then(|| runs[A_PAGE - 1].run_id);
    runs.truncate(A_PAGE);
    let drift = match Period::new(None, None, now) {
        Ok(period) => {
            reconcile::report(store, DriftFilter { merchant: Some(id), period }).await?.and_then(|mut all| all.pop())
        }
        Err(_) => None,
    };
    let again = if runs.iter().any(|run| !run.status.is_end()) { Again::In(REFRESH) } else { Again::Never };
    let content = html! {
        h1 { @if let Some(name) = &merchant.name { bdi dir="auto" { (plain(name)) } } @else { "Store " (id) } }
        p { "Salla's id " code { (id) } " · " span class=(format!("chip {}", merchant.state.as_str())) { (merchant.state.as_str().replace('_', " ")) } " " (merchant.state.advice()) }
        @if visitor.operates { (buttons(&merchant, &visitor)) }
        section {
            h2 { "Where it stands" }
            dl.facts {
                div { dt { "Covered up to (watermark)" } dd { (format::maybe(merchant.watermark, now, "never")) } }
                (tokens(token, now))
            }
        }
        (of_drift(drift.as_ref()))
        (of_runs(&runs, older, &merchant, now))
    };
    let title = merchant.name.as_deref().map(plain).unwrap_or_else(|| format!("Store {id}"));
    Ok(layout::page(&title, &visitor, again, &content).into_response())
}

fn buttons(merchant: &Merchant, visitor: &Visitor) -> Markup {
    let to = |action: &str| format!("{}/{action}", format::store_address(merchant.merchant_id));
    html! {
        div.buttons {
            @if merchant.state != MerchantState::Uninstalled {
                (actions::button(visitor, &to("rerun"), "Rerun"))
                (actions::button(visitor, &to("rerun-full"), "Rerun its whole history"))
            }
            @match merchant.state {
                MerchantState::Active => (actions::button(visitor, &to("pause"), "Pause")),
                MerchantState::Paused | MerchantState::SubscriptionExpired => (actions::button(visitor, &to("resume"), "Resume")),
                MerchantState::NeedsReauthorization | MerchantState::Uninstalled => {},
            }
        }
    }
}

fn tokens(token: Option<TokenState>, now: DateTime<Utc>) -> Markup {
    let Some(token) = token else {
        return html! { div.bad { dt { "Tokens" } dd { "none" } } };
    };
    html! {
        div class=(if token.revoked_at.is_some() { "bad" } else { "" }) {
            dt { "Tokens" }
            dd {
                @if let Some(at) = token.revoked_at { "refused " (instant(at, now)) }
                @else if let Some(at) = token.refresh_started_at { "refresh begun " (instant(at, now)) }
                @else if token.renewable { "good" }
                @else { "not renewable" }
            }
        }
        div { dt { "Access token ends" } dd { (format::maybe(token.expires_at, now, "when Salla refuses it")) } }
        div { dt { "Got from Salla" } dd { (instant(token.issued_at, now)) } }
    }
}

fn of_drift(drift: Option<&Drift>) -> Markup {
    html! {
        section {
            h2 { "What was wrong in the last 30 days" }
            @if let Some(drift) = drift {
                dl.facts {
                    div { dt { "missing" } dd { (number(drift.missing)) } }
                    div { dt { "stale" } dd { (number(drift.stale)) } }
                    div { dt { "of them deleted" } dd { (number(drift.deleted)) } }
                    div { dt { "could not be read" } dd { (number(drift.skipped)) } }
                    div { dt { "could not be written" } dd { (number(drift.failed)) } }
                    @if let Some(seconds) = drift.lateness.median_seconds { div { dt { "late, in the middle" } dd { (span(std::time::Duration::from_secs(seconds))) } } }
                    @if let Some(seconds) = drift.lateness.max_seconds { div { dt { "late at most" } dd { (span(std::time::Duration::from_secs(seconds))) } } }
                }
                @if !drift.lost_webhooks.is_empty() {
                    p { "Webhooks that must have been lost: "
                        @for (index, (event, count)) in drift.lost_webhooks.iter().enumerate() { @if index > 0 { ", " } (number(*count)) " × " code { (event) } }
                    }
                }
                @if !drift.fields.is_empty() {
                    p { "Columns that were stale: "
                        @for (index, (field, count)) in drift.fields.iter().enumerate() { @if index > 0 { ", " } code { (field) } " " (number(*count)) }
                    }
                }
            } @else { p { "No run has looked." } }
        }
    }
}

fn of_runs(runs: &[Run], older: Option<RunId>, merchant: &Merchant, now: DateTime<Utc>) -> Markup {
    html! {
        section {
            h2 { "Runs" }
            @if runs.is_empty() { p { "None." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Run" } th { "Trigger" } th { "Asked for" } th { "Took" } th.number { "Read" } th.number { "Corrected" } th { "Trouble" } } }
                tbody { @for run in runs { tr {
                    td data-label="Run" { a href=(format::run_address(run.run_id)) { (format::status(run.status)) } @if run.dry_run { " dry" } }
                    td data-label="Trigger" { (run.trigger.as_str()) }
                    td data-label="Asked for" { (instant(run.queued_at, now)) }
                    td data-label="Took" { (super::run::took(run, now)) }
                    td.number data-label="Read" { (number(run.totals.fetched)) }
                    td.number data-label="Corrected" { (number(run.totals.created + run.totals.updated)) }
                    td data-label="Trouble" {
                        @if let Some(error) = &run.error { code { (error.kind.as_str()) } }
                        @else if run.totals.skipped + run.totals.failed > 0 { (counted(run.totals.skipped + run.totals.failed, "record left out", "records left out")) }
                        @else { "–" }
                    }
                } } }
            } } }
            @if let Some(older) = older { p { a rel="next" href=(format!("{}?before={older}", format::store_address(merchant.merchant_id))) { "Older" } } }
        }
    }
}
