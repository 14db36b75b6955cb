//! All that the simulator knows, and all that it has seen.

use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, Utc};

use super::{fault::Fault, shop::Shop};

/// A request that came for a store's orders.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose.
    pub merchant_id: i64,
    /// Its query, by name.
    pub query: HashMap<String, String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// The stores, and how the server behaves.
#[derive(Debug, Default)]
pub struct World {
    /// By merchant id.
    pub shops: BTreeMap<i64, Shop>,
    /// What goes wrong with the next requests for a store's orders, one fault a request.
    pub faults: HashMap<i64, VecDeque<Fault>>,
    /// What goes wrong with every request for a store's orders.
    pub always: HashMap<i64, Fault>,
    /// What goes wrong with the next requests for tokens.
    pub token_faults: VecDeque<Fault>,
    /// Requests a minute and store; beyond it 429. `None`: no limit, and no headers that announce one.
    pub limit: Option<usize>,
    /// Rows a page at the most, whatever is asked for.
    pub page_cap: usize,
    /// Whether `updated_at_min` is honoured.
    pub honours_filter: bool,
    /// Whether the list begins with the newest change, and not with the oldest.
    pub newest_first: bool,
    /// How far the server's clock is ahead of this machine's.
    pub clock_ahead: chrono::TimeDelta,
    /// Every request for orders that came with a token.
    pub seen: Vec<Seen>,
    /// Refreshes that succeeded.
    pub refreshes: usize,
    /// What a good client never does: a broken limit, a refresh token used twice.
    pub violations: Vec<String>,
    pub(super) issued: i64,
}

impl World {
    /// A world of these stores that answers as Salla does.
    #[must_use]
    pub fn new(shops: impl IntoIterator<Item = Shop>) -> Self {
        Self {
            shops: shops.into_iter().map(|shop| (shop.merchant_id, shop)).collect(),
            page_cap: 60,
            honours_filter: true,
            issued: 1,
            ..Self::default()
        }
    }

    /// The server's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.clock_ahead
    }

    /// The store of that id.
    ///
    /// # Panics
    /// When there is none.
    pub fn shop(&mut self, merchant_id: i64) -> &mut Shop {
        self.shops.get_mut(&merchant_id).unwrap_or_else(|| panic!("there is no shop {merchant_id}"))
    }

    /// The next requests for a store's orders go wrong like this, one after the other.
    pub fn script(&mut self, merchant_id: i64, faults: impl IntoIterator<Item = Fault>) {
        self.faults.entry(merchant_id).or_default().extend(faults);
    }

    /// How many requests came for a store's orders.
    #[must_use]
    pub fn requests_for(&self, merchant_id: i64) -> usize {
        self.seen.iter().filter(|seen| seen.merchant_id == merchant_id).count()
    }

    pub(super) fn next_fault(&mut self, merchant_id: i64) -> Option<Fault> {
        self.faults
            .get_mut(&merchant_id)
            .and_then(VecDeque::pop_front)
            .or_else(|| self.always.get(&merchant_id).cloned())
    }

    /// Requests of the last minute, this one included, and how many there may be.
    pub(super) fn spent(&self, merchant_id: i64) -> usize {
        let since = self.now() - chrono::TimeDelta::seconds(60);
        let recent = self.seen.iter().rev().take_while(|seen| seen.at > since);
        recent.filter(|seen| seen.merchant_id == merchant_id).count()
    }
}
