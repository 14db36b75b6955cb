//! A receiver of events on loopback, which checks signatures as a real one does.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;

/// What the program and the receiver know.
pub const SECRET: &str = "webhook-secret-canary";

/// How it answers.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(StatusCode),
    /// With what it wants to wait, in the header `retry-after`.
    Busy(&'static str),
    /// To another place.
    Redirect(String),
    /// Not at all.
    Hang,
    /// 200, and a body without an end.
    Endless,
}

/// An event that arrived with a right signature.
#[derive(Debug, Clone)]
pub struct Event {
    pub headers: HeaderMap,
    pub body: Value,
    /// Whether it was taken in.
    pub taken: bool,
}

impl Event {
    pub fn merchant(&self) -> i64 {
        self.body["data"]["merchant_id"].as_i64().unwrap()
    }

    pub fn run_id(&self) -> String {
        self.body["data"]["run_id"].as_str().unwrap().to_owned()
    }
}

type Rule = Box<dyn FnMut(&Value) -> Answer + Send>;

struct Desk {
    events: Vec<Event>,
    script: VecDeque<Answer>,
    rule: Rule,
    /// Requests with a wrong signature, or without an event.
    wrong: Vec<String>,
}

pub struct Receiver {
    pub address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
}

impl Receiver {
    /// One that takes everything in.
    pub async fn start() -> Self {
        let desk = Desk {
            events: Vec::new(),
            script: VecDeque::new(),
            rule: Box::new(|_| Answer::Status(StatusCode::NO_CONTENT)),
            wrong: Vec::new(),
        };
        let desk = Arc::new(Mutex::new(desk));
        let router = Router::new().route("/runs", post(receive)).with_state(Arc::clone(&desk));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, desk }
    }

    pub fn url(&self) -> String {
        format!("http://{}/runs", self.address)
    }

    /// So it answers first.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.desk.lock().script.extend(answers);
    }

    /// So it answers from now on.
    pub fn answer_by(&self, rule: impl FnMut(&Value) -> Answer + Send + 'static) {
        self.desk.lock().rule = Box::new(rule);
    }

    /// All that arrived, taken in or not; nothing else has.
    pub fn arrived(&self) -> Vec<Event> {
        let desk = self.desk.lock();
        assert!(desk.wrong.is_empty(), "{:?}", desk.wrong);
        desk.events.clone()
    }

    /// Those that were taken in.
    pub fn taken(&self) -> Vec<Event> {
        self.arrived().into_iter().filter(|event| event.taken).collect()
    }
}

async fn receive(State(desk): State<Arc<Mutex<Desk>>>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = {
        let mut desk = desk.lock();
        let event: Option<Value> = serde_json::from_slice(&body).ok();
        let Some(event) = event.filter(|_| is_signed(&headers, &body)) else {
            desk.wrong.push(format!("{headers:?} {body:?}"));
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let scripted = desk.script.pop_front();
        let answer = scripted.unwrap_or_else(|| (desk.rule)(&event));
        let taken = match &answer {
            Answer::Status(status) => status.is_success(),
            Answer::Endless => true,
            Answer::Busy(_) | Answer::Redirect(_) | Answer::Hang => false,
        };
        desk.events.push(Event { headers, body: event, taken });
        answer
    };
    match answer {
        Answer::Status(status) => status.into_response(),
        Answer::Busy(after) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", after)]).into_response(),
        Answer::Redirect(place) => (StatusCode::TEMPORARY_REDIRECT, [("location", place)]).into_response(),
        Answer::Hang => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::OK.into_response()
        }
        Answer::Endless => {
            let piece = || async { Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 65536])), ())) };
            // A gigabyte, for a client that reads it.
            let pieces = futures::stream::unfold((), move |()| piece());
            Body::from_stream(futures::StreamExt::take(pieces, 16384)).into_response()
        }
    }
}

/// Checks the signature as Standard Webhooks defines it, with separate code.
fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(body);
    let signature = header("webhook-signature").strip_prefix("v1,").and_then(|code| STANDARD.decode(code).ok());
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(&signed);
    let age = chrono::Utc::now().timestamp() - header("webhook-timestamp").parse::<i64>().unwrap_or(0);
    age.abs() < 60 && signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok())
}
