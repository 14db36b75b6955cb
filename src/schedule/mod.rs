//! When the nightly sweep is due.
//!
//! tokio-cron-scheduler is only the bell, which rings every second. The due sweeps are computed
//! from the last sweep in the database. So restarts, suspends, deploys at the scheduled time and
//! changes of daylight saving time neither lose nor repeat a sweep. Any number of replicas may
//! ring.

mod calendar;
mod clock;

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::FutureExt;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

pub use calendar::{Calendar, CronPattern};
use clock::Clock;

use crate::{
    domain::{MerchantId, Trigger},
    reconcile::{
        Heartbeat,
        ports::{DatabaseError, PRUNE_BATCH, RecordedSweep, RunStore, SweepDecision},
    },
};

/// The section `schedule`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub cron: CronPattern,
    #[serde(deserialize_with = "crate::config::parsed")]
    pub timezone: chrono_tz::Tz,
    #[serde(deserialize_with = "crate::config::duration")]
    pub catch_up: Duration,
    #[serde(deserialize_with = "crate::config::duration")]
    pub spread: Duration,
}

/// A sweep that is noticed later than this was missed.
const ON_TIME: TimeDelta = TimeDelta::seconds(60);

/// How often old runs are removed.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
const PRUNE_ON: Duration = Duration::from_secs(2);

/// The bell rings every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Turns the schedule into runs in the queue.
#[derive(Debug)]
pub struct Schedule<L> {
    store: L,
    calendar: Calendar,
    catch_up: Duration,
    spread: Duration,
    keep_runs: Duration,
    clock: Clock,
    last: Option<DateTime<Utc>>,
    prune_at: Option<Instant>,
    /// The sweep that waits, and has been logged.
    waiting: Option<DateTime<Utc>>,
}

impl<L: RunStore> Schedule<L> {
    /// A schedule over `ledger`. Runs older than `keep_runs` are removed at intervals.
    pub fn new(config: &Config, store: L, keep_runs: Duration) -> Self {
        Self {
            store,
            calendar: Calendar::new(config.cron.clone(), config.timezone),
            catch_up: config.catch_up,
            spread: config.spread,
            keep_runs,
            clock: Clock::default(),
            last: None,
            prune_at: None,
            waiting: None,
        }
    }

    /// Fires what is due until it is stopped, and calls `wake` when there are new runs; `heartbeat` beats with each look. A panic
    /// costs one look.
    ///
    /// # Errors
    /// When the bell cannot be hung up.
    pub async fn keep(
        mut self,
        stop: CancellationToken,
        heartbeat: Heartbeat,
        wake: impl Fn() + Send,
    ) -> Result<(), JobSchedulerError> {
        let (ring, mut bell) = mpsc::channel(1);
        let mut scheduler = JobScheduler::new().await?;
        let job = Job::new("* * * * * *", move |_, _| {
            // A ring that finds the last one unheard is not needed.
            let _ = ring.try_send(());
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        tracing::info!(schedule.cron = %self.calendar.cron(), "schedule begins");
        // The loop goes on even if the bell has gone silent.
        while stop.run_until_cancelled(timeout(SILENCE, bell.recv())).await.is_some() {
            heartbeat.beat();
            match AssertUnwindSafe(self.tick()).catch_unwind().await {
                Ok(Ok(0)) => {}
                Ok(Ok(_)) => wake(),
                Ok(Err(error)) => tracing::warn!(error = %error, "the schedule could not be read; trying again"),
                Err(_) => tracing::error!("the schedule panicked; trying again"),
            }
            match AssertUnwindSafe(self.prune()).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = %error, "old runs could not be removed; trying again"),
                Err(_) => tracing::error!("removing old runs panicked; trying again"),
            }
        }
        scheduler.shutdown().await
    }

