//! A server that repeats recorded answers.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderName, HeaderValue, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::item::Params;

/// A running server with recorded answers; it ends when this is dropped.
#[derive(Debug)]
pub struct Replay {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Replay {
    /// Serves a file of `check --merchant ID --record FILE` on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(recording: Value) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::new(recording));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the replayed Salla ended: {error}");
            }
        });
        Ok(Self { address, server })
    }

    /// What belongs into `salla.api_url`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/admin", self.address)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The answer that was recorded for the same path and the same parameters. Instants differ from one probe to the next.
async fn answer(State(recording): State<Arc<Value>>, uri: Uri, Query(query): Query<Params>) -> Response {
    let is_same = |answer: &&Value| {
        let recorded = answer["query"].as_object();
        let path = answer["path"].as_str().is_some_and(|path| uri.path() == format!("/admin/{path}"));
        let same = |(name, value): (&String, &String)| {
            recorded
                .and_then(|recorded| recorded.get(name))
                .is_some_and(|recorded| name == "updated_at_min" || recorded.as_str() == Some(value))
        };
        path && recorded.map(serde_json::Map::len) == Some(query.len()) && query.iter().all(same)
    };
    let Some(answer) = recording["answers"].as_array().into_iter().flatten().find(is_same) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let mut response = (status, answer["body"].to_string()).into_response();
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        let name = HeaderName::try_from(name.as_str());
        let value = HeaderValue::try_from(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
