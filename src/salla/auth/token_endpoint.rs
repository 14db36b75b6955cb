//! The token endpoint. A refresh token is valid for one use, and a second use revokes the
//! installation. So a request is sent once and is never retried. [`Refresh`] lists its outcomes.

use std::{collections::HashMap, fmt, time::Duration};

use chrono::{DateTime, Datelike as _, Utc};
use reqwest::{Client, Method, Response, StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tracing::Instrument;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::salvage::salvaged;
use crate::{
    error_text::causes,
    json_object::object,
    reconcile::ports::Tokens,
    response_headers::retry_after,
    salla::{
        request_span,
        wire::{
            envelope::Envelope,
            error::into_source_error,
            read_body::body_so_far,
            secret::wiped,
            values::{integer, present, scalar},
        },
    },
};

/// Above this a number of seconds is an instant, below it a span.
const EARLIEST_INSTANT: i64 = 1_000_000_000;

const FORM: &str = "application/x-www-form-urlencoded";

/// What became of a refresh.
#[derive(Debug)]
pub enum Refresh {
    /// The access token is new. So is the refresh token, unless the answer has none.
    Renewed(Tokens),
    /// Salla refuses the refresh token for good.
    Refused(String),
    /// The refresh token was certainly not used.
    NotUsed {
        /// Why.
        reason: String,
        /// The wait that the endpoint asks for.
        retry_after: Option<Duration>,
    },
    /// Nor here: this app's own id or secret is missing or wrong.
    Misconfigured(String),
    /// It may have been used, and the answer is lost: it must not be sent again.
    Unknown(String),
}

/// The endpoint and this app's name at it.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    pub http: Client,
    pub url: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    pub timeout: Duration,
}

impl TokenEndpoint {
    /// Uses a refresh token, once.
    pub async fn refresh(&self, refresh_token: &SecretString, now: DateTime<Utc>) -> Refresh {
        if self.client_id.is_empty() || self.client_secret.expose_secret().is_empty() {
            return Refresh::Misconfigured("salla.client_id and salla.client_secret are not set".to_owned());
        }
        let form = wiped(form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
        ]));
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, FORM).body(form).timeout(self.timeout);
        let span = request_span::of_request(&Method::POST, &self.url, 0);
        let sent = request.send().instrument(span.clone()).await;
        request_span::answered(
            &span,
            sent.as_ref().ok().map(Response::status),
            sent.as_ref().err().map(request_span::kind_of_transport),
        );
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Refresh::NotUsed { reason: causes(&error), retry_after: None };
            }
            Err(error) => return Refresh::Unknown(causes(&error)),
        };
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let (body, broken) = body_so_far(response).await;
        let body = Zeroizing::new(body);
        let text = readable(&body);
        // New tokens cannot be requested again, so they count in any readable answer.
        let read = tokens(&text, now).or_else(|| salvaged(&text, now));
        let read = read.or_else(|| kept(status, &text, refresh_token, now).filter(|_| broken.is_none()));
        if let Some(tokens) = read.filter(|tokens| status.is_success() || is_new(tokens, refresh_token)) {
            return Refresh::Renewed(tokens);
        }
        if let Some(error) = broken {
            return Refresh::Unknown(into_source_error(&error).to_string());
        }
        let sent = [refresh_token.expose_secret(), self.client_secret.expose_secret()];
        outcome(status, &text, &sent, retry_after)
    }
}

