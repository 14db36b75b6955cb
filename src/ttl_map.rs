//! Values that are used for a limited time without being read again.

use std::{collections::HashMap, fmt, hash::Hash, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Expired values are removed at most this often: each removal looks at all values.
const REMOVE_EVERY: Duration = Duration::from_secs(1);

/// A map whose values expire. A value that wipes itself when it is dropped does so when it is removed or replaced.
pub struct TtlMap<K, V> {
    ttl: Duration,
    max_len: usize,
    values: Mutex<Values<K, V>>,
}

struct Values<K, V> {
    by_key: HashMap<K, (Instant, V)>,
    removed_at: Instant,
}

impl<K, V> fmt::Debug for TtlMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.values.lock().by_key.len())
    }
}

impl<K: Eq + Hash, V: Clone> TtlMap<K, V> {
    /// Values expire after `ttl`. Beyond `max_len` values, further ones are not kept.
    #[must_use]
    pub fn new(ttl: Duration, max_len: usize) -> Self {
        Self { ttl, max_len, values: Mutex::new(Values { by_key: HashMap::new(), removed_at: Instant::now() }) }
    }

    /// The value, if it does not expire within `longer`.
    pub fn get(&self, key: &K, longer: Duration) -> Option<V> {
        let values = self.values.lock();
        let (expires_at, value) = values.by_key.get(key)?;
        (*expires_at > Instant::now() + longer).then(|| value.clone())
    }

    /// Keeps a value, and returns it.
    pub fn insert(&self, key: K, value: V) -> V {
        let (mut values, now) = (self.values.lock(), Instant::now());
        if values.removed_at + REMOVE_EVERY <= now {
            values.by_key.retain(|_, (expires_at, _)| *expires_at > now);
            values.removed_at = now;
        }
        if values.by_key.len() < self.max_len || values.by_key.contains_key(&key) {
            values.by_key.insert(key, (now + self.ttl, value.clone()));
        }
        value
    }

    /// Removes a value.
    pub fn remove(&self, key: &K) {
        self.values.lock().by_key.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_value_expires() {
        let map = TtlMap::new(MINUTE * 10, 100);
        assert_eq!(map.insert(1, "a"), "a");
        assert_eq!((map.get(&1, Duration::ZERO), map.get(&2, Duration::ZERO)), (Some("a"), None));
        tokio::time::advance(MINUTE * 9).await;
        assert_eq!(map.get(&1, Duration::from_secs(59)), Some("a"));
        assert_eq!(map.get(&1, MINUTE), None);
        map.insert(2, "b");
        tokio::time::advance(MINUTE).await;
        map.insert(3, "c");
        assert_eq!(format!("{map:?}"), "2 values", "expired values are removed");
        map.remove(&2);
        assert_eq!(map.get(&2, Duration::ZERO), None);
    }

    #[tokio::test(start_paused = true)]
    async fn values_beyond_the_maximum_are_not_kept() {
        let map = TtlMap::new(MINUTE, 3);
        for key in 0..=3 {
            assert_eq!(map.insert(key, key), key);
        }
        assert_eq!((format!("{map:?}"), map.get(&3, Duration::ZERO)), ("3 values".to_owned(), None));
        map.insert(0, 7);
        assert_eq!(map.get(&0, Duration::ZERO), Some(7), "a value may be replaced");
    }
}
