//! Errors as `application/problem+json` (RFC 9457). No text of the database's gets out.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::reconcile::ports::{CredentialError, DatabaseError};

pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the caller sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    more: Map<String, Value>,
    /// In seconds.
    retry_after: Option<u64>,
}

/// A problem as defined by RFC 9457. It may have more members, such as `run_id` of a conflicting run.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Members<'a> {
    /// Always `about:blank`: the status tells the type.
    r#type: &'static str,
    /// HTTP status in words.
    title: &'a str,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Message with the next step.
    detail: &'a str,
    #[serde(flatten)]
    #[schema(ignore)]
    more: &'a Map<String, Value>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), more: Map::new(), retry_after: None }
    }

    /// Seconds after which the caller may try again.
    pub fn too_many(detail: impl Into<String>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the log has details")
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let members = Members {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            more: &self.more,
        };
        let mut response = (self.status, axum::Json(members)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Marks an answer that is a page, because a person reads it.
#[derive(Debug, Clone, Copy)]
pub struct Shown;

/// Makes a problem of every error that some layer or extractor answered in its own way.
pub async fn everywhere(response: Response) -> Response {
    let status = response.status();
    if response.extensions().get::<Shown>().is_some() {
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !(status.is_client_error() || status.is_server_error()) || kind == Some(PROBLEM_JSON.as_bytes()) {
        return response;
    }
    let detail = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
        StatusCode::SERVICE_UNAVAILABLE => "no answer in time; try again",
        _ => "the request cannot be read",
    };
    Problem::new(status, detail).into_response()
}

impl From<CredentialError> for Problem {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Store(error) => error.into(),
            CredentialError::OtherMerchant { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            CredentialError::Unavailable { .. } => {
                tracing::error!(error = %error, "request failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "token store unavailable; try again")
            }
            CredentialError::Unreadable { .. } => {
                tracing::error!(error = %error, "request failed");
                Self::internal()
            }
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(error = %error, "request failed");
        match error {
            DatabaseError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again")
            }
            DatabaseError::Unusable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.summary()),
            DatabaseError::Refused(_) | DatabaseError::LeaseLost(_) => Self::internal(),
        }
    }
}
