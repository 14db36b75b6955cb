//! Takes events out of the outbox and delivers them.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    delivery_backoff::{DeliveryBackoff, pause},
    webhook::{Undeliverable, Webhook},
};
use crate::reconcile::{
    Metrics,
    ports::{Outbox, PendingDelivery},
};

/// Between looks at an outbox that has nothing.
const IDLE: Duration = Duration::from_secs(1);

/// Between looks at a replication slot for which events may wait.
const LOOK_AT_SLOT: Duration = Duration::from_secs(60);

/// One process's deliverer; each process has one, and an event is one's at a time.
pub struct Relay<O> {
    /// Where the events are.
    pub outbox: O,
    /// Where they go.
    pub webhook: Webhook,
    /// Where tries are counted.
    pub metrics: Arc<Metrics>,
}

impl<O: Outbox> Relay<O> {
    /// Delivers what there is until `draining`; what is on its way then has its answer first.
    pub async fn keep(self, draining: CancellationToken) {
        let (mut pace, mut slot_looked_at) = (DeliveryBackoff::default(), None::<Instant>);
        while !draining.is_cancelled() {
            let rest = self.round(&mut pace).await;
            if rest >= IDLE && slot_looked_at.is_none_or(|at| at.elapsed() >= LOOK_AT_SLOT) {
                self.look_at_slot().await;
                slot_looked_at = Some(Instant::now());
            }
            tokio::select! {
                () = draining.cancelled() => {}
                () = sleep(rest) => {}
            }
        }
    }

    /// Sends some events; gives for how long to rest.
    async fn round(&self, pace: &mut DeliveryBackoff) -> Duration {
        let taken = match self.outbox.take(pace.at_once()).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(error = %error, "the outbox cannot be read; events wait");
                return pace.went_wrong();
            }
        };
        if taken.is_empty() {
            return IDLE;
        }
        let answers = join_all(taken.iter().map(|one| self.send(one))).await;
        let (mut delivered, mut failed, mut refused, mut wants) = (Vec::new(), false, false, Duration::ZERO);
        for (one, answer) in taken.into_iter().zip(answers) {
            let Err(error) = answer else {
                delivered.push(one);
                continue;
            };
            wants = wants.max(error.retry_after().unwrap_or_default());
            self.put_off(&one, &error).await;
            if error.is_the_event_s() { refused = true } else { failed = true }
        }
        if let Err(error) = self.outbox.delivered(&delivered).await {
            tracing::warn!(error = %error, events = delivered.len(), "delivered events could not be removed from the outbox; they will be sent again");
            failed = true;
        }
        if failed {
            let rest = pace.went_wrong().max(wants);
            tracing::info!(rest = %humantime::format_duration(rest), "event delivery backing off");
            return rest;
        }
        if refused && delivered.is_empty() {
            return pace.refused().max(wants);
        }
        if pace.is_troubled() {
            tracing::info!("events are delivered again");
        }
        pace.went_well();
        Duration::ZERO
    }

    async fn send(&self, one: &PendingDelivery) -> Result<(), Undeliverable> {
        let Some(event) = &one.event else {
            return Ok(());
        };
        let sent = self.webhook.send(event, one.merchant).await;
        self.metrics.event(sent.as_ref().map_or_else(Undeliverable::result, |()| "delivered"));
        if sent.is_ok() {
            tracing::debug!(run.id = %event.run_id, merchant.id = one.merchant.0, "event delivered");
        }
        sent
    }

    async fn put_off(&self, one: &PendingDelivery, error: &Undeliverable) {
        let pause = pause(one.attempts, rand::random());
        let run = one.event.as_ref().map(|event| tracing::field::display(event.run_id));
        tracing::warn!(
            run.id = run,
            merchant.id = one.merchant.0,
            attempts = one.attempts,
            error = %error,
            again_after = %humantime::format_duration(Duration::from_secs(pause.as_secs())),
            "event not delivered; later events of the merchant wait"
        );
        if let Err(error) = self.outbox.put_off(one, pause).await {
            // It is due again when its turn lapses.
            tracing::warn!(error = %error, "the outbox cannot be written");
        }
    }

    async fn look_at_slot(&self) {
        match self.outbox.slot_trouble().await {
            Ok(Some(trouble)) => {
                tracing::error!("cdc.slot: {trouble}; events wait for this slot");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "the replication slot could not be checked"),
        }
    }
}
