//! From what went wrong on the wire to what the application can decide on.

use std::time::Duration;

use reqwest_middleware::Error;
use reqwest_retry::RetryError;

use crate::{
    error_text::{causes, clip},
    reconcile::ports::SourceError,
};

/// An answer that came, but cannot be used. Worth another attempt unless it is too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Larger than is read.
    #[error("the answer is larger than {0} MiB")]
    TooLarge(usize),
    /// Not JSON by its own account.
    #[error("the answer is {0}, not JSON")]
    ContentType(&'static str),
    /// A status of success, and in the body another one.
    #[error("the status is 200, and the body says: {0}")]
    FailedStatus(u16),
    /// Not the envelope.
    #[error("the answer is not Salla's JSON: {0}")]
    Syntax(String),
}

/// The last attempt failed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the last attempt failed")]
pub struct LastAttempt(#[source] pub Error);

/// No request was sent: all that may be sent from one address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request limit of this IP address is used up")]
pub struct IpLimitExceeded(pub Duration);

/// No request was sent: Salla has not been answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open, and no request was sent")]
pub struct CircuitOpen;

/// The answer is not the requested list or record.
pub fn malformed(reason: &str) -> SourceError {
    SourceError::Malformed { reason: reason.to_owned() }
}

/// Whether Salla may have had the request: the connection stood, and then broke or stayed silent.
pub fn is_sent(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_builder() && !error.is_redirect()
}

/// What the middlewares gave up with.
pub fn into_source_error(error: &reqwest_middleware::Error) -> SourceError {
    match error {
        reqwest_middleware::Error::Reqwest(error) => {
            SourceError::Unavailable { reason: causes(error), per_row: is_sent(error) }
        }
        reqwest_middleware::Error::Middleware(error) => {
            if let Some(LastAttempt(last)) = error.downcast_ref() {
                into_source_error(last)
            } else if let Some(RetryError::WithRetries { err, .. } | RetryError::Error(err)) = error.downcast_ref() {
                into_source_error(err)
            } else if let Some(IpLimitExceeded(pause)) = error.downcast_ref() {
                SourceError::AddressLimit { pause: *pause }
            } else if error.is::<CircuitOpen>() {
                SourceError::NotAsked
            } else if let Some(broken @ Broken::FailedStatus(status)) = error.downcast_ref() {
                SourceError::Unavailable { reason: broken.to_string(), per_row: *status >= 500 }
            } else if let Some(broken) = error.downcast_ref::<Broken>() {
                malformed(&broken.to_string())
            } else {
                SourceError::Unavailable { reason: clip(&error.to_string()), per_row: false }
            }
        }
    }
}
