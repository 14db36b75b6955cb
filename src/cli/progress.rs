//! The progress of a command, for a person at a terminal.

use std::{fmt, io::IsTerminal};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{domain::Totals, reconcile::Progress, telemetry};

const MERCHANTS: &str = "{bar:30} {pos}/{len} merchants · {msg} · {rate} · {left}";

/// Of the only merchant there is.
const PAGES: &str = "{bar:30} page {pos}/{len} · {msg} · {rate} · {left}";

/// A bar on a terminal, nothing elsewhere: of merchants, or of the pages of the only one, once it is known how many there
/// are.
pub async fn show_progress(mut events: UnboundedReceiver<Progress>, merchants: u64) {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(merchants) } else { ProgressBar::hidden() };
    bar.set_style(style(MERCHANTS));
    let shown = telemetry::show(&bar);
    let (mut pages, mut totals) = (0u64, Totals::default());
    while let Some(event) = events.recv().await {
        match event {
            Progress::Page { number, of: Some(of), .. } if merchants == 1 => {
                pages += 1;
                // A list may grow while it is read, and several may be read.
                if bar.length() != Some(of.into()) {
                    bar.set_style(style(PAGES));
                    bar.set_length(of.into());
                }
                bar.set_position(number.into());
            }
            Progress::Page { .. } => pages += 1,
            Progress::Waiting { merchant, wait, pause } => {
                bar.set_message(format!("merchant {} waits {} s: {}", merchant.0, pause.as_secs(), wait.reason));
                continue;
            }
            Progress::Ended(ended) => {
                totals += ended.run().map(|run| run.totals).unwrap_or_default();
                if merchants > 1 {
                    bar.inc(1);
                }
            }
        }
        let corrected = totals.created + totals.updated;
        bar.set_message(format!("{pages} pages, {corrected} corrected"));
    }
    drop(shown);
    bar.finish_and_clear();
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate).with_key("left", left)
}

fn rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    let _ = write!(out, "{:.0}/min", 60.0 * state.per_sec());
}

fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    // The rate is unknown until the first is done.
    let _ = match state.pos() {
        0 => write!(out, "{} so far", HumanDuration(state.elapsed())),
        _ => write!(out, "{} left", HumanDuration(state.eta())),
    };
}
