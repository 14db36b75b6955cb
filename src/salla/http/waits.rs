//! The waits of requests. They show why a run does not move.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{MerchantId, Wait, WaitReason};

/// Shorter waits are a part of keeping to a limit, and are not shown.
const SHOWN_FROM: Duration = Duration::from_secs(5);

/// The waits of all merchants' requests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    tickets: u64,
    of: HashMap<MerchantId, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    wait: Wait,
    until: Instant,
}

/// One request's wait, until this is dropped.
#[derive(Debug)]
pub struct WaitGuard {
    waits: Waits,
    merchant: MerchantId,
    ticket: u64,
}

impl Waits {
    /// A request of the merchant starts to wait; `None`: the wait is too short to be shown.
    pub fn begin(&self, merchant: MerchantId, reason: WaitReason, message: &str, pause: Duration) -> Option<WaitGuard> {
        if pause < SHOWN_FROM {
            return None;
        }
        let mut table = self.0.lock();
        table.tickets += 1;
        let ticket = table.tickets;
        let wait = Wait { reason, message: message.to_owned() };
        table.of.entry(merchant).or_default().push(Entry { ticket, wait, until: Instant::now() + pause });
        Some(WaitGuard { waits: self.clone(), merchant, ticket })
    }

    /// What the merchant's requests wait for, and for how long.
    pub fn of(&self, merchant: MerchantId) -> Option<(Wait, Duration)> {
        let table = self.0.lock();
        let longest = table.of.get(&merchant)?.iter().max_by_key(|entry| entry.until)?;
        Some((longest.wait.clone(), longest.until.saturating_duration_since(Instant::now())))
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let mut table = self.waits.0.lock();
        if let Some(entries) = table.of.get_mut(&self.merchant) {
            entries.retain(|entry| entry.ticket != self.ticket);
            if entries.is_empty() {
                table.of.remove(&self.merchant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_is_shown_until_it_is_over() {
        let (waits, merchant) = (Waits::default(), MerchantId(1001));
        assert!(waits.begin(merchant, WaitReason::RateLimited, "a moment", Duration::from_secs(1)).is_none());
        let short = waits.begin(merchant, WaitReason::RateLimited, "short", Duration::from_secs(10));
        let long = waits.begin(merchant, WaitReason::SallaUnavailable, "long", Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(5)).await;
        let (wait, left) = waits.of(merchant).unwrap();
        assert_eq!((wait.message.as_str(), left), ("long", Duration::from_secs(55)));
        drop(long);
        assert_eq!(waits.of(merchant).unwrap().0.message, "short");
        drop(short);
        assert!(waits.of(merchant).is_none() && waits.0.lock().of.is_empty());
    }
}
