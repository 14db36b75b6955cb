//! `POST /oauth2/token`: a refresh token is good once; a second use revokes the installation.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Form, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::json;

use super::{
    answers::{answer, cut_off},
    fault::Fault,
    world::World,
};

/// Fourteen days, as Salla has it.
const LIFETIME_SECONDS: u64 = 1_209_599;

/// Answers a refresh.
pub async fn refresh(State(world): State<Arc<Mutex<World>>>, Form(form): Form<HashMap<String, String>>) -> Response {
    let fault = world.lock().token_faults.pop_front();
    match fault {
        Some(Fault::Hang(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Hold(gate)) => gate.wait().await,
        // The refresh token is used up all the same.
        Some(Fault::CutOff) => {
            let answer = exchange(&mut world.lock(), form.get("refresh_token").map_or("", String::as_str));
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
            return cut_off(body.unwrap_or_default());
        }
        Some(fault) => return answer(&fault),
        None => {}
    }
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    if field("grant_type") != "refresh_token" || field("client_id").is_empty() || field("client_secret").is_empty() {
        return refused("invalid_client");
    }
    exchange(&mut world.lock(), field("refresh_token"))
}

fn exchange(world: &mut World, refresh_token: &str) -> Response {
    world.issued += 1;
    let issued = world.issued;
    let Some((merchant_id, generation)) = split(refresh_token) else {
        return refused("invalid_grant");
    };
    let Some(shop) = world.shops.get_mut(&merchant_id) else {
        return refused("invalid_grant");
    };
    if shop.revoked || shop.refresh_token != refresh_token {
        if !shop.revoked && split(&shop.refresh_token).is_some_and(|(_, present)| present > generation) {
            shop.revoked = true;
            world.violations.push(format!("store {merchant_id}: a refresh token was used twice"));
        }
        return refused("invalid_grant");
    }
    shop.access_token = format!("ory_at_{merchant_id}_{issued}");
    shop.refresh_token = format!("ory_rt_{merchant_id}_{issued}");
    let body = json!({
        "access_token": shop.access_token, "refresh_token": shop.refresh_token,
        "expires_in": LIFETIME_SECONDS, "scope": "orders.read offline_access", "token_type": "bearer",
    });
    world.refreshes += 1;
    Json(body).into_response()
}

/// The merchant and the generation of a refresh token.
fn split(token: &str) -> Option<(i64, i64)> {
    let (merchant, generation) = token.strip_prefix("ory_rt_")?.split_once('_')?;
    Some((merchant.parse().ok()?, generation.parse().ok()?))
}

fn refused(error: &str) -> Response {
    (StatusCode::UNAUTHORIZED, Json(json!({"error": error, "error_description": "simulated"}))).into_response()
}
