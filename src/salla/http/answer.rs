//! Accepts a response as an answer, or says what is wrong with it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::StatusCode;

use super::retry::StopRetrying;
use crate::{
    reconcile::ports::SourceError,
    response_headers::retry_after,
    salla::wire::{
        date,
        envelope::Envelope,
        error::malformed,
        refusal::{description, is_no_such_record},
    },
};

/// An answer of status 200.
#[derive(Debug)]
pub(in crate::salla) struct Answer {
    pub envelope: Envelope,
    /// What the server's clock showed.
    pub served_at: Option<DateTime<Utc>>,
}

/// Accepts a response, or says what is wrong with it.
pub fn accept(mut response: reqwest::Response) -> Result<Answer, SourceError> {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS || response.extensions().get() == Some(&StopRetrying::Pause) {
        return Err(SourceError::RateLimited { retry_after: retry_after(response.headers()) });
    }
    let reason = format!("{status}: {}", description(&response));
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        let per_row = status.is_server_error() && retry_after(response.headers()).is_none();
        return Err(SourceError::Unavailable { reason, per_row });
    }
    if status.is_redirection() {
        return Err(SourceError::Redirected { status: status.as_u16() });
    }
    if let StatusCode::NOT_FOUND | StatusCode::GONE = status
        && is_no_such_record(&response)
    {
        // Any other envelope is a proxy's word, or that of a wrong address.
        return Err(SourceError::NotFound { reason });
    }
    if !status.is_success() {
        return Err(SourceError::Rejected { reason });
    }
    let envelope = response
        .extensions_mut()
        .remove::<Arc<Envelope>>()
        .and_then(Arc::into_inner)
        .ok_or_else(|| malformed("the answer has no envelope"))?;
    if envelope.failed_status() == Some(StatusCode::TOO_MANY_REQUESTS.as_u16()) {
        return Err(SourceError::RateLimited { retry_after: retry_after(response.headers()) });
    }
    if let Some(contradiction) = envelope.contradiction() {
        return Err(SourceError::Rejected { reason: format!("{contradiction}: {}", envelope.description()) });
    }
    Ok(Answer { envelope, served_at: date::of_answer(response.headers()) })
}