    /// Looks what is due by the database's clock, and returns how many runs were made.
    async fn tick(&mut self) -> Result<u64, DatabaseError> {
        let cron = self.calendar.cron();
        let last = match self.last {
            Some(last) => last,
            None => match self.store.last_sweep(&cron).await? {
                Some(last) => last,
                None => {
                    let now = self.store.now().await?;
                    self.store.record_sweep(now, &cron, SweepDecision::Begin).await?;
                    now
                }
            },
        };
        self.last = Some(last);
        let about = self.clock.now(&self.store).await?;
        let deferred = self.make_deferred().await?;
        let Some(next) = self.calendar.next_after(last).filter(|next| *next <= about) else {
            return Ok(deferred);
        };
        // As though no process ran: nothing is on record, and what was missed is made up for afterwards.
        if let Some(global_pause) = self.store.global_pause().await? {
            if self.waiting.replace(next) != Some(next) {
                tracing::warn!(schedule.scheduled_for = %next.to_rfc3339_opts(SecondsFormat::Secs, true), since = %global_pause.since, by = global_pause.by, "a sweep waits: all merchants are paused; `merchants resume --all` ends the pause");
            }
            return Ok(0);
        }
        // Another replica may have started the sweep.
        let last = self.store.last_sweep(&cron).await?.unwrap_or(last).max(last);
        let now = self.store.now().await?;
        let mut made = deferred;
        let due = self.calendar.between(last, now);
        let latest = due.last().copied();
        for scheduled_for in due {
            made += self.decide(scheduled_for, Some(scheduled_for) == latest, now, &cron).await?;
            self.last = Some(scheduled_for);
        }
        Ok(made)
    }

    /// Starts the latest due sweep. Earlier ones are only recorded as skipped.
    async fn decide(
        &self,
        scheduled_for: DateTime<Utc>,
        latest: bool,
        now: DateTime<Utc>,
        cron: &str,
    ) -> Result<u64, DatabaseError> {
        let late = now - scheduled_for;
        let decision = if latest && late <= ON_TIME {
            Some(Trigger::Schedule)
        } else if latest && late.to_std().is_ok_and(|late| late <= self.catch_up) {
            Some(Trigger::CatchUp)
        } else {
            None
        }
        .map_or(SweepDecision::Skip, |trigger| SweepDecision::Run { trigger, spread: self.spread });
        let Some(recorded) = self.store.record_sweep(scheduled_for, cron, decision).await? else {
            return Ok(0);
        };
        match decision {
            SweepDecision::Run { trigger, .. } => report(scheduled_for, trigger, &recorded),
            SweepDecision::Skip | SweepDecision::Begin => {
                tracing::warn!(schedule.scheduled_for = %scheduled_for.to_rfc3339_opts(SecondsFormat::Secs, true), late_s = late.num_seconds(), "sweep skipped: it was missed, and is too old or replaced by a later one");
            }
        }
        Ok(recorded.runs)
    }

    /// Enqueues the runs of earlier sweeps whose merchants another session had locked.
    async fn make_deferred(&self) -> Result<u64, DatabaseError> {
        let made = self.store.enqueue_deferred().await?;
        if made.runs > 0 {
            tracing::info!(runs = made.runs, "runs of locked merchants are queued");
        }
        Ok(made.runs)
    }

    /// Removes a batch of old runs; the next one soon, while there are more.
    async fn prune(&mut self) -> Result<(), DatabaseError> {
        let now = Instant::now();
        if self.prune_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.prune_at = Some(now + PRUNE_EVERY);
        let removed = self.store.prune(self.keep_runs).await?;
        if removed >= PRUNE_BATCH {
            self.prune_at = Some(now + PRUNE_ON);
        }
        if removed > 0 {
            tracing::info!(runs = removed, "old runs removed");
        }
        Ok(())
    }
}

/// So many merchants are named in a log line.
const NAMED: usize = 20;

fn report(scheduled_for: DateTime<Utc>, trigger: Trigger, recorded: &RecordedSweep) {
    let scheduled_for = scheduled_for.to_rfc3339_opts(SecondsFormat::Secs, true);
    let named = |merchants: &[MerchantId]| merchants.iter().take(NAMED).map(|merchant| merchant.0).collect::<Vec<_>>();
    tracing::info!(schedule.scheduled_for = scheduled_for, trigger = %trigger, runs = recorded.runs, already_queued = recorded.already_queued.len(), "sweep begins");
    if !recorded.locked.is_empty() {
        tracing::warn!(
            schedule.scheduled_for = scheduled_for,
            stores = recorded.locked.len(),
            merchant.ids = ?named(&recorded.locked),
            "merchants are locked by another database session; their runs are queued later"
        );
    }
    if !recorded.already_queued.is_empty() {
        tracing::warn!(
            schedule.scheduled_for = scheduled_for,
            stores = recorded.already_queued.len(),
            merchant.ids = ?named(&recorded.already_queued),
            "merchants still have a queued scheduled run and get no second one; schedule sweeps less often, or raise reconcile.concurrency"
        );
    }
}
