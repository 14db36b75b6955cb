//! Reads the six forms of Salla's dates as UTC instants.
//!
//! A time without an offset is in the zone beside it, or in `Asia/Riyadh`. A local time that occurs twice is the
//! earlier instant. A skipped local time is invalid.

use std::sync::LazyLock;

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
    format::{self, Item, Parsed, StrftimeItems},
};
use chrono_tz::{Asia::Riyadh, Tz};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::values::{present, scalar, stated};
use crate::{json_object::object, response_headers::served_at};

#[derive(Deserialize)]
struct Zoned<'a> {
    #[serde(borrow)]
    date: Option<&'a RawValue>,
    #[serde(borrow)]
    timezone: Option<&'a RawValue>,
}

/// The forms of a time without a zone, Salla's own first. Taken apart once: each row has some.
static NAIVE_TIMES: LazyLock<Vec<Vec<Item<'static>>>> = LazyLock::new(|| {
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    forms.into_iter().filter_map(|form| StrftimeItems::new(form).parse().ok()).collect()
});

/// Salla is younger than this: an earlier year is one of another calendar, or of a date that was never set.
const FIRST_YEAR: i32 = 2010;

/// No customer is older.
const FIRST_YEAR_OF_BIRTH: i32 = 1900;

/// A zone may be wrong, and so may a clock.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// Reads a date in any of the forms of `docs.salla.dev`:
///
/// - the object `{date, timezone_type, timezone}`
/// - a time without a zone
/// - a day
/// - the text of a date in JavaScript
/// - RFC 3339
/// - a list that begins with one of these
///
/// `None`: it has none of these forms, or it lies before 2010 or more than a day ahead.
pub fn parse(raw: &RawValue) -> Option<DateTime<Utc>> {
    plausible(any(raw)?, FIRST_YEAR)
}

/// The same, of a day of birth: none before 1900.
pub fn birthday(raw: &RawValue) -> Option<DateTime<Utc>> {
    plausible(any(raw)?, FIRST_YEAR_OF_BIRTH)
}

/// The clock of the server at the answer, at most one day ahead of ours; `None` if it is missing or before 2010.
pub fn of_answer(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let clock = served_at(headers)?.min(Utc::now() + AHEAD);
    (clock.year() >= FIRST_YEAR).then_some(clock)
}

/// Whether a value has the form of a date and holds none: `{"date":null}`, `{"date":""}`, `[""]`.
pub fn is_blank(raw: &RawValue) -> bool {
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            object::<Zoned<'_>>(raw.get()).is_ok_and(|zoned| zoned.date.is_some() && stated(zoned.date).is_none())
        }
        Some(b'[') => {
            let list = serde_json::from_str::<Vec<&RawValue>>(raw.get());
            list.is_ok_and(|list| list.iter().all(|one| stated(Some(one)).is_none()))
        }
        _ => false,
    }
}

fn any(raw: &RawValue) -> Option<DateTime<Utc>> {
    let json = raw.get();
    match json.as_bytes().first()? {
        b'{' => {
            let zoned: Zoned<'_> = object(json).ok()?;
            let zone = present(zoned.timezone).map_or(Some(Zone::Named(Riyadh)), zone)?;
            text(&scalar(present(zoned.date)?)?, zone)
        }
        b'[' => {
            let list: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            // One level of it: a body nests deeper than the stack is.
            list.first().filter(|first| !first.get().starts_with('[')).and_then(|first| any(first))
        }
        b'"' => text(&scalar(raw)?, Zone::Named(Riyadh)),
        _ => None,
    }
}

/// The day in Salla's time zone.
pub fn day_of(instant: DateTime<Utc>) -> NaiveDate {
    instant.with_timezone(&Riyadh).date_naive()
}

/// PHP's three kinds of time zone, without the abbreviations, which are ambiguous.
#[derive(Clone, Copy)]
enum Zone {
    Named(Tz),
    Offset(FixedOffset),
}

fn zone(raw: &RawValue) -> Option<Zone> {
    let name = scalar(raw)?;
    name.parse().map(Zone::Named).ok().or_else(|| name.parse().map(Zone::Offset).ok())
}

fn text(text: &str, zone: Zone) -> Option<DateTime<Utc>> {
    let text = text.trim();
    // Salla's own form first: no text has two of them, and lists are full of it.
    let Some(naive) = naive(text) else {
        return with_offset(text);
    };
    Some(match zone {
        Zone::Named(zone) => zone.from_local_datetime(&naive).earliest()?.to_utc(),
        Zone::Offset(offset) => offset.from_local_datetime(&naive).earliest()?.to_utc(),
    })
}

/// A time or a day without a zone.
fn naive(text: &str) -> Option<NaiveDateTime> {
    let time = NAIVE_TIMES.iter().find_map(|form| {
        let mut fields = Parsed::new();
        format::parse(&mut fields, text, form.iter()).ok()?;
        fields.to_naive_datetime_with_offset(0).ok()
    });
    time.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN)))
}

/// RFC 3339, or JavaScript's text.
fn with_offset(text: &str) -> Option<DateTime<Utc>> {
    let javascript = text.split(" (").next().unwrap_or(text);
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(javascript, "%a %b %d %Y %H:%M:%S GMT%z"))
        .map(|instant| instant.to_utc())
        .ok()
}

