//! The actions of the buttons. Afterwards the browser is sent to the page that shows the result.

use axum::{
    Form,
    extract::{Extension, Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use maud::{Markup, html};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{DashboardState, Page, PageError, Visitor, VisitorExtension, format};
use crate::{
    domain::{MerchantId, MerchantState, Request, RunId, Transition, Trigger},
    reconcile::ports::{Changed, EnqueueOutcome, MerchantRegistry, NewRun, RunStore},
};

/// What each form sends.
#[derive(Debug, Deserialize)]
pub struct Sent {
    #[serde(default)]
    form_key: String,
}

impl Sent {
    /// Whether it is a form of the session that has this key.
    pub fn is_of(&self, form_key: &str) -> bool {
        self.form_key.as_bytes().ct_eq(form_key.as_bytes()).into()
    }
}

/// A button that does something.
pub fn button(visitor: &Visitor, address: &str, label: &str) -> Markup {
    html! {
        form method="post" action=(address) {
            @if let Some(key) = &visitor.form_key { input type="hidden" name="form_key" value=(key); }
            button type="submit" { (label) }
        }
    }
}

/// `rerun`, `rerun-full`, `pause` and `resume`.
pub async fn of_merchant<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Path((id, action)): Path<(MerchantId, String)>,
    Form(sent): Form<Sent>,
) -> Page {
    visitor.sent(&sent)?;
    match action.as_str() {
        "rerun" => rerun(&dashboard, &visitor, id, Request::default()).await,
        "rerun-full" => rerun(&dashboard, &visitor, id, Request { full: true, ..Request::default() }).await,
        "pause" => change(&dashboard, &visitor, id, Transition::Pause).await,
        "resume" => change(&dashboard, &visitor, id, Transition::Resume).await,
        _ => Err(PageError::not_found("unknown action")),
    }
}

async fn rerun<L: RunStore, R: MerchantRegistry>(
    dashboard: &DashboardState<L, R>,
    visitor: &Visitor,
    merchant: MerchantId,
    request: Request,
) -> Page {
    if dashboard.api.draining.is_cancelled() {
        return Err(PageError::new(StatusCode::SERVICE_UNAVAILABLE, "this process is shutting down: try again"));
    }
    let new = NewRun { merchant, trigger: Trigger::Http, request, by: visitor.actor.clone(), key: None };
    let id = match dashboard.api.store.enqueue(new).await? {
        EnqueueOutcome::Queued(id) | EnqueueOutcome::Replayed(id) => {
            dashboard.api.wake.notify_one();
            id
        }
        // The requested run is queued or running already.
        EnqueueOutcome::Active(id) => id,
        EnqueueOutcome::KeyTaken | EnqueueOutcome::UnknownMerchant => {
            return Err(PageError::not_found(format!("no merchant {merchant} is registered")));
        }
        EnqueueOutcome::Uninstalled => {
            return Err(PageError::new(StatusCode::CONFLICT, MerchantState::Uninstalled.advice()));
        }
    };
    Ok(Redirect::to(&format::run_address(id)).into_response())
}

async fn change<L: RunStore, R: MerchantRegistry>(
    dashboard: &DashboardState<L, R>,
    visitor: &Visitor,
    id: MerchantId,
    change: Transition,
) -> Page {
    match dashboard.onboarding.register.change(id, change, &visitor.actor).await? {
        Changed::Now(_) => Ok(Redirect::to(&format::merchant_address(id)).into_response()),
        Changed::Impossible(obstacle) => Err(PageError::new(StatusCode::CONFLICT, obstacle.to_string())),
        Changed::Unknown => Err(PageError::not_found(format!("no merchant {id} is registered"))),
    }
}

/// Asks a run to end.
pub async fn cancel<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Path(id): Path<RunId>,
    Form(sent): Form<Sent>,
) -> Page {
    visitor.sent(&sent)?;
    match dashboard.api.store.cancel(id, &visitor.actor).await? {
        // The page of an ended run shows its end.
        Some(_) => Ok(Redirect::to(&format::run_address(id)).into_response()),
        None => Err(PageError::not_found("no run has this id")),
    }
}

/// `pause` and `resume` for all merchants.
pub async fn of_all<L: RunStore, R: MerchantRegistry>(
    State(dashboard): State<DashboardState<L, R>>,
    Extension(visitor): VisitorExtension,
    Path(action): Path<String>,
    Form(sent): Form<Sent>,
) -> Page {
    visitor.sent(&sent)?;
    let still = match action.as_str() {
        "pause" => true,
        "resume" => false,
        _ => return Err(PageError::not_found("unknown action")),
    };
    dashboard.onboarding.register.set_global_pause(still, &visitor.actor).await?;
    Ok(Redirect::to("/").into_response())
}
