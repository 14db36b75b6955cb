//! A server in memory that sorts its list, or seems to, while its orders change.

use std::{cmp::Reverse, collections::BTreeMap};

use chrono::{DateTime, TimeDelta};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::reconcile::sorted::Stamp;

/// By what a server sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Updated,
    /// Differences of seconds do not matter.
    UpdatedMinute,
    /// By creation, and within each page by time of change.
    WithinPage,
    CreatedDescending,
    CreatedAscending,
    IdDescending,
    IdAscending,
    Amount,
    /// In another order every night.
    RandomEachNight,
    RandomEachRequest,
    /// By time of change every second night, else by creation.
    EverySecondNight,
    /// By the time of the last change that the row shows.
    ShownChanges,
    /// Only the orders of the last 30 days; behind them the others by creation.
    NewOrders,
}

impl Sort {
    pub const NOT_BY_CHANGE: [Self; 9] = [
        Self::WithinPage,
        Self::CreatedDescending,
        Self::CreatedAscending,
        Self::IdDescending,
        Self::IdAscending,
        Self::Amount,
        Self::RandomEachNight,
        Self::RandomEachRequest,
        Self::EverySecondNight,
    ];

    /// Whether the rows really stand in the order of their changes, to a minute.
    pub fn is_sorted(self) -> bool {
        matches!(self, Self::Updated | Self::UpdatedMinute)
    }

    /// Whether the rows look sorted, although some changes do not move their row. No reading of the list can show this.
    pub fn looks_sorted(self) -> bool {
        matches!(self, Self::ShownChanges | Self::NewOrders)
    }
}

/// In which order orders with equal time stamps stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    Fixed,
    EachRequest,
    EachPage,
}

/// In which order ids are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    ByCreation,
    /// The orders were imported from another platform, those that changed first of all first.
    ByFirstChange,
    Random,
}

/// Where orders without a time of change stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    First,
    Last,
}

/// How many pages an answer says there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalPages {
    Exact,
    /// As many as there were some minutes ago.
    Old,
    Absent,
}

/// What a seed decides about a store and its server.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub sort: Sort,
    pub ties: Ties,
    pub ids: Ids,
    pub nulls: Nulls,
    /// The share of orders without a time of change.
    pub without_stamp: f64,
    pub page_size: usize,
    pub total_pages: TotalPages,
    /// The list is empty behind this row.
    pub row_window: usize,
    /// An answer is up to this old.
    pub list_lag: i64,
    pub details_lag: i64,
    /// How likely an event is after a request.
    pub unrest: f64,
    pub orders: usize,
    pub changes: usize,
    pub bulk: usize,
    /// On one of the days, all orders change at once.
    pub changes_all: bool,
    /// The share of changes that do not move the time of change.
    pub silent: f64,
    /// So many orders are hidden each day, and some of them change before they are shown again.
    pub hidden: usize,
    /// The share of stored copies with a wrong time stamp.
    pub wrong_copies: f64,
    /// The share of changes that a webhook brings.
    pub webhooks: f64,
    /// On one of the days, the orders are restored from a backup, and the watermark is not.
    pub is_restored: bool,
    /// The records that are stored at the beginning.
    pub start: Start,
    /// Within how many nights all details are read; 0: never.
    pub detail_check_nights: i64,
    /// Seconds that a request may take.
    pub latency: i64,
    /// Every second night is a scan.
    pub scans: bool,
    pub nights: u32,
    /// In this night, the list is sorted by creation.
    pub wrong_night: Option<u32>,
    /// The details of some orders cannot be read.
    pub has_unreadable: bool,
}

/// The records that are stored at the beginning of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All orders, as a full run leaves them.
    Full,
    /// The orders that webhooks brought.
    Webhooks,
    /// All orders, as scans leave them: the details were read on different nights.
    Scans,
}

