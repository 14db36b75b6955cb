//! A collector of traces on loopback, which reads what real ones read.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use parking_lot::Mutex;
use prost::Message;

/// A collector, with the spans that have arrived.
pub struct Collector {
    pub endpoint: String,
    received: Arc<Mutex<Vec<Received>>>,
}

/// A span, and of whom it is.
#[derive(Debug, Clone)]
pub struct Received {
    pub service: String,
    pub span: Span,
}

impl Collector {
    pub async fn start() -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&received));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, received }
    }

    pub fn spans(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

async fn receive(State(received): State<Arc<Mutex<Vec<Received>>>>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for spans in request.resource_spans {
        let resource = spans.resource.unwrap_or_default();
        let service = text(&resource.attributes, "service.name");
        let arrived = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        received.lock().extend(arrived.map(|span| Received { service: service.clone(), span }));
    }
    StatusCode::OK
}

impl Received {
    /// An attribute, as text; empty if the span lacks it.
    pub fn attribute(&self, key: &str) -> String {
        text(&self.span.attributes, key)
    }
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(holds)) => holds.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
