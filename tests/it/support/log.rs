//! In tests, the program logs at trace level, so that the canary search sees everything. Tests see only the lines that
//! the program logs by default.

use salla_reconciler::telemetry::STEPS;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Tells lines apart.
pub struct Shown(Targets);

impl Shown {
    pub fn new() -> Self {
        Self(STEPS.parse().unwrap())
    }

    /// Whether a line of stderr also appears without `RUST_LOG`. A line that does not come from the log always does.
    pub fn shows(&self, line: &str) -> bool {
        // Reading JSON takes long, and nine lines in ten are of these levels.
        let head = line.get(..80).unwrap_or(line);
        if head.contains(r#","level":"TRACE""#) || head.contains(r#","level":"DEBUG""#) {
            return false;
        }
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return true };
        let (Some(target), Some(level)) = (line["target"].as_str(), line["level"].as_str()) else { return true };
        let level: LevelFilter = level.parse().unwrap();
        level.into_level().is_none_or(|level| self.0.would_enable(target, &level))
    }
}
