//! The application against ports in memory, under a paused clock.

mod engine;
mod fake_salla;
mod fake_store;
mod runner;
mod worker;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;

use self::{fake_salla::FakeSalla, fake_store::FakeStore};
use super::{Leases, Metrics, OnStop, ProgressSender, Runner};
use crate::domain::{DetailCheckNights, Resource, Resources, WindowPolicy};

/// A runner of the daemon for these kinds of record.
fn runner(salla: &FakeSalla, store: &FakeStore, resources: &[Resource]) -> Runner<FakeSalla, FakeStore> {
    Runner {
        source: Arc::new(salla.clone()),
        store: store.clone(),
        resources: resources.iter().copied().collect::<Resources>(),
        policy: WindowPolicy { lookback: TimeDelta::days(1), overlap: TimeDelta::minutes(15) },
        max_deletion_ratio: 0.25,
        detail_checks: DetailCheckNights::Auto,
        metrics: Arc::new(Metrics::new().unwrap()),
        progress: ProgressSender::default(),
        leases: Leases::default(),
        longest_pause: Duration::from_secs(3600),
        slice: Duration::from_secs(60),
        on_stop: OnStop::Release,
    }
}
