//! Takes events out of the outbox and delivers them.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    delivery_backoff::{DeliveryBackoff, pause},
    webhook::{TIMEOUT, Undeliverable, Webhook},
};
use crate::reconcile::{
    Heartbeat, Metrics,
    ports::{DELIVERY_LEASE, Outbox, OutboxEvent, PendingDelivery},
};

/// Between looks at an outbox that has nothing.
const IDLE: Duration = Duration::from_secs(1);

/// No further event of a merchant is sent after this time, so that a slow receiver does not delay other merchants for long.
const MAX_SENDING_TIME: Duration = Duration::from_secs(5);

// The last answer comes before another process takes the events.
const _: () = assert!(MAX_SENDING_TIME.as_secs() + TIMEOUT.as_secs() < DELIVERY_LEASE.as_secs());

/// Between looks at a replication slot for which events may wait.
const LOOK_AT_SLOT: Duration = Duration::from_secs(60);

/// The event delivery of a process. Two processes never deliver events of one merchant at the same time.
pub struct Relay<O> {
    /// Where the events are.
    pub outbox: O,
    /// Where they go.
    pub webhook: Webhook,
    /// Where tries are counted.
    pub metrics: Arc<Metrics>,
    /// Beats while the loop turns.
    pub heartbeat: Heartbeat,
}

impl<O: Outbox> Relay<O> {
    /// Delivers the events of the outbox until `draining` is called. Before it returns, the events on their way get
    /// their answers.
    pub async fn keep(self, draining: CancellationToken) {
        let (mut pace, mut slot_looked_at) = (DeliveryBackoff::default(), None::<Instant>);
        while !draining.is_cancelled() {
            let rest = self.round(&mut pace, &draining).await;
            if rest >= IDLE && slot_looked_at.is_none_or(|at| at.elapsed() >= LOOK_AT_SLOT) {
                self.look_at_slot().await;
                slot_looked_at = Some(Instant::now());
            }
            tokio::select! {
                () = draining.cancelled() => {}
                () = self.heartbeat.sleep(rest) => {}
            }
        }
    }

    /// Sends some events; gives for how long to rest.
    async fn round(&self, pace: &mut DeliveryBackoff, draining: &CancellationToken) -> Duration {
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
        let answers = join_all(taken.iter().map(|one| self.send_in_order(one, draining))).await;
        let (mut delivered, mut failed, mut refused, mut wants) = (Vec::new(), false, false, Duration::ZERO);
        for (mut one, (sent, error)) in taken.into_iter().zip(answers) {
            if let Some(error) = error {
                wants = wants.max(error.retry_after().unwrap_or_default());
                if error.is_per_event() {
                    refused = true;
                } else {
                    failed = true;
                }
                if sent == 0 {
                    self.reschedule(&one, &error).await;
                    continue;
                }
                log_failure(&one, &one.events[sent], 0, &error, Duration::ZERO);
            }
            // The rest is due again at once.
            one.events.truncate(sent);
            delivered.push(one);
        }
        if let Err(error) = self.outbox.delivered(&delivered).await {
            let events: usize = delivered.iter().map(|one| one.events.len()).sum();
            tracing::warn!(error = %error, events, "delivered events could not be removed from the outbox; they will be sent again");
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
        pace.on_success();
        Duration::ZERO
    }

    /// Sends the events of a merchant one after the other, up to the first that is not delivered or to the end of the time.
    /// Returns how many were delivered, and why the next one was not.
    async fn send_in_order(
        &self,
        one: &PendingDelivery,
        draining: &CancellationToken,
    ) -> (usize, Option<Undeliverable>) {
        let began = Instant::now();
        for (sent, event) in one.events.iter().enumerate() {
            if sent > 0 && (draining.is_cancelled() || began.elapsed() >= MAX_SENDING_TIME) {
                return (sent, None);
            }
            let answer = self.webhook.send(event, one.merchant).await;
            self.metrics.event(answer.as_ref().map_or_else(Undeliverable::result, |()| "delivered"));
            if let Err(error) = answer {
                return (sent, Some(error));
            }
            tracing::debug!(run.id = %event.run_id, merchant.id = one.merchant.0, event.id = %event.event_id, "event delivered");
        }
        (one.events.len(), None)
    }

    async fn reschedule(&self, one: &PendingDelivery, error: &Undeliverable) {
        let pause = pause(one.attempts, rand::random());
        if let Some(event) = one.events.first() {
            log_failure(one, event, one.attempts, error, pause);
        }
        if let Err(error) = self.outbox.reschedule(one, pause).await {
            // It is due again when its turn lapses.
            tracing::warn!(error = %error, "the outbox cannot be written");
        }
    }

    async fn look_at_slot(&self) {
        match self.outbox.slot_problem().await {
            Ok(Some(problem)) => {
                tracing::error!("cdc.slot: {problem}; events wait for this slot");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "the replication slot could not be checked"),
        }
    }
}

fn log_failure(delivery: &PendingDelivery, event: &OutboxEvent, attempts: u32, error: &Undeliverable, pause: Duration) {
    tracing::warn!(
        run.id = %event.run_id,
        event.id = %event.event_id,
        merchant.id = delivery.merchant.0,
        attempts,
        error = %error,
        again_after = %humantime::format_duration(Duration::from_secs(pause.as_secs())),
        "event not delivered; later events of the merchant wait"
    );
}
