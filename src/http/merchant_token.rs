//! The access token of a merchant for the other programs of a platform, where this program refreshes the tokens.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Onboarding,
    access::Caller,
    merchants::merchant_id,
    problem::Problem,
    runs::{Answer, no_merchant},
};
use crate::{
    domain::MerchantId,
    reconcile::ports::{Actor, MerchantRegistry, SourceError, Tokens},
};

type TokenRead = Pin<Box<dyn Future<Output = Result<Tokens, SourceError>> + Send>>;

/// Reads the tokens of a merchant, refreshed ahead of their expiry, and records in the audit who read them.
#[derive(Clone)]
pub struct ReadToken(Arc<dyn Fn(MerchantId, Actor) -> TokenRead + Send + Sync>);

impl ReadToken {
    /// `read` returns the tokens, and writes the audit entry first.
    pub fn new<F>(read: impl Fn(MerchantId, Actor) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Tokens, SourceError>> + Send + 'static,
    {
        Self(Arc::new(move |merchant, by| Box::pin(read(merchant, by))))
    }
}

impl fmt::Debug for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadToken")
    }
}

/// An access token of a merchant.
#[derive(Serialize, ToSchema)]
pub struct AccessToken {
    /// The access token. Keep it no longer than until `expires_at`.
    access_token: String,
    /// Expiry of the access token; `null` if Salla did not say.
    expires_at: Option<DateTime<Utc>>,
}

/// Shows the access token of a merchant, for platforms where this program refreshes the tokens. The refresh token is never shown.
/// The caller needs a token with the scope `token`, which allows nothing else. The audit names each caller.
#[utoipa::path(get, path = "/merchants/{id}/token", operation_id = "show_token", tag = "merchants",
    params(("id" = i64, Path, description = "Merchant id", example = 1001)), responses(
    (status = 200, description = "The access token", body = AccessToken),
    (status = 400, description = "The id is not a number"),
    (status = 403, description = "The token lacks the scope `token`, or no token with this scope is configured"),
    (status = 404, description = "No merchant has this id"),
    (status = 409, description = "The merchant has no usable token; `detail` says what to do")))]
pub async fn show<R: MerchantRegistry>(
    State(onboarding): State<Arc<Onboarding<R>>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let id = merchant_id(&id)?;
    onboarding.register.merchant(id).await?.ok_or_else(|| no_merchant(id))?;
    let tokens = (onboarding.read_token.0)(id, by).await.map_err(|error| problem(id, error))?;
    let token = AccessToken { access_token: tokens.access.expose_secret().to_owned(), expires_at: tokens.expires_at };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(token)).into_response())
}

/// Turns an error into a problem that says how the caller can solve it.
fn problem(merchant: MerchantId, error: SourceError) -> Problem {
    match error {
        SourceError::Credentials(error) => error.into(),
        SourceError::NoToken(_) | SourceError::Unauthorized { .. } => Problem::new(
            StatusCode::CONFLICT,
            format!("{error}; let the merchant install the app again, or send new tokens"),
        ),
        SourceError::ClientCredentials(_) => {
            tracing::error!(merchant.id = merchant.0, error = %error, "a token could not be refreshed for a caller");
            let detail = "the token cannot be refreshed: correct salla.client_id and salla.client_secret";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
        error => {
            tracing::warn!(merchant.id = merchant.0, error = %error, "a token could not be refreshed for a caller");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the token could not be refreshed now; try again")
        }
    }
}
