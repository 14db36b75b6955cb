//! Who has signed in. A session is a cookie that names a token of the API and proves to know it, until some hours later:
//! every process can read it and none keeps it. Another token in the token's place ends its sessions.

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::http::tokens::{Token, Tokens};

const COOKIE: &str = "salla_reconciler_session";

/// A night's watch.
const LASTS: TimeDelta = TimeDelta::hours(12);

/// A session that holds, and the token of the API that it was opened with.
#[derive(Debug)]
pub struct Session<'a> {
    pub token: &'a Token,
    /// In the forms of its pages, which no page of another site can read.
    pub form_key: String,
}

/// The cookie of a new session.
pub fn begin(token: &Token, now: DateTime<Utc>, headers: &HeaderMap) -> HeaderValue {
    let expires = (now + LASTS).timestamp();
    let seal = seal(token, &["session", &expires.to_string()]);
    set_cookie(&format!("{}.{expires}.{seal}", token.name), LASTS.num_seconds(), headers)
}

/// A cookie that ends whatever session there is.
pub fn end(headers: &HeaderMap) -> HeaderValue {
    set_cookie("", 0, headers)
}

/// The session that a request's cookie stands for, if it is one and holds.
pub fn of_request<'a>(tokens: &'a Tokens, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Session<'a>> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (name, expires, sealed) = {
        let mut parts = value.splitn(3, '.');
        (parts.next()?, parts.next()?, parts.next()?)
    };
    let token = tokens.named(name)?;
    let right = seal(token, &["session", expires]);
    let until = DateTime::from_timestamp(expires.parse().ok()?, 0)?;
    let holds = bool::from(right.as_bytes().ct_eq(sealed.as_bytes())) && now < until && until <= now + LASTS;
    holds.then(|| Session { token, form_key: seal(token, &["form", expires]) })
}

/// What only who knows the token can make of these words.
fn seal(token: &Token, words: &[&str]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(token.digest()).unwrap_or_else(|_| unreachable!("a key may have any length"));
    for word in words {
        mac.update(word.as_bytes());
        mac.update(b"\0");
    }
    hex::encode(mac.finalize().into_bytes())
}

/// Sent over TLS only where the request came so, as far as the proxy before us says; by no page of another site, but for
/// a link that is followed; shown to no script.
fn set_cookie(value: &str, seconds: i64, headers: &HeaderMap) -> HeaderValue {
    let tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let secure = if tls { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(second: &str) -> Tokens {
        Tokens::parse(&"first-token".into(), &format!("reader:read:{second}").into()).unwrap()
    }

    fn request(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    fn cookie_of(tokens: &Tokens, name: &str, now: DateTime<Utc>) -> String {
        let set = begin(tokens.named(name).unwrap(), now, &HeaderMap::new());
        set.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn name_of(tokens: &Tokens, cookie: &str, now: DateTime<Utc>) -> Option<String> {
        of_request(tokens, &request(cookie), now).map(|session| session.token.name.clone())
    }

    #[test]
    fn a_session_holds_for_a_night_and_is_its_tokens() {
        let (now, ours) = (Utc::now(), tokens("reader-0123456789"));
        let cookie = cookie_of(&ours, "reader", now);
        assert_eq!(name_of(&ours, &cookie, now).as_deref(), Some("reader"));
        assert_eq!(name_of(&ours, &format!("a=b; {cookie}; c=d"), now).as_deref(), Some("reader"));
        assert_eq!(name_of(&ours, &cookie, now + TimeDelta::minutes(719)).as_deref(), Some("reader"));
        assert_eq!(name_of(&ours, &cookie, now + TimeDelta::minutes(721)), None, "it has ended");
        assert_eq!(name_of(&tokens("reader-9876543210"), &cookie, now), None, "the token was replaced");
        assert_eq!(name_of(&ours, &format!("{cookie}; {cookie}"), now), None, "two of them");
        assert_eq!(name_of(&ours, &cookie.replace("reader.", "default."), now), None, "of another token");
        let later = (now + TimeDelta::hours(12)).timestamp().to_string();
        let longer = cookie.replace(&later, &(now + TimeDelta::hours(11)).timestamp().to_string());
        assert_ne!(longer, cookie);
        assert_eq!(name_of(&ours, &longer, now), None, "its time was changed");
        for wrong in
            ["", "reader", "reader.1", "reader.1.", "reader.x.y", "nobody.1.2", "..", "reader.99999999999999999999.0"]
        {
            assert_eq!(name_of(&ours, &format!("{COOKIE}={wrong}"), now), None, "{wrong}");
        }
    }

    #[test]
    fn forms_are_a_session_s_own() {
        let (now, ours) = (Utc::now(), tokens("reader-0123456789"));
        let key = |name: &str, at| of_request(&ours, &request(&cookie_of(&ours, name, at)), at).unwrap().form_key;
        assert_ne!(key("reader", now), key("default", now));
        assert_ne!(key("reader", now), key("reader", now + TimeDelta::seconds(5)));
        let cookie = cookie_of(&ours, "reader", now);
        assert!(!cookie.contains(&key("reader", now)));
    }

    #[test]
    fn tls_is_kept_to() {
        let (ours, now) = (tokens("reader-0123456789"), Utc::now());
        let headers = HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), "https".parse().unwrap())]);
        let of = |headers: &HeaderMap| begin(ours.named("reader").unwrap(), now, headers).to_str().unwrap().to_owned();
        assert!(of(&headers).ends_with("; HttpOnly; SameSite=Lax; Secure"));
        assert!(of(&HeaderMap::new()).ends_with("; HttpOnly; SameSite=Lax"));
    }
}
