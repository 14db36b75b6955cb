//! The innermost middleware. It sends one request, reads the whole answer, and turns a broken
//! answer into an error. So the retry around it sees broken bodies as well as broken connections.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, header};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    large_responses::{Body, LARGE, LargeAnswers},
    request::Divisible,
};
use crate::{
    domain::MerchantId,
    reconcile::{Metrics, ports::RequestCount},
    salla::request_span,
    salla::wire::{
        envelope::Envelope,
        error::Broken,
        read_body::{BodyReader, MOST_BYTES},
        secret::{BEARER, without_secret},
    },
};

/// Properties of a request for the middlewares.
#[derive(Debug, Clone)]
pub struct Call {
    pub merchant: MerchantId,
    /// It is one record that is asked for.
    pub single: bool,
    /// The record was unreadable before, so another failure says nothing about the merchant.
    pub suspect: bool,
    /// The role of the request when a page is divided.
    pub divisible: Divisible,
    /// Salla counts it by the address that it comes from.
    pub counted_by_address: bool,
    /// The token that was sent before this one was renewed: Salla may repeat it.
    pub replaced: Option<SecretString>,
    /// Raised by every attempt.
    pub requests: RequestCount,
    /// Attempts at this one request.
    pub attempts: RequestCount,
}

/// Reads answers.
#[derive(Debug)]
pub struct ReadAnswer {
    pub metrics: Arc<Metrics>,
    pub large: LargeAnswers,
}

#[async_trait::async_trait]
impl Middleware for ReadAnswer {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let (mut earlier, mut merchant, mut replaced) = (0, None, None);
        if let Some(call) = extensions.get::<Call>() {
            replaced.clone_from(&call.replaced);
            merchant = Some(call.merchant);
            earlier = call.attempts.get();
            call.requests.add_one();
            call.attempts.add_one();
        }
        let span = request_span::of_request(request.method(), request.url(), earlier);
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix(BEARER)).map(SecretString::from);
        let began = Instant::now();
        let mut status = None;
        let read = async {
            let response = next.run(request, extensions).await?;
            status = Some(response.status());
            let body = self.body(response, merchant).await?;
            read(body, [bearer.as_ref(), replaced.as_ref()])
        }
        .instrument(span.clone())
        .await;
        request_span::answered(&span, status, read.as_ref().err().map(request_span::kind_of));
        self.metrics.request(status.map(|status| status.as_u16()), began.elapsed());
        read
    }
}

impl ReadAnswer {
    /// Reads the whole body. Beyond a certain size it waits for room.
    async fn body(&self, response: Response, merchant: Option<MerchantId>) -> Result<http::Response<Body>> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut reader = BodyReader::new(response);
        let mut room = None;
        if !reader.read(LARGE).await?
            && let Some(merchant) = merchant
        {
            room = self.large.room_for(merchant).await;
        }
        reader.read(MOST_BYTES).await?;
        let mut whole = http::Response::new(Body::new(reader.bytes, room));
        *whole.status_mut() = status;
        *whole.headers_mut() = headers;
        Ok(whole)
    }
}

/// Reads the envelope, and leaves it among the response's extensions.
///
/// `tokens`: those of the request, which Salla may repeat.
fn read(answer: http::Response<Body>, tokens: [Option<&SecretString>; 2]) -> Result<Response> {
    let (parts, mut body) = answer.into_parts();
    let (status, headers) = (parts.status, parts.headers);
    let tokens: Vec<&str> = tokens.into_iter().flatten().map(ExposeSecret::expose_secret).collect();
    // A row that repeats a token is stored without it.
    for token in &tokens {
        if let Some(masked) = without_secret(&body.bytes, token) {
            body.bytes = masked;
        }
    }
    // It stays as long as its rows do.
    body.bytes.shrink_to_fit();
    let envelope = envelope(&headers, Bytes::from_owner(body));
    let mut kept = http::Response::new(Vec::new());
    *kept.status_mut() = status;
    *kept.headers_mut() = headers;
    match envelope {
        Ok(mut envelope) => {
            envelope.forget(&tokens);
            let failed = envelope.failed_status().filter(|code| *code >= 500 || *code == 408);
            if let Some(code) = failed.filter(|_| status.is_success()) {
                return Err(Error::middleware(Broken::FailedStatus(code)));
            }
            kept.extensions_mut().insert(Arc::new(envelope));
        }
        Err(broken) if status.is_success() => return Err(Error::middleware(broken)),
        // An error's status says enough.
        Err(_) => {}
    }
    Ok(kept.into())
}

fn envelope(headers: &HeaderMap, body: Bytes) -> std::result::Result<Envelope, Broken> {
    let content_type =
        headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    if let Some(content_type) = content_type.filter(|kind| !kind.contains("json")) {
        // It is the server's own word, and may be a secret that it was sent.
        let known = ["text/html", "text/plain", "text/xml", "application/xml", "application/octet-stream"];
        let known = known.into_iter().find(|known| content_type.starts_with(known));
        return Err(Broken::ContentType(known.unwrap_or("of another kind")));
    }
    Envelope::read(body).map_err(|error| {
        // About JSON of another shape the reader quotes what it found, which may be a customer's.
        let place = format!("line {} column {}", error.line(), error.column());
        Broken::Syntax(if error.is_data() { format!("no envelope at {place}") } else { error.to_string() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn html_is_named_for_what_it_is() {
        let broken =
            envelope(&headers(&[(header::CONTENT_TYPE, "text/html; charset=utf-8")]), Bytes::from_static(b"<html>"));
        assert_eq!(broken.unwrap_err().to_string(), "the answer is text/html, not JSON");
    }

    #[test]
    fn truncated_json_is_broken() {
        assert!(matches!(
            envelope(&HeaderMap::new(), Bytes::from_static(b"{\"data\":[{\"id\":1}")),
            Err(Broken::Syntax(_))
        ));
        let quoted =
            envelope(&HeaderMap::new(), Bytes::from_static(b"{\"success\":\"a customer\"}")).unwrap_err().to_string();
        assert!(quoted.ends_with("no envelope at line 1 column 23"), "{quoted}");
    }
}
