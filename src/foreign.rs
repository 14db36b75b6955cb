//! What others say: how it is read, and how it is shown, whatever it is.

use std::{
    fmt::{self, Write as _},
    marker::PhantomData,
    time::Duration,
};

use chrono::{DateTime, Utc};
use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// What came as a JSON object. By itself, serde takes a list for one too, whose values it gives to the fields in
/// their order.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Reads a JSON object.
///
/// # Errors
/// When it is not JSON, or not such an object.
pub fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json).map(|Object(object)| object)
}

/// Enough of a foreign text to recognise it, and no control characters.
#[must_use]
pub fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// An error with its causes, without the address: it holds nothing that is not known, and is long.
#[must_use]
pub fn causes(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no complete answer in time".to_owned()
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the connection broke".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    clip(&text)
}

/// The server's clock.
#[must_use]
pub fn served_at(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

/// For how long a server asks to be left alone: seconds, or a date, which is read against the server's own
/// clock, and against ours where it shows none.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        let too_long = || if seconds > 0.0 { Some(Duration::MAX) } else { None };
        return Duration::try_from_secs_f64(seconds).ok().or_else(too_long);
    }
    let until: DateTime<Utc> = httpdate::parse_http_date(text).ok()?.into();
    let now = served_at(headers).unwrap_or_else(Utc::now);
    Some((until - now).to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let date = (header::DATE, "Tue, 24 Nov 2026 02:00:00 GMT");
        let of = |value| retry_after(&headers(&[date.clone(), (header::RETRY_AFTER, value)]));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Tue, 24 Nov 2026 02:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(of("Mon, 23 Nov 2026 02:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(of("99999999999999999999999"), Some(Duration::MAX));
        assert_eq!(of("soon"), None);
        assert_eq!(of("-1"), None);
    }
}
