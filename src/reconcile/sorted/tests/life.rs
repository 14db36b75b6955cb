//! The nights of one store: the stored state, and the state that is required after each night.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::TimeDelta;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::server::{Change, Plan, Server, Start, Version};
use crate::{
    domain::{ListingViolation, RotationPace, SortedList, SortedListResult},
    reconcile::sorted::{Bounds, Conclusion, Rules, SortedPage, SortedRow, SortedWalk, Stamp, Step},
};

const OVERLAP: TimeDelta = TimeDelta::minutes(15);

/// So many details are drawn at random each night.
const DRAWN: usize = 10;

/// A fault of the nights around the walk. Tests show that each one is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The watermark also moves after a scan, which does not see what only details show.
    WatermarkMovesOnScans,
    /// The watermark moves to the end of the night.
    WatermarkFromTheEnd,
    /// The first night reads the sorted list from yesterday on.
    SortsAtOnce,
    /// Each night the slices are computed from the number of orders that are stored then.
    RecomputesSlices,
    /// Only changes since the threshold are looked for in the samples and the slice.
    AuditsRecentOnly,
    /// Instead of a further reading and a count, the walk steps back as far as `total` fell.
    StepsBackByTotal,
}

/// What one life of a store showed.
#[derive(Debug, Default)]
pub struct Life {
    pub lost: Vec<String>,
    pub complete: u32,
    /// The nights that were read as scans, for any reason.
    pub scans: u32,
    pub inconclusive: HashMap<SortedListResult, u32>,
    /// How often the list was found not to be sorted.
    pub not_sorted: u32,
    /// How often a change was found that the list had missed.
    pub missed: u32,
}

/// A copy of an order.
#[derive(Debug, Clone, Copy)]
struct Copy {
    version: Version,
    /// When its details were read; `None`: a webhook brought it, or a restored backup.
    read_at: Option<Stamp>,
    /// It is as it was when its details were read.
    is_ours: bool,
}

/// The state that is stored between the nights.
struct Stored {
    list: SortedList,
    /// The start of the last run that succeeded.
    covered: Stamp,
    copies: BTreeMap<i64, Copy>,
    /// Where the next slice begins.
    slice_from: Option<Stamp>,
    backup: BTreeMap<i64, Copy>,
}

impl Stored {
    fn new(server: &Server, rng: &mut StdRng) -> Self {
        let (now, start) = (server.now, server.plan.start);
        let mut copies = BTreeMap::new();
        for (id, version) in server.listed(now) {
            let read_at = now - TimeDelta::seconds(rng.random_range(0..20 * 86_400));
            let order = &server.orders[&id];
            let shown = order.changes.iter().rfind(|change| change.is_shown).map(|change| change.at);
            let copy = match start {
                Start::Full => Some(Copy { version, read_at: Some(now), is_ours: true }),
                Start::Webhooks => {
                    order.version(read_at).map(|version| Copy { version, read_at: None, is_ours: false })
                }
                // The scans read the details whenever the row showed a change.
                Start::Scans => {
                    let read_at = shown.map_or(read_at, |shown| shown.max(read_at));
                    order.version(read_at).map(|version| Copy { version, read_at: Some(read_at), is_ours: true })
                }
            };
            copies.extend(copy.map(|copy| (id, copy)));
        }
        let list = if start == Start::Full { SortedList::default().complete(now) } else { SortedList::default() };
        Self { list, covered: now, backup: copies.clone(), copies, slice_from: None }
    }

    fn store(&mut self, id: i64, version: Version, now: Stamp) {
        let newer = self.copies.get(&id).filter(|copy| copy.version.number > version.number);
        let version = newer.map_or(version, |copy| copy.version);
        self.copies.insert(id, Copy { version, read_at: Some(now), is_ours: true });
    }

    /// Whether the details must be read, wherever the row stands.
    fn is_due(&self, id: i64, row: usize) -> bool {
        self.copies.get(&id).is_none_or(|copy| !copy.is_ours || copy.version.row != row)
    }

