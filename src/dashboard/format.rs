//! Numbers, times and names, as people read them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use crate::domain::{Merchant, MerchantId, RunId, RunStatus, plain};

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

/// An instant, and how long ago it was, or how far ahead.
pub fn instant(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let between = (now - at).abs().to_std().unwrap_or_default();
    let relative = if at > now { format!("in {}", span(between)) } else { format!("{} ago", span(between)) };
    html! { time datetime=(at.to_rfc3339()) title=(relative) { (at.format("%Y-%m-%d %H:%M")) " UTC" small { " " (relative) } } }
}

/// The same, where there may be none.
pub fn maybe(at: Option<DateTime<Utc>>, now: DateTime<Utc>, none: &str) -> Markup {
    at.map_or_else(|| html! { (none) }, |at| instant(at, now))
}

/// A day, of which the year is plain.
pub fn day(at: DateTime<Utc>) -> String {
    at.format("%-d %b").to_string()
}

/// A store's name, in whatever direction it is read, and its id.
pub fn store(merchant: &Merchant) -> Markup {
    html! {
        a href=(store_address(merchant.merchant_id)) {
            @if let Some(name) = &merchant.name { bdi dir="auto" { (plain(name)) } " " small { (merchant.merchant_id) } }
            @else { "Store " (merchant.merchant_id) }
        }
    }
}

/// A run's status, in its colour.
pub fn status(status: RunStatus) -> Markup {
    html! { span class=(format!("chip {}", status.as_str())) { (status.as_str()) } }
}

/// Where a store's page is.
pub fn store_address(id: MerchantId) -> String {
    format!("/dashboard/stores/{id}")
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
    fn what_is_ahead_is_said_to_be() {
        let now = Utc::now();
        let told = |seconds| instant(now + chrono::TimeDelta::seconds(seconds), now).into_string();
        assert!(told(-120).contains("2m 0s ago"));
        assert!(told(7200).contains("in 2h 0m"));
    }
}