impl Plan {
    /// A store where nothing happens but the changes of a day.
    pub fn quiet(orders: usize, changes: usize) -> Self {
        Self {
            sort: Sort::Updated,
            ties: Ties::Fixed,
            ids: Ids::Random,
            nulls: Nulls::Last,
            without_stamp: 0.0,
            page_size: 60,
            total_pages: TotalPages::Exact,
            row_window: 10_000,
            list_lag: 0,
            details_lag: 0,
            unrest: 0.0,
            orders,
            changes,
            bulk: 0,
            changes_all: false,
            silent: 0.0,
            hidden: 0,
            wrong_copies: 0.0,
            webhooks: 0.0,
            is_restored: false,
            start: Start::Full,
            detail_check_nights: 0,
            latency: 1,
            scans: false,
            nights: 1,
            wrong_night: None,
            has_unreadable: false,
        }
    }

    /// The plan of a seed.
    pub fn of(rng: &mut StdRng) -> Self {
        let sort = match rng.random_range(0..20) {
            0..9 => Sort::Updated,
            9..11 => Sort::UpdatedMinute,
            11 => Sort::ShownChanges,
            12 => Sort::NewOrders,
            _ => Sort::NOT_BY_CHANGE[rng.random_range(0..Sort::NOT_BY_CHANGE.len())],
        };
        let page_size = [5, 10, 15, 20][rng.random_range(0..4usize)];
        let orders = match rng.random_range(0..20) {
            0 => rng.random_range(0..page_size * 2),
            _ => rng.random_range(130..400),
        };
        let often = |rng: &mut StdRng, share: f64, value: f64| if rng.random_bool(share) { value } else { 0.0 };
        Self {
            sort,
            ties: [Ties::Fixed, Ties::EachRequest, Ties::EachPage][rng.random_range(0..3usize)],
            ids: [Ids::ByCreation, Ids::ByFirstChange, Ids::Random][rng.random_range(0..3usize)],
            nulls: [Nulls::First, Nulls::Last][rng.random_range(0..2usize)],
            without_stamp: often(rng, 0.1, 0.05),
            page_size,
            total_pages: match rng.random_range(0..10) {
                0..6 => TotalPages::Exact,
                6 => TotalPages::Old,
                _ => TotalPages::Absent,
            },
            row_window: if rng.random_bool(0.1) { rng.random_range(20..100) } else { 10_000 },
            list_lag: if rng.random_bool(0.3) { 5 } else { 0 },
            details_lag: if rng.random_bool(0.2) { 5 } else { 0 },
            unrest: [0.0, 0.05, 0.15, 0.4][rng.random_range(0..4usize)],
            changes: rng.random_range(0..=orders / 4),
            bulk: if rng.random_bool(0.4) { rng.random_range(1..page_size * 5) } else { 0 },
            changes_all: rng.random_bool(0.05),
            silent: often(rng, 0.2, 0.1),
            hidden: if rng.random_bool(0.1) { 3 } else { 0 },
            wrong_copies: often(rng, 0.3, 0.02),
            webhooks: [0.0, 0.5, 0.9][rng.random_range(0..3usize)],
            is_restored: rng.random_bool(0.05),
            start: match rng.random_range(0..10) {
                0 => Start::Webhooks,
                1 => Start::Scans,
                _ => Start::Full,
            },
            detail_check_nights: [0, 5][rng.random_range(0..2usize)],
            latency: if rng.random_bool(0.1) { 60 } else { 2 },
            scans: rng.random_bool(0.15),
            nights: if rng.random_bool(0.1) { 20 } else { 5 },
            wrong_night: None,
            has_unreadable: orders % 7 == 0,
            orders,
        }
    }
}

/// A change of an order. The first one is its creation.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub at: Stamp,
    /// The night that follows.
    pub night: u32,
    /// The row of the list shows it.
    pub is_shown: bool,
    /// It moves the time of change.
    pub is_stamped: bool,
}

/// An order with all its changes.
#[derive(Debug, Clone)]
pub struct Order {
    amount: u32,
    has_stamp: bool,
    pub changes: Vec<Change>,
    /// The times in which the list does not show it, and the night after each.
    hidden: Vec<(Stamp, Stamp, u32)>,
}

