//! The stores, by their ids.

use axum::{
    extract::{Extension, Query, State},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use maud::html;
use serde::Deserialize;

use super::{
    DashboardState, Of, Page, PageError, format,
    layout::{self, Again},
};
use crate::{
    domain::{MerchantId, MerchantState},
    reconcile::ports::{MerchantFilter, MerchantRegistry, RunStore},
};

const A_PAGE: usize = 50;

/// Which.
#[derive(Debug, Default, Deserialize)]
pub struct Which {
    /// A store's id.
    #[serde(default)]
    id: String,
    #[serde(default)]
    state: String,
    after: Option<MerchantId>,
}

/// The page.
pub async fn show<L: RunStore, R: MerchantRegistry>(
    State(desk): State<DashboardState<L, R>>,
    Extension(visitor): Of,
    Query(which): Query<Which>,
) -> Page {
    if !which.id.trim().is_empty() {
        let id = which.id.trim().parse::<MerchantId>();
        let id = id.map_err(|_| {
            PageError::new(StatusCode::BAD_REQUEST, "a store's id is a number, as in Salla's own pages")
        })?;
        return Ok(Redirect::to(&format::store_address(id)).into_response());
    }
    let state = match which.state.as_str() {
        "" => None,
        word => Some(
            word.parse::<MerchantState>()
                .map_err(|_| PageError::new(StatusCode::BAD_REQUEST, "no store is in such a state"))?,
        ),
    };
    let filter = MerchantFilter { state, after: which.after, limit: A_PAGE as u64 + 1 };
    let (mut stores, now) = tokio::try_join!(desk.onboarding.register.list(filter), desk.api.store.now())?;
    let next = (stores.len() > A_PAGE).then(|| stores[A_PAGE - 1].merchant_id);
    stores.truncate(A_PAGE);
    let content = html! {
        h1 { "Stores" }
        form.search method="get" action="/dashboard/stores" {
            div { label for="id" { "Store's id" } input #id type="search" name="id" inputmode="numeric" placeholder="1001"; }
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
            @if stores.is_empty() { p { "None." } }
            @else { div.wide { table.cards {
                thead { tr { th { "Store" } th { "State" } th { "Covered up to" } } }
                tbody { @for store in &stores { tr {
                    td data-label="Store" { (format::store(store)) }
                    td data-label="State" { span class=(format!("chip {}", store.state.as_str())) { (store.state.as_str().replace('_', " ")) } }
                    td data-label="Covered up to" { (format::maybe(store.watermark, now, "never")) }
                } } }
            } } }
            @if let Some(next) = next {
                p { a rel="next" href=(format!("/dashboard/stores?after={next}&state={}", which.state)) { "More" } }
            }
        }
    };
    Ok(layout::page("Stores", &visitor, Again::Never, &content).into_response())
}
