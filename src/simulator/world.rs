//! All that the simulator knows, and all that it has seen.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    fault::Fault,
    limit::{Admission, Limit, Meter},
    shop::Shop,
    webhooks::Webhook,
};

/// A request that came for a store's records.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The merchant.
    pub merchant_id: i64,
    /// Of which kind, by the name of their list.
    pub list: &'static str,
    /// The record that was asked for; `None`: the list.
    pub id: Option<i64>,
    /// Its query, by name.
    pub query: HashMap<String, String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// In which order the list stands when the client asks for none, or the server does not listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ListOrder {
    #[default]
    UpdatedAscending,
    UpdatedDescending,
    CreatedAscending,
    CreatedDescending,
    Id,
    /// Arbitrary, and always the same.
    Scattered,
}

/// In which order records with one time stamp stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ties {
    /// By their ids.
    #[default]
    ById,
    /// In another order in each answer.
    EachRequest,
    /// In another order on each page, and in the same order whenever this page is requested. A
    /// database does so if it keeps only the rows in memory that the page needs.
    EachPage,
    /// The same, and of whatever size the page is.
    EachPageNumber,
}

/// What the days of `from_date` and `to_date` hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DayBounds {
    /// Both days.
    #[default]
    Inclusive,
    /// The first, and not the last.
    HalfOpen,
    /// Neither.
    Exclusive,
}

/// What happens in the world after each answer.
pub type Between = Box<dyn FnMut(&mut BTreeMap<i64, Shop>, &mut TimeDelta) + Send>;

/// The stores, and how the server behaves.
#[derive(Default)]
pub struct World {
    /// By merchant id.
    pub shops: BTreeMap<i64, Shop>,
    /// What goes wrong with the next requests for a store's records, one fault a request.
    pub faults: HashMap<i64, VecDeque<Fault>>,
    /// What goes wrong with every request for a store's records.
    pub always: HashMap<i64, Fault>,
    /// What goes wrong with the next requests for tokens.
    pub token_faults: VecDeque<Fault>,
    /// The status of every answer about the owner of a token; `None`: a right answer.
    pub owner_status: Option<u16>,
    /// Requests a minute and store; beyond it 429. `None`: no limit, and no headers that announce one.
    pub limit: Option<Limit>,
    /// Requests for customers in ten minutes, whatever the store; beyond it 429.
    pub customers_limit: Option<usize>,
    /// The use of the limit of each store.
    meters: HashMap<i64, Meter>,
    /// The largest page, whatever size a request asks for.
    pub page_cap: usize,
    /// Pages have `page_cap` rows, whatever is asked for.
    pub ignores_page_size: bool,
    /// Whether `updated_at_min` is honoured.
    pub honours_filter: bool,
    /// In which order the list stands.
    pub list_order: ListOrder,
    /// In which order records with one time stamp stand.
    pub ties: Ties,
    /// The server is as its public documentation has it: summaries, details by request, no filter by change.
    pub documented: bool,
    /// The rows of such a server are complete all the same.
    pub whole_rows: bool,
    /// Whether `sort_by` is honoured, by a server that is as documented.
    pub honours_sort: bool,
    /// Whether `sort_by` is honoured beside `updated_at_min`.
    pub sorts_filtered: bool,
    /// What `from_date` and `to_date` hold.
    pub day_bounds: DayBounds,
    /// No list can be read beyond this row.
    pub row_window: usize,
    /// Lists show neither `total` nor `totalPages`.
    pub hides_totals: bool,
    /// What happens after each answer.
    pub(super) between: Option<Between>,
    /// How far the server's clock is ahead of this machine's.
    pub clock_ahead: TimeDelta,
    /// Every request for records that came with a token.
    pub seen: Vec<Seen>,
    /// Refreshes that succeeded.
    pub refreshes: usize,
    /// Violations of a client: an exceeded limit, a refresh token used twice.
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
            honours_sort: true,
            row_window: 10_000,
            issued: 1,
            ..Self::default()
        }
    }

    /// Whether the server treats a store as its public documentation says.
    #[must_use]
    pub fn is_documented(&self, shop: &Shop) -> bool {
        self.documented || shop.documented
    }

    /// The server's clock.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.clock_ahead
    }

    /// In each store an order is placed, changed or, seldom, deleted. Returns the webhooks that report it.
    pub fn trade(&mut self, now: DateTime<Utc>) -> Vec<Webhook> {
        self.shops.values_mut().map(|shop| shop.trade(now)).collect()
    }

    /// The store of that id.
    ///
    /// # Panics
    /// When the world has no such store.
    pub fn shop(&mut self, merchant_id: i64) -> &mut Shop {
        self.shops.get_mut(&merchant_id).unwrap_or_else(|| panic!("there is no shop {merchant_id}"))
    }

    /// The next requests for a store's records go wrong like this, one after the other.
    pub fn script(&mut self, merchant_id: i64, faults: impl IntoIterator<Item = Fault>) {
        self.faults.entry(merchant_id).or_default().extend(faults);
    }

    /// From now on this happens after each answer, to the stores and to the server's clock.
    pub fn between_answers(&mut self, between: impl FnMut(&mut BTreeMap<i64, Shop>, &mut TimeDelta) + Send + 'static) {
        self.between = Some(Box::new(between));
    }

    /// Nothing happens any more after an answer.
    pub fn quiet(&mut self) {
        self.between = None;
    }

    pub(super) fn turn(&mut self) {
        if let Some(between) = &mut self.between {
            between(&mut self.shops, &mut self.clock_ahead);
        }
    }

    /// Whether the store's token does without a scope.
    pub(super) fn lacks(&self, merchant_id: i64, scope: &str) -> bool {
        self.shops.get(&merchant_id).is_some_and(|shop| shop.withheld.contains(&scope))
    }

    /// How many requests came for a store's records.
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

    /// Counts a request for customers against what an address may send, and judges: after how many seconds another is
    /// admitted.
    pub(super) fn spend_address(&mut self, list: &str) -> Option<i64> {
        let limit = self.customers_limit.filter(|_| list == "customers")?;
        let since = self.now() - TimeDelta::minutes(10);
        let sent = self.seen.iter().filter(|seen| seen.list == list && seen.at > since).count();
        (sent > limit).then(|| {
            self.violations.push(format!("more than {limit} requests for customers in ten minutes"));
            600
        })
    }

    /// Counts a request against the store's limit, and judges.
    pub(super) fn spend(&mut self, merchant_id: i64, limit: Limit) -> Admission {
        let now = self.now();
        let verdict = self.meters.entry(merchant_id).or_default().count(limit, now);
        if !verdict.admitted {
            self.violations.push(format!("store {merchant_id}: more than {} requests in a minute", limit.per_minute));
        }
        verdict
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("shops", &self.shops).field("seen", &self.seen).finish_non_exhaustive()
    }
}