/// What the details of an order show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// How many changes it contains.
    pub number: usize,
    /// How many of them the row shows.
    pub row: usize,
    pub stamp: Option<Stamp>,
}

impl Order {
    pub fn is_listed(&self, at: Stamp) -> bool {
        self.created_at() <= at && self.hidden_since(at).is_none()
    }

    /// The version of the order at an instant, if the list shows the order then.
    pub fn version(&self, at: Stamp) -> Option<Version> {
        let changes = self.changes.iter().take_while(|change| change.at <= at);
        let number = changes.clone().count();
        let row = changes.clone().filter(|change| change.is_shown).count();
        let stamp = changes.filter(|change| change.is_stamped).last().map(|change| change.at);
        self.is_listed(at).then_some(Version { number, row, stamp: stamp.filter(|_| self.has_stamp) })
    }

    /// The night before which the list showed the order again or for the first time.
    pub fn shown_again(&self, at: Stamp) -> u32 {
        let shown = self.hidden.iter().filter(|(_, to, _)| *to <= at);
        shown.map(|(_, _, night)| *night + 1).max().unwrap_or_default()
    }

    /// The night before which the list ceased to show it.
    pub fn hidden_since(&self, at: Stamp) -> Option<u32> {
        self.hidden.iter().find(|(from, to, _)| (*from..*to).contains(&at)).map(|(_, _, night)| *night)
    }

    /// Whether nothing happened to the order since an instant.
    pub fn is_untouched_since(&self, since: Stamp) -> bool {
        let is_moved = self.hidden.iter().any(|(from, to, _)| *from >= since || *to >= since && *to < Stamp::MAX_UTC);
        self.changes.last().is_none_or(|change| change.at < since) && !is_moved
    }

    pub fn created_at(&self) -> Stamp {
        self.changes[0].at
    }

    fn changed_at(&self, at: Stamp, counts: impl Fn(&Change) -> bool) -> Option<Stamp> {
        let changes = self.changes.iter().take_while(|change| change.at <= at);
        changes.filter(|change| change.is_stamped && counts(change)).last().map(|change| change.at)
    }
}

/// An answer to a request for a page.
pub struct Answer {
    /// Ids with what their rows show.
    pub rows: Vec<(i64, usize)>,
    pub total: usize,
    pub total_pages: Option<u32>,
    pub served_at: Stamp,
}

pub struct Server {
    pub plan: Plan,
    rng: StdRng,
    pub orders: BTreeMap<i64, Order>,
    pub now: Stamp,
    pub night: u32,
    pub requests: usize,
}

impl Server {
    pub fn new(plan: Plan, mut rng: StdRng) -> Self {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let mut server =
            Self { plan, orders: BTreeMap::new(), now, night: 0, requests: 0, rng: StdRng::from_rng(&mut rng) };
        let mut orders: Vec<Vec<Stamp>> = Vec::new();
        for _ in 0..plan.orders {
            let ago = rng.random_range(3_600..60 * 86_400);
            let created = now - TimeDelta::seconds(ago);
            let changed = created + TimeDelta::seconds(rng.random_range(1..=ago.min(20 * 86_400)));
            orders.push(if rng.random_bool(0.8) { vec![created, changed] } else { vec![created] });
        }
        match plan.ids {
            Ids::ByCreation => orders.sort(),
            Ids::ByFirstChange => orders.sort_by_key(|changes| changes.last().copied()),
            Ids::Random => {}
        }
        for changes in orders {
            let id = server.add(changes[0]);
            changes[1..].iter().for_each(|at| server.change(id, *at));
        }
        server
    }

    fn add(&mut self, created: Stamp) -> i64 {
        let id = match self.plan.ids {
            Ids::ByCreation | Ids::ByFirstChange => self.orders.len() as i64 + 1_000,
            Ids::Random => self.rng.random_range(1..1_000_000_000),
        };
        let created = Change { at: created, night: self.night, is_shown: true, is_stamped: true };
        let has_stamp = !self.rng.random_bool(self.plan.without_stamp);
        let order = Order { amount: self.rng.random(), has_stamp, changes: vec![created], hidden: Vec::new() };
        self.orders.insert(id, order);
        id
    }