/// Returns the readable part of an answer, from its first brace on. Spaces replace control
/// characters, and a mark replaces bytes that are not UTF-8. An answer with a byte order mark of
/// UTF-16 is decoded as UTF-16.
fn readable(body: &[u8]) -> Zeroizing<String> {
    let decoded = Zeroizing::new(match body {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => String::from_utf8_lossy(body).into_owned(),
    });
    let begin = decoded.find('{').unwrap_or(0);
    Zeroizing::new(decoded[begin..].chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

fn utf16(bytes: &[u8], read: fn([u8; 2]) -> u16) -> String {
    let units: Vec<u16> = bytes.as_chunks().0.iter().map(|unit| read(*unit)).collect();
    String::from_utf16_lossy(&units)
}

/// Whether the refresh token is another one than was sent: an error may repeat the request.
fn is_new(tokens: &Tokens, sent: &SecretString) -> bool {
    tokens.refresh.as_ref().is_some_and(|refresh| refresh.expose_secret() != sent.expose_secret())
}

/// The form as it is sent. It is written into room for its longest spelling, so that it is never moved.
fn form(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let longest = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut text = Zeroizing::new(String::with_capacity(longest));
    form_urlencoded::Serializer::new(&mut *text).extend_pairs(fields);
    text
}

/// What an answer without tokens says. `sent` are the secrets of the request, of which it may not speak.
fn outcome(status: StatusCode, body: &str, sent: &[&str], retry_after: Option<Duration>) -> Refresh {
    if status.is_success() {
        return Refresh::Unknown("the answer contains no tokens".to_owned());
    }
    // Not as `Envelope::read` does, which would keep the body: it may repeat what was sent.
    let mut envelope = object::<Envelope<IgnoredAny>>(body).ok();
    if let Some(envelope) = &mut envelope {
        envelope.forget(sent);
    }
    let description = envelope.as_ref().map_or_else(|| status.as_str().to_owned(), Envelope::description);
    // RFC 6749, 5.2: the word of an error and the statuses that it comes with. Any other status is that of whatever
    // broke, wherever on the way that was.
    let word = envelope.and_then(|envelope| envelope.error_word());
    match (status, word.as_deref()) {
        (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, Some("invalid_grant")) => Refresh::Refused(description),
        (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, Some("invalid_client")) => {
            Refresh::Misconfigured(description)
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            Refresh::NotUsed { reason: "429 from the token endpoint".to_owned(), retry_after }
        }
        _ => Refresh::Unknown(format!("{status} from the token endpoint: {description}")),
    }
}

/// A new access token beside the refresh token that was sent: an answer without a refresh token leaves it valid
/// (RFC 6749, 6).
fn kept(status: StatusCode, body: &str, sent: &SecretString, now: DateTime<Utc>) -> Option<Tokens> {
    let tokens = granted(body, now).filter(|tokens| status.is_success() && tokens.refresh.is_none())?;
    Some(Tokens { refresh: Some(sent.clone()), ..tokens })
}

/// Both tokens of the answer, or `None`.
fn tokens(body: &str, now: DateTime<Utc>) -> Option<Tokens> {
    granted(body, now).filter(|tokens| tokens.refresh.is_some())
}

/// Tokens as Salla hands them out. `expires_in`, `expires` as a span, and `expires` as an instant are told apart by
/// their size.
pub fn granted(json: &str, now: DateTime<Utc>) -> Option<Tokens> {
    // Of several values the first one counts, and what follows it does not.
    let first: &RawValue = serde_json::Deserializer::from_str(json).into_iter().next()?.ok()?;
    let fields: Fields<'_> = serde_json::from_str(first.get()).ok()?;
    let token = |name| Some(SecretString::from(scalar(fields.get(name)?)?.trim().to_owned()));
    let Some(access) = token("access_token") else {
        return granted_within(fields.get("data")?.get(), now);
    };
    let refresh = present(fields.get("refresh_token")).map(|_| token("refresh_token"));
    let refresh = match refresh {
        Some(None) => return None,
        refresh => refresh.flatten(),
    };
    let expiry = present(fields.get("expires_in")).or(present(fields.get("expires")));
    let whole = |expiry| scalar(expiry)?.parse::<f64>().ok().filter(|seconds| seconds.fract() == 0.0);
    let seconds = expiry.and_then(|expiry| integer(expiry).or_else(|| whole(expiry).map(|seconds| seconds as i64)));
    // Tokens must not be lost for an end that makes no sense, nor renewed at every turn.
    let expires_at = seconds.filter(|seconds| *seconds > 0).and_then(|seconds| {
        if seconds >= EARLIEST_INSTANT {
            DateTime::from_timestamp(seconds, 0)
        } else {
            now.checked_add_signed(chrono::TimeDelta::try_seconds(seconds)?)
        }
    });
    let expires_at = expires_at.filter(|end: &DateTime<Utc>| (1970..=9999).contains(&end.year()));
    Tokens::new(access, refresh, expires_at).ok()
}

/// One level of an envelope around the tokens.
fn granted_within(json: &str, now: DateTime<Utc>) -> Option<Tokens> {
    let fields: Fields<'_> = serde_json::from_str(json).ok()?;
    fields.get("access_token").and_then(|_| granted(json, now))
}

/// The fields of an object that are looked at. Of several of one name the last one counts.
#[derive(Debug, Default)]
struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = HashMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    fields.insert(name, value);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::from_timestamp(1_790_000_000, 0).unwrap();

    fn of(status: u16, body: &str) -> Refresh {
        answered(status, body.as_bytes())
    }

    fn answered(status: u16, body: &[u8]) -> Refresh {
        let (status, text) = (StatusCode::from_u16(status).unwrap(), readable(body));
        let sent = SecretString::from("ory_rt_1");
        let read = tokens(&text, NOW).or_else(|| kept(status, &text, &sent, NOW));
        match read.filter(|tokens| status.is_success() || is_new(tokens, &sent)) {
            Some(tokens) => Refresh::Renewed(tokens),
            None => outcome(status, &text, &["ory_rt_1"], None),
        }
    }

    /// Tokens that are lost cannot be asked for again.
    #[test]
    fn an_answer_is_read_as_generously_as_possible() {
        let good = r#"{"access_token":"a","refresh_token":"r","expires_in":9}"#;
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(good.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        for (status, body) in [
            (200, [b"\xef\xbb\xbf", good.as_bytes()].concat()),
            (200, utf16),
            (200, format!(")]}}',\n{good}\n<!-- x -->").into_bytes()),
            (200, br#"{"scope":"a","scope":"b","access_token":"a","refresh_token":"r"}"#.to_vec()),
            (200, b"{\"scope\":\"a\nb\",\"access_token\":\"a\",\"refresh_token\":\"r\"}".to_vec()),
            (200, b"{\"scope\":\"\xe3\",\"access_token\":\"a\",\"refresh_token\":\"r\"}".to_vec()),
            (200, format!(r#"{{"status":200,"success":true,"data":{good}}}"#).into_bytes()),
            (500, good.as_bytes().to_vec()),
        ] {
            let shown = String::from_utf8_lossy(&body).into_owned();
            assert!(matches!(answered(status, &body), Refresh::Renewed(_)), "{status} {shown}");
        }
        let echo = r#"{"access_token":"a","refresh_token":"ory_rt_1"}"#;
        assert!(matches!(of(500, echo), Refresh::Unknown(_)), "an error that repeats the request");
        let marked = [b"\xef\xbb\xbf", &br#"{"error":"invalid_client"}"#[..]].concat();
        assert!(matches!(answered(401, &marked), Refresh::Misconfigured(_)));
        assert!(matches!(of(200, "{\"access_token\":\"a\",\"refresh_to"), Refresh::Unknown(_)), "cut off");
    }

    #[test]
    fn three_ways_to_say_when_a_token_ends() {
        for (expiry, unix) in [
            (r#""expires_in":1209599"#, Some(1_791_209_599)),
            (r#""expires":1209599"#, Some(1_791_209_599)),
            (r#""expires":1791209599"#, Some(1_791_209_599)),
            (r#""expires":"1791209599""#, Some(1_791_209_599)),
            (r#""expires_in":1209599.0"#, Some(1_791_209_599)),
            (r#""expires_in":0.5"#, None),
            (r#""expires":{},"expires_in":null"#, None),
            (r#""expires":9223372036854775807"#, None),
            (r#""expires_in":0"#, None),
            (r#""expires_in":-2592000"#, None),
        ] {
            let body = format!(r#"{{"access_token":"a","refresh_token":"r",{expiry}}}"#);
            let Refresh::Renewed(tokens) = of(200, &body) else {
                panic!("{body}");
            };
            assert_eq!(tokens.expires_at.map(|end| end.timestamp()), unix, "{body}");
        }
    }

    #[test]
    fn the_urlencoded_form_is_written_in_place() {
        let secret = "a&b=c d/é+%";
        let text = form(&[("refresh_token", secret), ("client_id", "1")]);
        assert!(text.starts_with("refresh_token=a%26b%3Dc+d%2F%C3%A9%2B%25&client_id=1"), "{}", *text);
        let longest = form(&[("refresh_token", &"%".repeat(5000))]);
        assert!(longest.len() <= longest.capacity() && longest.capacity() < 15_100, "it grew: {}", longest.capacity());
    }

    #[test]
    fn answers_replace_or_keep_the_refresh_token() {
        assert!(matches!(of(401, r#"{"error":"invalid_grant","error_description":"reused"}"#), Refresh::Refused(_)));
        assert!(matches!(of(401, r#"{"error":"invalid_client"}"#), Refresh::Misconfigured(_)));
        assert!(matches!(of(400, r#"{"error":{"code":"invalid_grant","message":"m"}}"#), Refresh::Refused(_)));
        assert!(matches!(of(500, r#"{"error":"invalid_grant"}"#), Refresh::Unknown(_)), "of something on the way");
        assert!(matches!(of(401, r#"{"error":"no invalid_client cache"}"#), Refresh::Unknown(_)), "another word");
        assert!(matches!(of(429, ""), Refresh::NotUsed { .. }));
        assert!(matches!(of(500, "<html>"), Refresh::Unknown(_)));
        let Refresh::Renewed(kept) = of(200, r#"{"access_token":"a"}"#) else {
            panic!("the refresh token stays valid")
        };
        assert_eq!(kept.refresh.unwrap().expose_secret(), "ory_rt_1");
        assert!(matches!(of(500, r#"{"access_token":"a"}"#), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"{"access_token":"a","refresh_token":""}"#), Refresh::Unknown(_)));
        assert!(matches!(of(200, "{"), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"["a","r",null,3600]"#), Refresh::Unknown(_)), "a list is no object");
        assert!(matches!(of(400, r#"[null,null,null,"invalid_grant"]"#), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"{"access_token":"a b","refresh_token":"r"}"#), Refresh::Unknown(_)));
    }

    #[test]
    fn every_encoding_of_a_secret_is_masked() {
        let Refresh::Unknown(reason) = of(418, r#"{"error":"no \u006fry_rt_1 here"}"#) else {
            panic!("what is not known is unknown")
        };
        assert!(reason.ends_with("no [secret] here"), "{reason}");
    }
}
