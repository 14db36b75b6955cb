//! Numbers, times and names, as people read them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use maud::{Markup, html};

use crate::domain::{Merchant, MerchantId, Run, RunId, RunStatus, plain};

/// With thousands apart.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `2 runs`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Its two largest units: `3d 4h`, `5m 2s`, `0.4s`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1}s", span.as_secs_f64()),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// The present instant, and the time zone of the schedule.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub now: DateTime<Utc>,
    pub zone: Tz,
}

/// An instant in the time zone of the schedule, in UTC, and relative to now: `2026-11-30 02:00`, `29 Nov 23:00 UTC`,
/// `2h 5m ago`.
pub fn instant(at: DateTime<Utc>, clock: Clock) -> Markup {
    let between = (clock.now - at).abs().to_std().unwrap_or_default();
    let relative = if at > clock.now { format!("in {}", span(between)) } else { format!("{} ago", span(between)) };
    let local = at.with_timezone(&clock.zone);
    let is_same_day = local.date_naive() == at.date_naive();
    let utc = match clock.zone {
        Tz::UTC => at.format("UTC"),
        _ if is_same_day => at.format("%H:%M UTC"),
        _ => at.format("%-d %b %H:%M UTC"),
    };
    html! {
        time datetime=(at.to_rfc3339()) title=(relative) { (local.format("%Y-%m-%d %H:%M")) small { " " (utc) " · " (relative) } }
    }
}

/// The same, or `none`.
pub fn maybe(at: Option<DateTime<Utc>>, clock: Clock, none: &str) -> Markup {
    at.map_or_else(|| html! { (none) }, |at| instant(at, clock))
}

/// The day in the time zone of the schedule, without its year.
pub fn day(at: DateTime<Utc>, clock: Clock) -> String {
    at.with_timezone(&clock.zone).format("%-d %b").to_string()
}

/// The name of a merchant, in its own direction, and the id.
pub fn merchant(merchant: &Merchant) -> Markup {
    html! {
        a href=(merchant_address(merchant.merchant_id)) {
            @if let Some(name) = &merchant.name { bdi dir="auto" { (plain(name)) } " " small { (merchant.merchant_id) } }
            @else { "Merchant " (merchant.merchant_id) }
        }
    }
}

/// A run's status, in its colour.
pub fn status(status: RunStatus) -> Markup {
    html! { span class=(format!("chip {}", status.as_str())) { (status.as_str()) } }
}

/// The status of a run in a table, with what it waits for.
pub fn run_status(run: &Run) -> Markup {
    html! {
        (status(run.status))
        @if run.dry_run { " dry run" }
        @if let Some(waiting) = &run.waiting { " " small { "waiting: " (waiting.reason.as_str()) } }
    }
}

/// The address of the page of a merchant.
pub fn merchant_address(id: MerchantId) -> String {
    format!("/dashboard/merchants/{id}")
}

/// Where a run's page is.
pub fn run_address(id: RunId) -> String {
    format!("/dashboard/runs/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")] {
            assert_eq!(number(count), text);
        }
        assert_eq!((counted(1, "run", "runs"), counted(0, "run", "runs")), ("1 run".into(), "0 runs".into()));
    }

    #[test]
    fn spans_have_two_units() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (1_440, "1.4s"),
            (59_000, "59s"),
            (61_000, "1m 1s"),
            (7_260_000, "2h 1m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn instants_are_shown_in_the_zone_in_utc_and_relative_to_now() {
        let now: DateTime<Utc> = "2026-11-30T10:00:00Z".parse().unwrap();
        let text = |at: &str, zone: Tz| {
            let shown = instant(at.parse().unwrap(), Clock { now, zone }).into_string();
            shown.split_once("\">").unwrap().1.replace("<small>", "").replace("</small></time>", "")
        };
        assert_eq!(text("2026-11-30T09:58:00Z", Tz::Asia__Riyadh), "2026-11-30 12:58 09:58 UTC · 2m 0s ago");
        assert_eq!(text("2026-11-30T23:00:00Z", Tz::Asia__Riyadh), "2026-12-01 02:00 30 Nov 23:00 UTC · in 13h 0m");
        assert_eq!(text("2026-11-30T09:58:00Z", Tz::UTC), "2026-11-30 09:58 UTC · 2m 0s ago");
        let evening = "2026-11-29T23:00:00Z".parse().unwrap();
        assert_eq!(day(evening, Clock { now, zone: Tz::Asia__Riyadh }), "30 Nov");
    }
}