    /// Every third change is one that only details show.
    fn change(&mut self, id: i64, at: Stamp) {
        let is_stamped = !self.rng.random_bool(self.plan.silent);
        let change = Change { at, night: self.night, is_shown: at.timestamp() % 3 != 0, is_stamped };
        if let Some(order) = self.orders.get_mut(&id).filter(|order| order.changes.last().is_some_and(|c| c.at < at)) {
            order.changes.push(change);
        }
    }

    fn hide(&mut self, id: i64, from: Stamp, to: Stamp) {
        if let Some(order) = self.orders.get_mut(&id) {
            order.hidden.push((from, to, self.night));
        }
    }

    fn listed_ids(&self, at: Stamp) -> Vec<i64> {
        self.orders.iter().filter(|(_, order)| order.is_listed(at)).map(|(id, _)| *id).collect()
    }

    /// The orders that the list shows at an instant.
    pub fn listed(&self, at: Stamp) -> Vec<(i64, Version)> {
        self.orders.iter().filter_map(|(id, order)| Some((*id, order.version(at)?))).collect()
    }

    /// The list in its order at an instant, for a request for a certain page.
    fn list(&mut self, at: Stamp, number: u32, size: usize) -> Vec<i64> {
        let mut rows = self.listed_ids(at);
        let tie_seed = match self.plan.ties {
            Ties::Fixed => 0,
            Ties::EachRequest => self.rng.random(),
            Ties::EachPage => u64::from(number) * 1_000 + size as u64,
        };
        rows.shuffle(&mut StdRng::seed_from_u64(tie_seed));
        self.sort(&mut rows, at, size);
        rows
    }

    fn sort(&self, rows: &mut [i64], at: Stamp, size: usize) {
        let created = |id: &i64| self.orders[id].created_at();
        let sort = match self.plan.sort {
            Sort::EverySecondNight if self.night.is_multiple_of(2) => Sort::Updated,
            Sort::EverySecondNight => Sort::CreatedDescending,
            _ if self.plan.wrong_night == Some(self.night) => Sort::CreatedAscending,
            sort => sort,
        };
        let nulls = |id: &i64| self.orders[id].has_stamp == (self.plan.nulls == Nulls::First);
        let changed = |id: &i64, counts: fn(&Change) -> bool| self.orders[id].changed_at(at, counts);
        match sort {
            Sort::Updated | Sort::EverySecondNight => {
                rows.sort_by_cached_key(|id| (nulls(id), Reverse(changed(id, |_| true))));
            }
            Sort::ShownChanges => rows.sort_by_cached_key(|id| Reverse(changed(id, |change| change.is_shown))),
            Sort::NewOrders => rows.sort_by_cached_key(|id| {
                let is_new = at - created(id) < TimeDelta::days(30);
                Reverse((is_new, if is_new { changed(id, |_| true) } else { Some(created(id)) }))
            }),
            Sort::UpdatedMinute => {
                rows.sort_by_cached_key(|id| (nulls(id), Reverse(changed(id, |_| true).map(|at| at.timestamp() / 60))));
            }
            Sort::CreatedDescending => rows.sort_by_cached_key(|id| (Reverse(created(id)), *id)),
            Sort::CreatedAscending => rows.sort_by_cached_key(|id| (created(id), *id)),
            Sort::IdDescending => rows.sort_by_cached_key(|id| Reverse(*id)),
            Sort::IdAscending => rows.sort_by_cached_key(|id| *id),
            Sort::Amount => rows.sort_by_cached_key(|id| (self.orders[id].amount, *id)),
            Sort::RandomEachNight => {
                rows.sort_unstable();
                rows.shuffle(&mut StdRng::seed_from_u64(u64::from(self.night)));
            }
            Sort::RandomEachRequest => {}
            Sort::WithinPage => {
                rows.sort_by_cached_key(|id| (Reverse(created(id)), *id));
                rows.chunks_mut(size).for_each(|page| page.sort_by_cached_key(|id| Reverse(changed(id, |_| true))));
            }
        }
    }

