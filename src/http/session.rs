//! The sessions of the dashboard. A session is a cookie that names a token of the API and proves knowledge of this
//! token. It expires some hours later. Every process can read the cookie, and no process stores it. The database stores
//! only the sessions that were ended before they expired. If another token replaces the token, its sessions end.

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
    /// Which one it is: a random text.
    pub id: String,
    /// The time when it expires.
    pub until: DateTime<Utc>,
    /// A hidden field of the forms, which no other site can read.
    pub form_key: String,
}

/// What a request's cookie stands for.
#[derive(Debug)]
pub enum Cookie<'a> {
    /// No cookie, or several.
    None,
    /// Its seal is wrong.
    Forged,
    /// It was right, and its time is over.
    Expired,
    /// It is right.
    Valid(Session<'a>),
}

/// The cookie of a new session.
pub fn begin(token: &Token, now: DateTime<Utc>, headers: &HeaderMap) -> HeaderValue {
    let (expires, id) = ((now + LASTS).timestamp(), hex::encode(rand::random::<[u8; 16]>()));
    let seal = seal(token, &["session", &expires.to_string(), &id]);
    set_cookie(&format!("{}.{expires}.{id}.{seal}", token.name), LASTS.num_seconds(), headers)
}

/// A cookie that takes the place of the session's.
pub fn end(headers: &HeaderMap) -> HeaderValue {
    set_cookie("", 0, headers)
}

/// What the cookie of a request stands for.
pub fn of_request<'a>(tokens: &'a Tokens, headers: &HeaderMap, now: DateTime<Utc>) -> Cookie<'a> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => opened(tokens, value, now),
        _ => Cookie::None,
    }
}

fn opened<'a>(tokens: &'a Tokens, value: &str, now: DateTime<Utc>) -> Cookie<'a> {
    let parts: Vec<&str> = value.splitn(4, '.').collect();
    let [name, expires, id, sealed] = parts[..] else {
        return Cookie::Forged;
    };
    let Some(token) = tokens.named(name) else {
        return Cookie::Forged;
    };
    let right = seal(token, &["session", expires, id]);
    let until = expires.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    match until {
        Some(until) if bool::from(right.as_bytes().ct_eq(sealed.as_bytes())) && until <= now + LASTS => {
            if until <= now {
                return Cookie::Expired;
            }
            let form_key = seal(token, &["form", expires, id]);
            Cookie::Valid(Session { token, id: id.to_owned(), until, form_key })
        }
        _ => Cookie::Forged,
    }
}

/// The seal of these words. Only a holder of the token can compute it.
fn seal(token: &Token, words: &[&str]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(token.digest()).unwrap_or_else(|_| unreachable!("a key may have any length"));
    for word in words {
        mac.update(word.as_bytes());
        mac.update(b"\0");
    }
    hex::encode(mac.finalize().into_bytes())
}

/// Returns the header that sets the session cookie. If the request came over TLS, as far as the
/// first proxy says, the browser sends the cookie only over TLS. Pages of other sites cannot send
/// it, except through a link that the user follows. Scripts cannot read it.
fn set_cookie(value: &str, seconds: i64, headers: &HeaderMap) -> HeaderValue {
    let secure = if came_over_tls(headers) { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// By the first of the proxies, the one that the browser connects to.
fn came_over_tls(headers: &HeaderMap) -> bool {
    let first = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.split(',').next());
    let proto = |element: &str| {
        let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| {
            name.eq_ignore_ascii_case("proto") && value.trim_matches('"').eq_ignore_ascii_case("https")
        })
    };
    first("x-forwarded-proto").is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
        || first("forwarded").is_some_and(proto)
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
        match of_request(tokens, &request(cookie), now) {
            Cookie::Valid(session) => Some(session.token.name.clone()),
            _ => None,
        }
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
        for wrong in [
            "reader",
            "reader.1",
            "reader.1.2.",
            "reader.x.y.z",
            "unknown.1.2.3",
            "...",
            "reader.99999999999999999999.0.0",
        ] {
            let cookie = request(&format!("{COOKIE}={wrong}"));
            assert!(matches!(of_request(&ours, &cookie, now), Cookie::Forged), "{wrong}");
        }
        assert!(matches!(of_request(&ours, &request(&format!("{COOKIE}=")), now), Cookie::None));
        assert!(matches!(of_request(&ours, &request(&cookie), now + TimeDelta::days(1)), Cookie::Expired));
    }

    #[test]
    fn a_form_belongs_to_its_session() {
        let (now, ours) = (Utc::now(), tokens("reader-0123456789"));
        let key_of = |cookie: &str| match of_request(&ours, &request(cookie), now) {
            Cookie::Valid(session) => session.form_key,
            other => panic!("{other:?}"),
        };
        let key = |name: &str| key_of(&cookie_of(&ours, name, now));
        assert_ne!(key("reader"), key("default"));
        assert_ne!(key("reader"), key("reader"), "of the same second");
        let cookie = cookie_of(&ours, "reader", now);
        assert!(!cookie.contains(&key_of(&cookie)));
    }

    #[test]
    fn secure_follows_the_protocol() {
        let (ours, now) = (tokens("reader-0123456789"), Utc::now());
        let came = |name: &str, value: &str| HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        let of = |headers: &HeaderMap| begin(ours.named("reader").unwrap(), now, headers).to_str().unwrap().to_owned();
        for (name, value) in [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "HTTPS , http"),
            ("x-forwarded-proto", "https,http"),
            ("forwarded", "for=192.0.2.1;proto=https, proto=http"),
        ] {
            assert!(of(&came(name, value)).ends_with("; HttpOnly; SameSite=Lax; Secure"), "{value}");
        }
        assert!(of(&came("x-forwarded-proto", "http,https")).ends_with("; HttpOnly; SameSite=Lax"));
        assert!(of(&HeaderMap::new()).ends_with("; HttpOnly; SameSite=Lax"));
    }
}