    /// Webhooks bring some changes of the day; backups come back; time stamps are wrong.
    fn day(&mut self, server: &Server, since: Stamp, rng: &mut StdRng) {
        let plan = server.plan;
        if plan.is_restored && server.night == 3 {
            let restored = std::mem::take(&mut self.backup);
            self.copies.retain(|id, _| restored.contains_key(id));
            for (id, old) in restored {
                let copy = self.copies.entry(id).or_insert(Copy { read_at: None, ..old });
                copy.is_ours &= copy.version.number == old.version.number;
                copy.version = old.version;
            }
        }
        for (id, version) in server.listed(server.now) {
            let changed = server.orders[&id].changes.last().is_some_and(|change| change.at > since);
            if changed && plan.webhooks > 0.0 && rng.random_bool(plan.webhooks) {
                let read_at = self.copies.get(&id).and_then(|copy| copy.read_at);
                self.copies.insert(id, Copy { version, read_at, is_ours: false });
            }
        }
        for copy in self.copies.values_mut() {
            if plan.wrong_copies > 0.0 && rng.random_bool(plan.wrong_copies) {
                let days = TimeDelta::days([-1, 1][rng.random_range(0..2usize)]);
                copy.version.stamp = copy.version.stamp.map(|stamp| stamp + days);
            }
        }
    }

    /// Where the sorted list must be read to, if it can be read tonight.
    fn threshold(&self, server: &Server, fault: Fault) -> Option<Stamp> {
        let unread = |(id, copy): (&i64, &Copy)| {
            copy.read_at.is_none()
                && !server.is_unreadable(*id)
                && server.orders.get(id).is_none_or(|order| order.created_at() < self.covered)
        };
        let readable = self.copies.iter().filter(|(id, _)| !server.is_unreadable(**id));
        let read_at = readable.filter_map(|(_, copy)| copy.read_at).min();
        let details_since = read_at.filter(|_| !self.copies.iter().any(unread));
        let threshold = self.list.threshold(self.copies.len() as u64, details_since, self.covered, OVERLAP).ok();
        threshold.or_else(|| (fault == Fault::SortsAtOnce).then(|| self.covered - OVERLAP - TimeDelta::seconds(60)))
    }
}

/// Lives through the nights of a store.
pub fn live(seed: u64, rules: Rules, fault: Fault, is_meant: impl Fn(&Plan) -> bool) -> Option<(Plan, Life)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = Plan::of(&mut rng);
    is_meant(&plan).then(|| (plan, live_as(plan, &mut rng, rules, fault)))
}

/// Lives through the nights of a store with this plan.
pub fn live_as(plan: Plan, rng: &mut StdRng, rules: Rules, fault: Fault) -> Life {
    let mut server = Server::new(plan, StdRng::from_rng(rng));
    let (mut life, mut stored) = (Life::default(), Stored::new(&server, rng));
    for _ in 0..plan.nights {
        let since = server.now;
        server.day();
        stored.day(&server, since, rng);
        server.requests = 0;
        Night { began: server.now, server: &mut server, stored: &mut stored, rules, fault, rng, missed: 0 }
            .run(&mut life);
    }
    life
}

/// The first night of a store by the walk alone: its conclusion, its requests, and how many orders had changed.
pub fn night_of(plan: Plan, rules: Rules) -> (Conclusion, usize, usize) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut server = Server::new(plan, StdRng::from_rng(&mut rng));
    let mut stored = Stored::new(&server, &mut rng);
    let since = server.now;
    server.day();
    stored.day(&server, since, &mut rng);
    let bounds = Bounds {
        threshold: since - OVERLAP - TimeDelta::seconds(60),
        recent_since: server.now - OVERLAP,
        stored: stored.copies.len(),
    };
    let (server, stored, rng, fault) = (&mut server, &mut stored, &mut rng, Fault::None);
    let mut night = Night { began: server.now, server, stored, rules, fault, rng, missed: 0 };
    let (conclusion, read) = night.walk(bounds);
    let changed = read.values().filter(|stamp| **stamp >= Some(bounds.threshold)).count();
    (conclusion, night.server.requests, changed)
}

struct Night<'a> {
    began: Stamp,
    server: &'a mut Server,
    stored: &'a mut Stored,
    rules: Rules,
    fault: Fault,
    rng: &'a mut StdRng,
    /// Changes that the sorted list should have shown.
    missed: u32,
}