/// PHP writes a date that was never set as `0000-00-00` or `-0001-11-30`. The Hijri calendar is in its year 1448. The
/// database keeps no leap seconds, and nothing finer than a microsecond. With these, our copy would seem older every
/// night.
fn plausible(instant: DateTime<Utc>, first_year: i32) -> Option<DateTime<Utc>> {
    let instant = DateTime::from_timestamp_micros(instant.timestamp_micros())?;
    (instant.year() >= first_year && instant <= Utc::now() + AHEAD).then_some(instant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> Option<String> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        parse(&raw).map(|instant| instant.to_rfc3339())
    }

    #[test]
    fn all_six_forms() {
        for (json, utc) in [
            (
                r#"{"date":"2022-06-16 14:48:20.000000","timezone_type":3,"timezone":"Asia/Riyadh"}"#,
                "2022-06-16T11:48:20+00:00",
            ),
            (r#""2024-03-06 13:50:32""#, "2024-03-06T10:50:32+00:00"),
            (r#""Sun Jun 26 2022 12:21:48 GMT+0300""#, "2022-06-26T09:21:48+00:00"),
            (r#""2022-12-31 12:31:25""#, "2022-12-31T09:31:25+00:00"),
            (r#""2021-10-06T21:00:00.000000Z""#, "2021-10-06T21:00:00+00:00"),
            (r#"["2022-12-31"]"#, "2022-12-30T21:00:00+00:00"),
            (r#""2022-12-31T12:31:25""#, "2022-12-31T09:31:25+00:00"),
        ] {
            assert_eq!(of(json).as_deref(), Some(utc), "{json}");
        }
    }

    #[test]
    fn the_zone_beside_a_naive_time_counts() {
        for (zone, utc) in [
            ("UTC", "2022-06-16T14:48:20+00:00"),
            ("+03:00", "2022-06-16T11:48:20+00:00"),
            ("Europe/London", "2022-06-16T13:48:20+00:00"),
        ] {
            let json = format!(r#"{{"date":"2022-06-16 14:48:20","timezone":"{zone}"}}"#);
            assert_eq!(of(&json).as_deref(), Some(utc), "{zone}");
        }
    }

    #[test]
    fn invalid_dates_are_refused() {
        for json in [
            r#""tomorrow""#,
            r#""2022-13-40 00:00:00""#,
            r#""0000-00-00 00:00:00""#,
            r#""-0001-11-30 00:00:00""#,
            r#""""#,
            r#"{"date":null}"#,
            r#"{"date":"2022-06-16 14:48:20","timezone":"Mars/Olympus"}"#,
            "[]",
            "12",
            "true",
        ] {
            assert_eq!(of(json), None, "{json}");
        }
    }

    #[test]
    fn an_instant_is_no_finer_than_the_database_keeps_it() {
        for (json, utc) in [
            (r#""2026-03-02T07:00:00.123456789Z""#, "2026-03-02T07:00:00.123456+00:00"),
            (r#""2026-03-02T07:00:60Z""#, "2026-03-02T07:01:00+00:00"),
            (r#"{"date":"2011-12-31 23:59:59.9999999","timezone":"UTC"}"#, "2011-12-31T23:59:59.999999+00:00"),
            (r#"{"date":"2026-03-02 10:00:60.5"}"#, "2026-03-02T07:01:00.500+00:00"),
        ] {
            assert_eq!(of(json).as_deref(), Some(utc), "{json}");
        }
        assert_eq!(of(r#""9999-12-31T23:59:60Z""#), None, "which would be in the year 10000");
    }

    #[test]
    fn years_of_other_calendars_and_days_ahead_are_not_dates() {
        let of_day = |days| format!("\"{}\"", (Utc::now() + TimeDelta::days(days)).to_rfc3339());
        for json in [
            r#""1448-06-19 10:00:00""#,
            r#"{"date":"2569-11-29 10:00:00","timezone":"Asia/Riyadh"}"#,
            r#""2009-12-31T20:00:00Z""#,
            r#"["1448-06-19"]"#,
            r#""Sun Jun 26 2099 12:21:48 GMT+0300""#,
            &of_day(2),
        ] {
            assert_eq!(of(json), None, "{json}");
        }
        assert!(of(&of_day(0)).is_some() && of("\"2010-01-02\"").is_some());
        let birthday = |json| super::birthday(&serde_json::from_str::<Box<RawValue>>(json).unwrap());
        assert!(birthday("\"1990-05-17\"").is_some() && birthday("\"1410-05-17\"").is_none());
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_bounded() {
        let of = |at: DateTime<Utc>| {
            let date = httpdate::fmt_http_date(at.into()).parse().unwrap();
            of_answer(&HeaderMap::from_iter([(http::header::DATE, date)]))
        };
        let now = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
        assert_eq!(of(now - TimeDelta::days(30)), Some(now - TimeDelta::days(30)));
        assert_eq!(of(DateTime::UNIX_EPOCH), None);
        assert!(of(now + TimeDelta::days(20_000)).is_some_and(|clock| clock <= Utc::now() + AHEAD));
    }

    #[test]
    fn nested_lists_do_not_exhaust_the_stack() {
        let nested = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(of(&nested), None);
        assert_eq!(of(r#"[["2022-12-31"]]"#), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            of(&serde_json::to_string(&text).unwrap());
        }
    }
}
