//! The ways in which a server fails.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// One answer that goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, these headers, this body.
    Answer {
        /// The status code.
        status: u16,
        /// Name and value.
        headers: Vec<(&'static str, String)>,
        /// The body, whatever it is.
        body: String,
    },
    /// The first half of the right body, as if it were all.
    Truncated,
    /// The first half of the right body, and then the connection is cut.
    CutOff,
    /// No answer for this long.
    Hang(Duration),
    /// No answer until the gate is open.
    Hold(Gate),
    /// A body that never ends, a little at a time.
    Endless,
    /// The page before the one that was asked for.
    PreviousPage,
    /// The first page, whichever was asked for.
    FirstPage,
    /// As if the access token had ended.
    TokenEnded,
}

/// How one record breaks each answer that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// The server answers 500.
    ServerError,
    /// A gateway answers 502, because the server behind it broke.
    BadGateway,
    /// A gateway answers 503, because the server behind it broke.
    Unavailable,
    /// The connection is cut.
    CutOff,
    /// The server answers 200, and the body says 500.
    FailedStatus,
    /// One text is cut inside a character.
    NotText,
    /// One text holds a raw control character.
    ControlCharacter,
    /// The row is not JSON.
    NotJson,
    /// It is larger than 8 MiB.
    TooLarge,
}

/// Stands for a byte that is not UTF-8, until the answer is sent.
pub(super) const NO_TEXT: char = '\u{e000}';

impl Breakage {
    /// The record's row, broken; an error: the whole answer is.
    pub(super) fn apply(self, row: &str) -> Result<String, Fault> {
        let inner = |text: &str| format!(r#"{{"broken":"{text}",{}"#, &row[1..]);
        Ok(match self {
            Self::ServerError => return Err(Fault::status(500)),
            Self::BadGateway => return Err(Fault::status(502)),
            Self::Unavailable => return Err(Fault::status(503)),
            Self::CutOff => return Err(Fault::CutOff),
            Self::FailedStatus => {
                return Err(Fault::ok(
                    "application/json",
                    r#"{"status":500,"success":false,"error":{"code":"error"}}"#,
                ));
            }
            Self::NotText => inner(&format!("a{NO_TEXT}")),
            Self::ControlCharacter => inner("a\nb"),
            Self::NotJson => format!("{{,{}", &row[1..]),
            Self::TooLarge => inner(&"x".repeat(9 << 20)),
        })
    }
}

/// What answers wait at; shut at first, and then open for good.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets waiting and later requests pass.
    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn wait(&self) {
        // No permit is ever added: the wait ends when the semaphore is closed.
        let _closed = self.0.acquire().await;
    }
}

impl Fault {
    /// A JSON error of this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: format!(r#"{{"status":{status},"success":false,"error":{{"code":"error","message":"simulated"}}}}"#),
        }
    }

    /// 404 as a record's own address answers it, with a number for a code.
    #[must_use]
    pub fn no_such_record() -> Self {
        Self::Answer {
            status: 404,
            headers: vec![("content-type", "application/json".to_owned())],
            body: r#"{"status":404,"success":false,"error":{"code":404,"message":"السجل غير موجود"}}"#.to_owned(),
        }
    }

    /// 429, with `Retry-After`.
    #[must_use]
    pub fn too_many(retry_after: &str) -> Self {
        Self::Answer {
            status: 429,
            headers: vec![("content-type", "application/json".to_owned()), ("retry-after", retry_after.to_owned())],
            body: r#"{"status":429,"success":false,"error":{"code":"too_many_requests","message":""}}"#.to_owned(),
        }
    }

    /// Status 200, with this content type and body.
    #[must_use]
    pub fn ok(content_type: &str, body: &str) -> Self {
        Self::Answer { status: 200, headers: vec![("content-type", content_type.to_owned())], body: body.to_owned() }
    }
}
