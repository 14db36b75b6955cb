//! What AWS told not long ago, so that it need not be asked for each request to Salla.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::MerchantId;

/// As long as this it is used without asking again. A key that is taken away in AWS works here no longer than this.
const USED_FOR: Duration = Duration::from_secs(600);

/// So many merchants' are kept. Those in excess are asked for each time.
const AT_MOST: usize = 10_000;

/// A value a merchant. Values wipe themselves.
pub(super) struct Recent<T> {
    values: Mutex<HashMap<MerchantId, (Instant, Arc<T>)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { values: Mutex::default() }
    }
}

impl<T> fmt::Debug for Recent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.values.lock().len())
    }
}

impl<T> Recent<T> {
    /// The value, if it may be used for this much longer.
    pub fn get(&self, merchant: MerchantId, longer: Duration) -> Option<Arc<T>> {
        let values = self.values.lock();
        let (until, value) = values.get(&merchant)?;
        (*until > Instant::now() + longer).then(|| Arc::clone(value))
    }

    /// Keeps a value.
    pub fn put(&self, merchant: MerchantId, value: T) -> Arc<T> {
        let (value, now) = (Arc::new(value), Instant::now());
        let mut values = self.values.lock();
        values.retain(|known, (until, _)| *known != merchant && *until > now);
        if values.len() < AT_MOST {
            values.insert(merchant, (now + USED_FOR, Arc::clone(&value)));
        }
        value
    }

    /// Forgets what is known of a merchant.
    pub fn forget(&self, merchant: MerchantId) {
        self.values.lock().remove(&merchant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_used_for_a_while_and_no_longer() {
        let (recent, merchant) = (Recent::default(), MerchantId(1));
        recent.put(merchant, "a");
        assert_eq!(recent.get(merchant, Duration::ZERO).as_deref(), Some(&"a"));
        assert_eq!(recent.get(MerchantId(2), Duration::ZERO), None);
        tokio::time::advance(USED_FOR - Duration::from_secs(60)).await;
        assert_eq!(recent.get(merchant, Duration::from_secs(59)).as_deref(), Some(&"a"));
        assert_eq!(recent.get(merchant, Duration::from_secs(60)), None);
        recent.put(MerchantId(2), "b");
        tokio::time::advance(Duration::from_secs(60)).await;
        recent.put(MerchantId(3), "c");
        assert_eq!(format!("{recent:?}"), "2 values", "what is over is wiped");
        recent.forget(MerchantId(2));
        assert_eq!(recent.get(MerchantId(2), Duration::ZERO), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_so_many() {
        let recent = Recent::default();
        for merchant in 0..=10_000 {
            assert_eq!(*recent.put(MerchantId(merchant), merchant), merchant);
        }
        assert_eq!(format!("{recent:?}"), "10000 values");
        assert_eq!(recent.get(MerchantId(10_000), Duration::ZERO), None);
        // One that is there already may be replaced.
        recent.put(MerchantId(0), 7);
        assert_eq!(recent.get(MerchantId(0), Duration::ZERO).as_deref(), Some(&7));
    }
}
