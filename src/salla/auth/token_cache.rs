//! Tokens that were read a moment ago, so that a store's pages in a row do not each ask the database for the same.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{domain::MerchantId, reconcile::ports::Credentials};

/// For so long they are used without reading them again. What becomes of them meanwhile, in another process or in a call
/// that ran beside the one that read them, is told by Salla's answer, as it is to a request that was under way.
const FRESH: Duration = Duration::from_secs(1);

/// Those of the last second, and hardly more: each time, what is older is wiped.
#[derive(Debug)]
pub(in crate::salla) struct TokenCache(Mutex<Known>);

#[derive(Debug)]
struct Known {
    tokens: HashMap<MerchantId, (Credentials, Instant)>,
    wiped_at: Instant,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self(Mutex::new(Known { tokens: HashMap::new(), wiped_at: Instant::now() }))
    }
}

impl TokenCache {
    pub fn get(&self, merchant: MerchantId) -> Option<Credentials> {
        let known = self.0.lock();
        let (credentials, read_at) = known.tokens.get(&merchant)?;
        (read_at.elapsed() < FRESH).then(|| credentials.clone())
    }

    pub fn put(&self, merchant: MerchantId, credentials: Credentials) {
        let (mut known, now) = (self.0.lock(), Instant::now());
        if known.wiped_at + FRESH <= now {
            known.tokens.retain(|_, (_, read_at)| *read_at + FRESH > now);
            known.wiped_at = now;
        }
        known.tokens.insert(merchant, (credentials, now));
    }

    pub fn forget(&self, merchant: MerchantId) {
        self.0.lock().tokens.remove(&merchant);
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::reconcile::ports::Tokens;

    fn of_version(version: i64) -> Credentials {
        let tokens = Tokens { access: "a".into(), refresh: None, expires_at: None, owner_confirmed: false };
        Credentials { tokens, issued_at: Utc::now(), version, refreshing_for: None, refused: false }
    }

    #[tokio::test(start_paused = true)]
    async fn known_for_a_second() {
        let (known, [one, other]) = (TokenCache::default(), [MerchantId(1), MerchantId(2)]);
        assert!(known.get(one).is_none());
        known.put(one, of_version(1));
        known.put(other, of_version(7));
        assert_eq!(known.get(one).map(|known| known.version), Some(1));
        known.forget(one);
        assert!(known.get(one).is_none(), "forgotten");
        tokio::time::advance(FRESH).await;
        assert!(known.get(other).is_none(), "too old");
        known.put(one, of_version(2));
        assert_eq!(known.0.lock().tokens.len(), 1, "what is old is wiped");
    }
}
