//! The lines that `check` prints, or the JSON object.

use serde_json::json;

use crate::{cli::table::table, salla::ProbeReport};

/// The lines, and whether all checks passed.
#[derive(Default)]
pub struct Report {
    pub bad: bool,
    /// Print the lines at the end, as JSON.
    json: bool,
    lines: Vec<serde_json::Value>,
    probe: Option<ProbeReport>,
}

impl Report {
    /// An empty report. `json`: print it at the end, as one JSON object.
    pub fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    /// Prints the JSON object. `has_keys`: the vault can be used.
    pub fn end(&self, has_keys: bool) {
        if self.json {
            say!("{}", json!({ "ok": has_keys && !self.bad, "checks": self.lines, "probe": self.probe }));
        }
    }

    /// Something to be looked at that keeps nothing from working.
    pub fn warn(&mut self, what: &str, problem: &str) {
        self.show("warn", what, problem);
    }

    pub fn line(&mut self, what: &str, result: Result<String, String>) {
        match result {
            Ok(fine) => self.show("ok", what, &fine),
            Err(problem) => {
                self.bad = true;
                self.show("FAIL", what, &problem);
            }
        }
    }

    fn show(&mut self, status: &str, what: &str, message: &str) {
        if self.json {
            let status = status.to_lowercase();
            self.lines.push(json!({ "check": what, "status": status, "message": message }));
        } else {
            say!("{status:<5} {what}: {message}");
        }
    }

    /// The findings of a probe, as a table.
    pub fn probe(&mut self, report: ProbeReport) {
        if self.json {
            self.probe = Some(report);
            return;
        }
        let rows = report.findings.iter().map(|finding| {
            let mark = match finding.as_expected {
                Some(true) => "ok",
                Some(false) => "differs",
                None => "unknown",
            };
            [mark, finding.subject, &finding.found, finding.expected, finding.consequence].map(str::to_owned).to_vec()
        });
        say!("\n{}", table(&["result", "question", "found", "expected", "consequence"], rows));
        let night = match (report.requests_per_night, report.minutes_per_night) {
            (Some(requests), Some(minutes)) => {
                format!("; a night without changes takes about {requests} requests, or {minutes} minutes")
            }
            _ => String::new(),
        };
        say!("\nlisting of merchant {}: {}, because {}{night}", report.merchant_id, report.listing, report.reason);
    }
}
