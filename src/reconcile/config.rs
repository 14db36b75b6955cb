//! The settings of runs.

use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use crate::domain::{DetailCheckNights, Resources, WindowPolicy};

/// The section `reconcile`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::duration")]
    pub lookback: Duration,
    #[serde(deserialize_with = "crate::config::duration")]
    pub overlap: Duration,
    pub concurrency: u32,
    #[serde(deserialize_with = "crate::config::duration")]
    pub lease: Duration,
    #[serde(deserialize_with = "crate::config::duration")]
    pub time_slice: Duration,
    pub page_size: u32,
    pub max_deletion_ratio: f64,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub detail_check_nights: DetailCheckNights,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub resources: Resources,
    pub order_items: bool,
}

impl Config {
    /// How far windows reach back.
    #[must_use]
    pub fn policy(&self) -> WindowPolicy {
        let span = |span| TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
        WindowPolicy { lookback: span(self.lookback), overlap: span(self.overlap) }
    }
}
