//! The measurements, one line each, as they come.

use std::time::Duration;

/// The lines so far, and whether all was within its limit.
pub struct Table {
    kept: bool,
    silent: bool,
}

impl Table {
    /// Prints the head.
    pub fn begin() -> Self {
        println!("{:56}{:>9}{:>11}{:>11}{:>11}{:>11}", "what", "times", "p50", "p99", "max", "limit");
        Self { kept: true, silent: false }
    }

    /// A hidden one.
    pub fn silent() -> Self {
        Self { kept: true, silent: true }
    }

    /// A line of durations; `limit` is for the 99th percentile.
    pub fn times(&mut self, what: &str, mut took: Vec<Duration>, limit: Duration) {
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
        let kept = at(0.99) <= limit;
        self.kept &= kept;
        if self.silent {
            return;
        }
        let cells = [at(0.5), at(0.99), at(1.0), limit].map(shown);
        println!(
            "{what:56}{:>9}{:>11}{:>11}{:>11}{:>11}{}",
            took.len(),
            cells[0],
            cells[1],
            cells[2],
            cells[3],
            mark(kept)
        );
    }

    /// A line of one number.
    pub fn number(&mut self, what: &str, number: &str, limit: &str, kept: bool) {
        println!("{what:56}{:>9}{number:>33}{limit:>11}{}", "", mark(kept));
        self.kept &= kept;
    }

    /// Whether all was within its limit.
    pub fn kept(&self) -> bool {
        self.kept
    }
}

fn mark(kept: bool) -> &'static str {
    if kept { "" } else { "  BROKEN" }
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
