//! What Salla says about an error.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Visitor};
use serde_json::{Value, json, value::RawValue};

use super::secret::masked;
use crate::{error_text::clip, json_object::object};

/// Said of an error that says nothing.
pub const UNKNOWN: &str = "an error of unknown shape";

/// An error: `{code, message}`, or the text of the token endpoint. Other members of any size and depth must not prevent
/// reading it, because it distinguishes a missing scope from an expired token.
pub enum ErrorMessage {
    Text(String),
    Error { code: Option<Value>, message: Option<String> },
    Unknown,
}

impl ErrorMessage {
    pub fn of(json: &str) -> Self {
        #[derive(Deserialize)]
        struct ErrorBody<'a> {
            #[serde(borrow)]
            code: Option<&'a RawValue>,
            #[serde(borrow)]
            message: Option<&'a RawValue>,
        }
        if json.starts_with('"') {
            return lossy(json).map_or(Self::Unknown, Self::Text);
        }
        let Some(wire) = object::<ErrorBody<'_>>(json).ok() else {
            return Self::Unknown;
        };
        let code = wire.code.and_then(|raw| match raw.get().as_bytes().first()? {
            b'"' => lossy(raw.get()).map(Value::String),
            b'-' | b'0'..=b'9' => serde_json::from_str(raw.get()).ok(),
            _ => None,
        });
        match (code, wire.message.and_then(|raw| lossy(raw.get()))) {
            (None, None) => Self::Unknown,
            (code, message) => Self::Error { code, message },
        }
    }

    /// The same as JSON, without the secrets of the request in any known form. Control characters are removed, so that
    /// they cannot hide a secret.
    pub fn without(self, secrets: &[&str]) -> Option<Box<RawValue>> {
        let clean = |mut text: String| {
            text.retain(|c| !c.is_control());
            masked(&text, secrets).into_owned()
        };
        let words = match self {
            Self::Text(text) => Value::String(clean(text)),
            Self::Error { code: Some(Value::String(code)), message } => {
                json!({"code": clean(code), "message": message.map(clean)})
            }
            Self::Error { code, message } => json!({"code": code, "message": message.map(clean)}),
            Self::Unknown => Value::String(UNKNOWN.to_owned()),
        };
        serde_json::value::to_raw_value(&words).ok()
    }

    /// For people.
    pub fn description(self) -> String {
        match self {
            Self::Text(text) => clip(&text),
            Self::Error { code, message } => {
                let code =
                    code.map_or_else(String::new, |code| code.as_str().map_or_else(|| code.to_string(), str::to_owned));
                clip(&format!("{code}: {}", message.unwrap_or_default()))
            }
            Self::Unknown => UNKNOWN.to_owned(),
        }
    }
}

/// A JSON string, in which half a character is a mark that one was there.
fn lossy(json: &str) -> Option<String> {
    struct Lossy;
    impl Visitor<'_> for Lossy {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    json.starts_with('"').then(|| serde_json::Deserializer::from_str(json).deserialize_bytes(Lossy).ok()).flatten()
}