impl Night<'_> {
    fn run(&mut self, life: &mut Life) {
        self.stored.list.violation = None;
        let is_scanned = self.server.plan.scans && self.server.night.is_multiple_of(2);
        let threshold = self.stored.threshold(self.server, self.fault).filter(|_| !is_scanned);
        let is_sorted = threshold.is_some_and(|threshold| self.sort(threshold, life));
        if is_sorted {
            life.complete += 1;
            let end = if self.fault == Fault::WatermarkFromTheEnd { self.server.now } else { self.began };
            self.stored.list = self.stored.list.complete(end);
        } else {
            life.scans += 1;
            let all = threshold.is_none() && self.stored.list.watermark.is_none();
            self.scan(all || self.stored.copies.values().any(|copy| copy.read_at.is_none()));
            if self.stored.list.violation.is_none() {
                self.stored.list = self.stored.list.scanned(self.began);
            }
            if self.fault == Fault::WatermarkMovesOnScans {
                self.stored.list.watermark = Some(self.began);
            }
        }
        self.stored.covered = self.began;
        life.lost.extend(self.stale(is_sorted));
    }

    /// The walk, the slice and the samples. Returns whether they were enough.
    fn sort(&mut self, threshold: Stamp, life: &mut Life) -> bool {
        let bounds = Bounds { threshold, recent_since: self.began - OVERLAP, stored: self.stored.copies.len() };
        let (conclusion, read) =
            if self.fault == Fault::StepsBackByTotal { self.step_back_by_total(bounds) } else { self.walk(bounds) };
        let violation = match conclusion {
            Conclusion::Complete => None,
            Conclusion::Inconclusive(reason) => {
                *life.inconclusive.entry(reason).or_default() += 1;
                if conclusion.needs_all_details(bounds.stored) {
                    self.scan(true);
                }
                return false;
            }
            Conclusion::TooManyChanges => {
                self.scan(true);
                return false;
            }
            Conclusion::NotSorted { .. } => Some(ListingViolation::NotSorted),
        };
        let mut slice_to = None;
        if violation.is_none() {
            if !self.server.plan.sort.looks_sorted() {
                life.lost.extend(self.lost(bounds, &read));
            }
            slice_to = self.read_slice(bounds);
            self.read_samples(bounds);
        }
        let violation = violation.or((self.missed > 0).then_some(ListingViolation::MissedChange));
        match violation {
            None => self.stored.slice_from = slice_to,
            Some(ListingViolation::NotSorted) => life.not_sorted += 1,
            Some(ListingViolation::MissedChange) => life.missed += 1,
        }
        if let Some(violation) = violation {
            self.stored.list = self.stored.list.violated(violation, self.began);
        }
        violation.is_none()
    }

    /// Stores details. A change before `settled_until` that no earlier night stored was missed.
    fn store(&mut self, id: i64, version: Version, settled_until: Stamp) {
        let copy = self.stored.copies.get(&id);
        let missed = copy.is_some_and(|copy| {
            copy.version.stamp.is_some()
                && version.stamp > copy.version.stamp
                && version.number > copy.version.number
                && version.stamp < Some(settled_until)
        });
        self.missed += u32::from(missed);
        self.stored.store(id, version, self.began);
    }

    fn settled_until(&self, bounds: Bounds) -> Stamp {
        if self.fault == Fault::AuditsRecentOnly { Stamp::MIN_UTC } else { bounds.recent_since }
    }

    /// A part of the store by creation. Returns where the next one begins.
    fn read_slice(&mut self, bounds: Bounds) -> Option<Stamp> {
        let created = |id: &i64| self.server.orders[id].created_at();
        let mut dated: Vec<Stamp> = self.stored.copies.keys().map(created).collect();
        dated.sort_unstable();
        let share = RotationPace::SORTED_LIST.share(dated.len() as u64) as usize;
        let (from, to) = if self.fault == Fault::RecomputesSlices {
            let nights = usize::from(RotationPace::SORTED_LIST.nights);
            let place = self.server.night as usize % nights;
            let at = |place: usize| dated.get(place * dated.len() / nights).copied();
            (at(place), if place + 1 == nights { None } else { at(place + 1) })
        } else {
            let from = self.stored.slice_from;
            let behind = dated.iter().filter(|at| from.is_none_or(|from| **at >= from)).nth(share).copied();
            (from, behind)
        };
        let is_in = |at: Stamp| from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to);
        let listed: BTreeMap<i64, Version> = self.server.listed(self.server.now).into_iter().collect();
        let due: Vec<i64> = listed
            .iter()
            .filter(|(id, version)| is_in(created(id)) && self.stored.is_due(**id, version.row))
            .map(|(id, _)| *id)
            .collect();
        let orders = &self.server.orders;
        self.stored.copies.retain(|id, _| listed.contains_key(id) || !is_in(orders[id].created_at()));
        for id in due {
            if let Some(version) = self.server.details(id) {
                self.store(id, version, self.settled_until(bounds));
            }
        }
        to
    }

    /// The oldest details, and some at random.
    fn read_samples(&mut self, bounds: Bounds) {
        let mut ids: Vec<(Stamp, i64)> =
            self.stored.copies.iter().filter_map(|(id, c)| Some((c.read_at?, *id))).collect();
        ids.retain(|(read_at, _)| *read_at < self.began);
        ids.sort_unstable();
        let nights = self.server.plan.detail_check_nights;
        let oldest = if nights == 0 { 0 } else { self.stored.copies.len().div_ceil(nights as usize) };
        let first_drawn = oldest.min(ids.len());
        ids[first_drawn..].shuffle(self.rng);
        for (_, id) in ids.into_iter().take(oldest + DRAWN) {
            if let Some(version) = self.server.details(id) {
                self.store(id, version, self.settled_until(bounds));
            }
        }
    }

    /// Reads the details of orders that are new, whose row changed, that are not as they were, or whose night has come.
    fn scan(&mut self, all: bool) {
        let listed: BTreeMap<i64, Version> = self.server.listed(self.server.now).into_iter().collect();
        self.stored.copies.retain(|id, _| listed.contains_key(id));
        let (nights, now) = (self.server.plan.detail_check_nights, self.server.now);
        for (id, version) in listed {
            let read_at = self.stored.copies.get(&id).and_then(|copy| copy.read_at);
            let is_old = read_at.is_none_or(|at| now - at > TimeDelta::days(nights));
            let is_due = all || self.stored.is_due(id, version.row) || nights > 0 && is_old;
            if is_due && !self.server.is_unreadable(id) {
                self.stored.store(id, version, self.began);
            }
        }
    }

    fn walk(&mut self, bounds: Bounds) -> (Conclusion, HashMap<i64, Option<Stamp>>) {
        let (mut walk, mut read) = (SortedWalk::new(bounds, self.rules), HashMap::new());
        loop {
            match walk.next() {
                Step::Page { number, page_size } => {
                    let usual = self.server.plan.page_size;
                    let size = page_size.map_or(usual, |size| size as usize).min(usual);
                    let answer = self.server.page(number, size);
                    let rows: Vec<SortedRow> = answer.rows.iter().map(|(id, row)| self.row(*id, *row)).collect();
                    let (total_pages, served_at) = (answer.total_pages, Some(answer.served_at));
                    walk.admit_page(SortedPage { rows: &rows, total_pages, served_at });
                }
                Step::Details(ids) => {
                    let stamps = ids.iter().map(|id| (*id, self.read(*id, bounds))).collect();
                    read.extend(&stamps);
                    walk.admit_details(&stamps);
                }
                Step::Done(conclusion) => return (conclusion, read),
            }
            assert!(self.server.requests < 50_000, "the walk does not end");
        }
    }

    /// Another walk: one reading down to the first old row, which steps back by as many rows as `total` fell.
    fn step_back_by_total(&mut self, bounds: Bounds) -> (Conclusion, HashMap<i64, Option<Stamp>>) {
        let (mut read, mut number, mut last_total) = (HashMap::new(), 1, None);
        loop {
            let size = self.server.plan.page_size;
            let answer = self.server.page(number, size);
            let fallen = last_total.map_or(0, |last: usize| last.saturating_sub(answer.total));
            last_total = Some(answer.total);
            for (id, _) in &answer.rows {
                if !read.contains_key(id) {
                    let stamp = self.read(*id, bounds);
                    read.insert(*id, stamp);
                }
            }
            let back = u32::try_from(fallen.div_ceil(size)).unwrap_or_default();
            let is_old = |(id, _): &(i64, usize)| read[id].is_some_and(|stamp| stamp < bounds.threshold);
            if back > 0 && number > back {
                number -= back;
            } else if answer.rows.iter().any(is_old) || answer.rows.is_empty() {
                return (Conclusion::Complete, read);
            } else {
                number += 1;
            }
        }
    }

    fn read(&mut self, id: i64, bounds: Bounds) -> Option<Stamp> {
        let version = self.server.details(id)?;
        self.store(id, version, bounds.threshold);
        version.stamp
    }

    fn row(&self, id: i64, row: usize) -> SortedRow {
        let copy = self.stored.copies.get(&id);
        let stored = copy.filter(|copy| copy.is_ours).and_then(|copy| copy.version.stamp);
        let created_at = Some(self.server.orders[&id].created_at());
        SortedRow { id, created_at, stored, read_earlier: None, is_due: self.stored.is_due(id, row) }
    }

    /// Orders that nothing happened to since shortly before the night, and whose change the walk did not read.
    fn lost(&self, bounds: Bounds, read: &HashMap<i64, Option<Stamp>>) -> Vec<String> {
        let night = self.server.night;
        let mut lost = Vec::new();
        for (id, version) in self.server.listed(self.server.now) {
            let is_covered = version.stamp.is_some_and(|at| (bounds.threshold..bounds.recent_since).contains(&at));
            let is_held = self.stored.copies.get(&id).is_some_and(|copy| copy.version.number >= version.number);
            let order = &self.server.orders[&id];
            if self.server.is_unreadable(id) {
                continue;
            }
            if is_covered && order.is_untouched_since(bounds.recent_since) && !is_held {
                lost.push(format!("night {night}: order {id} of {version:?} was read as {:?}", read.get(&id)));
            }
        }
        lost
    }

    /// Orders that ought to be stored as they are by now. `docs/explanation/listings.md` has the table.
    fn stale(&self, is_sorted: bool) -> Vec<String> {
        let (server, night) = (&*self.server, self.server.night);
        let details = match server.plan.detail_check_nights {
            0 => u32::MAX,
            nights => nights as u32 + 1,
        };
        // These stores grow faster than the reserve of a slice.
        let slices = u32::from(RotationPace::SORTED_LIST.nights) + 3;
        let mut stale = Vec::new();
        let listed: HashSet<i64> = server.listed(server.now).into_iter().map(|(id, _)| id).collect();
        for (id, order) in &server.orders {
            let number = self.stored.copies.get(id).map_or(0, |copy| copy.version.number);
            if !listed.contains(id) {
                let hidden = order.hidden_since(server.now).unwrap_or(night);
                if number > 0 && night >= hidden + slices {
                    stale.push(format!("night {night}: order {id} is deleted since night {hidden}"));
                }
                continue;
            }
            if !order.is_untouched_since(self.began - OVERLAP) || server.is_unreadable(*id) {
                continue;
            }
            let again = order.shown_again(server.now);
            let is_reliable = !server.plan.sort.looks_sorted() && again == 0 && !server.plan.is_restored;
            let allowed = |change: &Change| {
                let is_visible = change.is_shown || number == 0;
                let moves = change.is_stamped && server.plan.without_stamp == 0.0 && is_reliable;
                match (is_visible, moves) {
                    (true, _) if !is_sorted => 0,
                    (_, true) if is_sorted => 0,
                    (true, _) => slices,
                    (false, _) => details,
                }
            };
            let last_night = |change: &Change| change.night.max(again).saturating_add(allowed(change));
            let missing = order.changes.get(number..).unwrap_or_default();
            if let Some(change) = missing.iter().find(|change| night > last_night(change)) {
                stale.push(format!("night {night}: order {id} is stale since night {}", change.night));
            }
        }
        stale
    }
}
