//! The token endpoint. A refresh token is good for one use, and a second use revokes the installation:
//! a request is sent once, by nobody's retry, and its outcome is one of four.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
use reqwest::{Client, Method, Response, StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tracing::Instrument;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    answer::whole_body,
    error::spent,
    secret::wiped,
    trace,
    wire::{Envelope, integer, present},
};
use crate::{
    foreign::{causes, object, retry_after},
    reconcile::ports::Tokens,
};

/// Above this a number of seconds is an instant, below it a span.
const EARLIEST_INSTANT: i64 = 1_000_000_000;

const FORM: &str = "application/x-www-form-urlencoded";

/// What became of a refresh.
#[derive(Debug)]
pub enum Refresh {
    /// Both tokens are new.
    Renewed(Tokens),
    /// Salla refuses the refresh token for good.
    Refused(String),
    /// The refresh token was certainly not used.
    NotUsed {
        /// Why.
        reason: String,
        /// How long the endpoint wants to be left alone.
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
        let span = trace::of_request(&Method::POST, &self.url, 0);
        let sent = request.send().instrument(span.clone()).await;
        trace::answered(
            &span,
            sent.as_ref().ok().map(Response::status),
            sent.as_ref().err().map(trace::kind_of_transport),
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
        match whole_body(response).await.map(Zeroizing::new) {
            Ok(body) => {
                let text = std::str::from_utf8(&body).unwrap_or_default();
                let sent = [refresh_token.expose_secret(), self.client_secret.expose_secret()];
                outcome(status, text, &sent, retry_after, now)
            }
            Err(error) => Refresh::Unknown(spent(&error).to_string()),
        }
    }
}

/// The form as it is sent. It is written into room for its longest spelling, so that it is never moved.
fn form(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let longest = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut text = Zeroizing::new(String::with_capacity(longest));
    form_urlencoded::Serializer::new(&mut *text).extend_pairs(fields);
    text
}

/// `sent` are the secrets of the request, of which the answer may not speak.
fn outcome(
    status: StatusCode,
    body: &str,
    sent: &[&str],
    retry_after: Option<Duration>,
    now: DateTime<Utc>,
) -> Refresh {
    if status.is_success() {
        return tokens(body, now)
            .map_or_else(|| Refresh::Unknown("the answer holds no tokens".to_owned()), Refresh::Renewed);
    }
    // Not as `Envelope::read` does, which would keep the body: it may repeat what was sent.
    let mut envelope = object::<Envelope<IgnoredAny>>(body).ok();
    if let Some(envelope) = &mut envelope {
        envelope.forget(sent);
    }
    let complaint = envelope.as_ref().map_or_else(|| status.as_str().to_owned(), Envelope::complaint);
    // RFC 6749, 5.2: the word of an error and the statuses that it comes with. Any other status is that of whatever
    // broke, wherever on the way that was.
    let word = envelope.and_then(|envelope| envelope.error_word());
    match (status, word.as_deref()) {
        (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, Some("invalid_grant")) => Refresh::Refused(complaint),
        (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED, Some("invalid_client")) => {
            Refresh::Misconfigured(complaint)
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            Refresh::NotUsed { reason: "429 from the token endpoint".to_owned(), retry_after }
        }
        _ => Refresh::Unknown(format!("{status} from the token endpoint: {complaint}")),
    }
}

/// The answer's tokens: both, or it is none.
fn tokens(body: &str, now: DateTime<Utc>) -> Option<Tokens> {
    granted(body, now).filter(|tokens| tokens.refresh.is_some())
}

/// Tokens as Salla hands them out. `expires_in`, `expires` as a span, and `expires` as an instant are told apart by
/// their size.
pub fn granted(json: &str, now: DateTime<Utc>) -> Option<Tokens> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        access_token: SecretString,
        refresh_token: Option<SecretString>,
        #[serde(borrow)]
        expires: Option<&'a RawValue>,
        #[serde(borrow)]
        expires_in: Option<&'a RawValue>,
    }
    let wire: Wire<'_> = object(json).ok()?;
    let seconds = present(wire.expires_in).or(present(wire.expires)).and_then(integer);
    // Tokens must not be lost for an end that makes no sense, nor renewed at every turn.
    let expires_at = seconds.filter(|seconds| *seconds > 0).and_then(|seconds| {
        if seconds >= EARLIEST_INSTANT {
            DateTime::from_timestamp(seconds, 0)
        } else {
            now.checked_add_signed(chrono::TimeDelta::try_seconds(seconds)?)
        }
    });
    let expires_at = expires_at.filter(|end: &DateTime<Utc>| (1970..=9999).contains(&end.year()));
    Tokens::new(wire.access_token, wire.refresh_token, expires_at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::from_timestamp(1_790_000_000, 0).unwrap();

    fn of(status: u16, body: &str) -> Refresh {
        outcome(StatusCode::from_u16(status).unwrap(), body, &["ory_rt_1"], None, NOW)
    }

    #[test]
    fn three_ways_to_say_when_a_token_ends() {
        for (expiry, unix) in [
            (r#""expires_in":1209599"#, Some(1_791_209_599)),
            (r#""expires":1209599"#, Some(1_791_209_599)),
            (r#""expires":1791209599"#, Some(1_791_209_599)),
            (r#""expires":"1791209599""#, Some(1_791_209_599)),
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
    fn the_form_is_written_where_it_stands() {
        let secret = "a&b=c d/é+%";
        let text = form(&[("refresh_token", secret), ("client_id", "1")]);
        assert!(text.starts_with("refresh_token=a%26b%3Dc+d%2F%C3%A9%2B%25&client_id=1"), "{}", *text);
        let longest = form(&[("refresh_token", &"%".repeat(5000))]);
        assert!(longest.len() <= longest.capacity() && longest.capacity() < 15_100, "it grew: {}", longest.capacity());
    }

    #[test]
    fn what_an_answer_says_about_the_refresh_token() {
        assert!(matches!(of(401, r#"{"error":"invalid_grant","error_description":"reused"}"#), Refresh::Refused(_)));
        assert!(matches!(of(401, r#"{"error":"invalid_client"}"#), Refresh::Misconfigured(_)));
        assert!(matches!(of(400, r#"{"error":{"code":"invalid_grant","message":"m"}}"#), Refresh::Refused(_)));
        assert!(matches!(of(500, r#"{"error":"invalid_grant"}"#), Refresh::Unknown(_)), "of something on the way");
        assert!(matches!(of(401, r#"{"error":"no invalid_client cache"}"#), Refresh::Unknown(_)), "another word");
        assert!(matches!(of(429, ""), Refresh::NotUsed { .. }));
        assert!(matches!(of(500, "<html>"), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"{"access_token":"a"}"#), Refresh::Unknown(_)));
        assert!(matches!(of(200, "{"), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"["a","r",null,3600]"#), Refresh::Unknown(_)), "a list is no object");
        assert!(matches!(of(400, r#"[null,null,null,"invalid_grant"]"#), Refresh::Unknown(_)));
        assert!(matches!(of(200, r#"{"access_token":"a b","refresh_token":"r"}"#), Refresh::Unknown(_)));
    }

    #[test]
    fn what_was_sent_is_not_repeated_however_it_is_spelt() {
        let Refresh::Unknown(reason) = of(418, r#"{"error":"no \u006fry_rt_1 here"}"#) else {
            panic!("what is not known is unknown")
        };
        assert!(reason.ends_with("no [secret] here"), "{reason}");
    }
}
