//! The last sweeps as a plot: corrected records, and durations. The page has the same values as a table.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::format::{Clock, day, number, span};
use crate::reconcile::ports::SweepSummary;

/// In the picture's own units; it is drawn as wide as the page is.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 22.0;

/// The bar of one sweep.
struct Bar {
    at: DateTime<Utc>,
    /// From the ground up, each with its class.
    parts: Vec<(&'static str, f64)>,
    /// The tooltip.
    title: String,
    skipped: bool,
}

/// Corrected records of each sweep, oldest first.
pub fn corrected(sweeps: &[SweepSummary], clock: Clock) -> Markup {
    let bars = sweeps.iter().map(|summary| {
        let totals = summary.totals();
        let (missing, stale) = totals.drift();
        let backfilled = totals.backfilled_total();
        Bar {
            at: summary.scheduled_for,
            parts: vec![("missing", missing as f64), ("stale", stale as f64), ("backfilled", backfilled as f64)],
            title: format!(
                "{}: {} missing, {} stale, {} backfilled",
                day(summary.scheduled_for, clock),
                number(missing),
                number(stale),
                number(backfilled)
            ),
            skipped: summary.trigger.is_none(),
        }
    });
    draw("Corrected records per sweep", &bars.collect::<Vec<_>>(), clock, |value| number(value as u64))
}

/// Duration of each sweep, oldest first.
pub fn took(sweeps: &[SweepSummary], clock: Clock) -> Markup {
    let bars = sweeps.iter().map(|summary| {
        let took = summary.took.unwrap_or_else(|| (clock.now - summary.started_at).to_std().unwrap_or_default());
        let took = if summary.trigger.is_none() { std::time::Duration::ZERO } else { took };
        let until_now = if summary.took.is_none() && summary.made > 0 { " so far" } else { "" };
        Bar {
            at: summary.scheduled_for,
            parts: vec![("took", took.as_secs_f64())],
            title: format!("{}: {}{until_now}", day(summary.scheduled_for, clock), span(took)),
            skipped: summary.trigger.is_none(),
        }
    });
    let label = |seconds: f64| span(std::time::Duration::from_secs_f64(seconds));
    draw("Duration of each sweep", &bars.collect::<Vec<_>>(), clock, label)
}

fn draw(title: &str, bars: &[Bar], clock: Clock, label: impl Fn(f64) -> String) -> Markup {
    let height = |bar: &Bar| bar.parts.iter().map(|(_, value)| value).sum::<f64>();
    let top = round_up(bars.iter().map(height).fold(0.0, f64::max));
    let (ground, room) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP);
    let step = (WIDTH - LEFT) / bars.len().max(1) as f64;
    let wide = (step * 0.7).min(26.0);
    let scale = |value: f64| value / top * room;
    // As many days as there is room for.
    let every = (bars.len() / 8).max(1);
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
            @for part in [0.0, 0.5, 1.0] {
                @let y = ground - part * room;
                line.axis x1=(LEFT) x2=(WIDTH) y1=(fixed(y)) y2=(fixed(y)) {}
                text x=(LEFT - 6.0) y=(fixed(y + 4.0)) text-anchor="end" { (label(part * top)) }
            }
            @for (index, bar) in bars.iter().enumerate() {
                @let middle = LEFT + (index as f64 + 0.5) * step;
                g {
                    title { (bar.title) @if bar.skipped { " (skipped)" } }
                    // So that the tooltip of a low bar can be reached.
                    rect x=(fixed(middle - step / 2.0)) y=(TOP) width=(fixed(step)) height=(room) fill="transparent" {}
                    @if bar.skipped {
                        rect.gap x=(fixed(middle - wide / 2.0)) y=(fixed(ground - 8.0)) width=(fixed(wide)) height="8" {}
                    }
                    @for (index, (class, value)) in bar.parts.iter().enumerate() {
                        @let below: f64 = bar.parts[..index].iter().map(|(_, value)| value).sum();
                        @if *value > 0.0 {
                            // A small value stays visible.
                            @let high = scale(*value).max(1.5);
                            rect class=(class) x=(fixed(middle - wide / 2.0)) y=(fixed(ground - scale(below) - high)) width=(fixed(wide)) height=(fixed(high)) {}
                        }
                    }
                }
                @if index % every == 0 || bars.len() <= 8 {
                    text x=(fixed(middle)) y=(HEIGHT - 6.0) text-anchor="middle" { (day(bar.at, clock)) }
                }
            }
        }
    }
}

/// The next number of the form 1, 2 or 5 and zeros.
fn round_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * unit).find(|round| *round >= value).unwrap_or(value)
}

fn fixed(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RunStatus, Totals, Trigger};

    const CLOCK: Clock = Clock { now: DateTime::UNIX_EPOCH, zone: chrono_tz::Tz::Asia__Riyadh };

    fn summary(days: i64, created: u64) -> SweepSummary {
        let scheduled_for = DateTime::from_timestamp(1_790_000_000 + days * 86_400, 0).unwrap();
        let totals = Totals { fetched: created + 1, created, updated: 1, ..Totals::default() };
        SweepSummary {
            scheduled_for,
            trigger: (created > 0).then_some(Trigger::Schedule),
            made: u64::from(created > 0),
            started_at: scheduled_for,
            took: Some(std::time::Duration::from_secs(90)),
            runs: if created > 0 { vec![(RunStatus::Succeeded, 1, totals)] } else { Vec::new() },
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in
            [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (4.9, 5.0), (51.0, 100.0), (100.0, 100.0), (12_345.0, 20_000.0)]
        {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn bars_stay_within_the_plot() {
        let sweeps: Vec<SweepSummary> = (0..30).map(|index| summary(index, [3, 0, 900][index as usize % 3])).collect();
        let picture = corrected(&sweeps, CLOCK).into_string();
        assert_eq!(picture.matches("class=\"missing\"").count(), 20);
        assert_eq!(picture.matches("class=\"gap\"").count(), 10, "the skipped are seen");
        assert!(picture.contains("900 missing, 1 stale, 0 backfilled"), "{picture}");
        for (_, rest) in picture.match_indices(" y=\"").map(|(at, _)| picture.split_at(at + 4)) {
            let y: f64 = rest.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..=HEIGHT).contains(&y), "{y}");
        }
    }

    #[test]
    fn empty_plots_are_drawn() {
        assert!(corrected(&[], CLOCK).into_string().contains("svg"));
        assert!(took(&[summary(0, 1)], CLOCK).into_string().contains("1m 30s"));
    }
}