    pub fn page(&mut self, number: u32, size: usize) -> Answer {
        self.requests += 1;
        let served_at = self.now;
        let at = self.now - TimeDelta::seconds(self.rng.random_range(0..=self.plan.list_lag));
        let rows = self.list(at, number, size);
        let pages = |rows: usize| u32::try_from(rows.div_ceil(size)).ok();
        let total_pages = match self.plan.total_pages {
            TotalPages::Exact => pages(rows.len()),
            TotalPages::Old => pages(self.listed_ids(at - TimeDelta::minutes(3)).len()),
            TotalPages::Absent => None,
        };
        let readable = rows.len().min(self.plan.row_window);
        let from = ((number as usize - 1) * size).min(readable);
        let row = |id: &i64| (*id, self.orders[id].version(at).map_or(0, |version| version.row));
        let page = rows[from..(from + size).min(readable)].iter().map(row).collect();
        self.pass_time();
        Answer { rows: page, total: rows.len(), total_pages, served_at }
    }

    pub fn details(&mut self, id: i64) -> Option<Version> {
        self.requests += 1;
        let at = self.now - TimeDelta::seconds(self.rng.random_range(0..=self.plan.details_lag));
        let version = self.orders.get(&id).and_then(|order| order.version(at));
        self.pass_time();
        version.filter(|_| !self.is_unreadable(id))
    }

    pub fn is_unreadable(&self, id: i64) -> bool {
        self.plan.has_unreadable && id % 23 == 0
    }

    /// Things happen between two requests, mostly to the orders at the head of the list.
    fn pass_time(&mut self) {
        self.now += TimeDelta::seconds(self.rng.random_range(0..=self.plan.latency));
        if self.rng.random_bool(self.plan.unrest) {
            let mut rows = self.listed_ids(self.now);
            rows.sort_by_cached_key(|id| Reverse(self.orders[id].changes.last().map(|change| change.at)));
            let reach = if self.rng.random_bool(0.5) { 30 } else { rows.len() };
            let reach = reach.min(rows.len());
            let id = if reach > 0 { rows[self.rng.random_range(0..reach)] } else { 0 };
            match self.rng.random_range(0..4) {
                0 => _ = self.add(self.now),
                1 | 2 => self.change(id, self.now),
                _ => self.hide(id, self.now, Stamp::MAX_UTC),
            }
        }
    }

    /// The day between two nights.
    pub fn day(&mut self) {
        let since = self.now;
        self.night += 1;
        self.now += TimeDelta::days(1);
        let mut ids = self.listed_ids(since);
        ids.shuffle(&mut self.rng);
        let mut changes: Vec<Stamp> = (0..self.plan.changes).map(|_| self.within_day(since)).collect();
        changes.sort_unstable();
        for (id, at) in ids.iter().zip(changes) {
            self.change(*id, at);
        }
        let at = self.within_day(since);
        let bulk = if self.plan.changes_all && self.night == 2 { ids.len() } else { self.plan.bulk };
        ids.shuffle(&mut self.rng);
        ids.iter().take(bulk).for_each(|id| self.change(*id, at));
        for id in ids.iter().rev().take(self.plan.hidden) {
            // Hidden for a day, and changed or not meanwhile. Nothing is shown again while the list is read.
            let from = since + TimeDelta::seconds(self.rng.random_range(43_200..86_000));
            let to = from + TimeDelta::days(1);
            self.hide(*id, from, to);
            if self.rng.random_bool(0.5) {
                self.change(*id, from + TimeDelta::minutes(1));
            }
        }
        for _ in 0..self.rng.random_range(0..10) {
            let at = self.within_day(since);
            self.add(at);
        }
    }

    fn within_day(&mut self, since: Stamp) -> Stamp {
        since + TimeDelta::seconds(self.rng.random_range(1..86_000))
    }
}
