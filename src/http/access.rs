//! Who may see data and change state: whoever has the token, and without one only loopback.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Api, problem::Problem};
use crate::reconcile::ports::Ledger;

/// The rule.
#[derive(Debug, Clone)]
pub enum Access {
    /// The bearer token's SHA-256.
    Token([u8; 32]),
    /// No token is set and nobody else can connect.
    Open,
    /// No token is set, and anybody might connect.
    Closed,
}

impl Access {
    /// The rule for a listener on `address`.
    #[must_use]
    pub fn new(token: &SecretString, address: IpAddr) -> Self {
        if !token.expose_secret().is_empty() {
            Self::Token(Sha256::digest(token.expose_secret()).into())
        } else if address.is_loopback() {
            Self::Open
        } else {
            Self::Closed
        }
    }

    fn check(&self, authorization: Option<&[u8]>) -> Result<(), Problem> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "http.api_token is not set, and the listener is not on a loopback address",
            )),
            Self::Token(expected) => {
                let given = authorization
                    .and_then(|value| value.split_at_checked(7))
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
                    .map(|(_, token)| <[u8; 32]>::from(Sha256::digest(token)));
                if given.is_some_and(|given| bool::from(given.ct_eq(expected))) {
                    Ok(())
                } else {
                    Err(Problem::new(StatusCode::UNAUTHORIZED, "send the token of http.api_token as a bearer token"))
                }
            }
        }
    }
}

/// Lets a request pass, or answers it.
pub async fn require<L: Ledger>(State(api): State<Arc<Api<L>>>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    match api.access.check(authorization.map(|value| value.as_bytes())) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: &str, address: [u8; 4], header: Option<&str>) -> Option<StatusCode> {
        let access = Access::new(&SecretString::from(token), IpAddr::from(address));
        let refused = access.check(header.map(str::as_bytes)).err()?;
        Some(refused.into_response().status())
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        let everywhere = [0, 0, 0, 0];
        assert_eq!(check("s3cret", everywhere, Some("Bearer s3cret")), None);
        assert_eq!(check("s3cret", everywhere, Some("bearer s3cret")), None);
        for header in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Bearer s3cre"), Some("Basic s3cret")] {
            assert_eq!(check("s3cret", everywhere, header), Some(StatusCode::UNAUTHORIZED), "{header:?}");
        }
    }

    #[test]
    fn without_a_token_only_loopback_is_open() {
        assert_eq!(check("", [127, 0, 0, 1], None), None);
        assert_eq!(check("", [0, 0, 0, 0], None), Some(StatusCode::FORBIDDEN));
    }
}
