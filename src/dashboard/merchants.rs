//! The list of merchants, by id.

use axum::{
    extract::{Extension, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use maud::html;
use serde::Deserialize;

use super::{
    DashboardState, Page, PageError, VisitorExtension, format,
    layout::{self, AutoRefresh},
};
use crate::{
    domain::{MerchantId, MerchantState},
    reconcile::ports::{MerchantFilter, MerchantRegistry, RunStore},
};

const A_PAGE: usize = 50;

/// Selects a page of merchants.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    /// The merchant id.
    #[serde(default)]
    id: String,
    #[serde(default)]
    state: String,
    after: Option<MerchantId>,
}

/// The page.
pub async fn show<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Query(query): Query<PageQuery>,
) -> Page {
    if !query.id.trim().is_empty() {
        let id = query.id.trim().parse::<MerchantId>();
        let id = id.map_err(|_| PageError::new(StatusCode::BAD_REQUEST, "a merchant id is a number"))?;
        return Ok(Redirect::to(&format::merchant_address(id)).into_response());
    }
    let state = match query.state.as_str() {
        "" => None,
        word => Some(
            word.parse::<MerchantState>()
                .map_err(|_| PageError::new(StatusCode::BAD_REQUEST, "unknown merchant state"))?,
        ),
    };
    let filter = MerchantFilter { state, after: query.after, limit: A_PAGE as u64 + 1 };
    let (mut merchants, now) = tokio::try_join!(dashboard.onboarding.register.list(filter), dashboard.api.store.now())?;
    let next = (merchants.len() > A_PAGE).then(|| merchants[A_PAGE - 1].merchant_id);
    merchants.truncate(A_PAGE);
    let clock = dashboard.clock(now);
    let content = html! {
        h1 { "Merchants" }
        form.search method="get" action="/dashboard/merchants" {
            div { label for="id" { "Merchant id" } input #id type="search" name="id" inputmode="numeric" placeholder="1001"; }
            div {
                label for="state" { "State" }
                select #state name="state" {
                    option value="" selected[state.is_none()] { "any" }
                    @for one in MerchantState::ALL { option value=(one.as_str()) selected[state == Some(one)] { (one.as_str().replace('_', " ")) } }
                }
            }
            button type="submit" { "Show" }
        }
        section {
            @if merchants.is_empty() { p { "None." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Merchant" } th { "State" } th { "Watermark" } } }
                tbody { @for merchant in &merchants { tr {
                    td data-label="Merchant" { (format::merchant(merchant)) }
                    td data-label="State" { span class=(format!("chip {}", merchant.state.as_str())) { (merchant.state.as_str().replace('_', " ")) } }
                    td data-label="Watermark" { (format::maybe(merchant.watermark, clock, "never")) }
                } } }
            } } }
            @if let Some(next) = next {
                p { a rel="next" href=(format!("/dashboard/merchants?after={next}&state={}", query.state)) { "More" } }
            }
        }
    };
    Ok(layout::page("Merchants", &visitor, AutoRefresh::Never, &content).into_response())
}
