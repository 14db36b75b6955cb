//! Response headers of any server: `Date` and `Retry-After`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, header};

/// The server's clock.
#[must_use]
pub fn served_at(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

/// A server that asks for more means something else.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(7);

/// The wait that a server asks for with `Retry-After`.
///
/// It says so in seconds, as a date, or as an instant in seconds, milliseconds, microseconds or nanoseconds since 1970. Instants are read against the server's own clock, and against ours where it shows none.
///
/// `None`: it does not ask, or for more than a week.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(number) = text.parse::<f64>() {
        let span = Duration::try_from_secs_f64(number).ok();
        let is_span = |span: &Duration| TimeDelta::from_std(*span).is_ok_and(|span| span <= LONGEST_WAIT);
        return span.filter(is_span).or_else(|| wait_until(instant(number)?, headers));
    }
    let date = httpdate::parse_http_date(text).map(DateTime::from).ok();
    wait_until(date.or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc()))?, headers)
}

/// An instant since 1970, in the unit that makes it one of this century.
fn instant(number: f64) -> Option<DateTime<Utc>> {
    let per_second = match number {
        1e9..1e11 => 1.0,
        1e12..1e14 => 1e3,
        1e15..1e17 => 1e6,
        1e18..1e20 => 1e9,
        _ => return None,
    };
    DateTime::from_timestamp((number / per_second) as i64, 0)
}

fn wait_until(until: DateTime<Utc>, headers: &HeaderMap) -> Option<Duration> {
    let wait = until - served_at(headers).unwrap_or_else(Utc::now);
    (wait.abs() <= LONGEST_WAIT).then(|| wait.to_std().unwrap_or(Duration::ZERO))
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
        for instant in
            ["1795485690", "1795485690000", "1795485690000000", "1795485690000000000", "2026-11-24T02:01:30Z"]
        {
            assert_eq!(of(instant), Some(Duration::from_secs(90)), "{instant}");
        }
        for absurd in
            ["99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "253402300799", "29924760", "inf", "NaN"]
        {
            assert_eq!(of(absurd), None, "{absurd}");
        }
        assert_eq!(of("soon"), None);
        assert_eq!(of("-1"), None);
    }
}
