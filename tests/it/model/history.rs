//! The life of one store under one seed: its events, and the conditions that must hold.

use std::{collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use salla_reconciler::{
    app::Services,
    config::Config,
    domain::{MerchantId, Request, RunStatus, Trigger},
    reconcile::{
        Ended, OnStop, ProgressSender,
        ports::{Actor, EnqueueOutcome, MerchantRegistry, NewRun, Registration, RunQueue, Tokens},
    },
    salla::OnOpenCircuit,
    simulator::{DayBounds, Item, ListOrder, Shop, Simulator, Ties, World},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::wrong_walkers::Wrong;
use crate::support::{
    Engine,
    database::TestDatabase,
    kind::{Kind, any_id},
    site::KEYS,
};

pub const MERCHANT: i64 = 1001;

/// Who reconciles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciler {
    Ours,
    ForwardOverAscending,
    StopsOnAShortPage,
    WatermarkFromTheNewestRow,
    CountsRepeatsAsRecords,
}

/// Which stores a seed decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    Any,
    /// Their list can be read sorted by time of change.
    Sorted,
}

/// What the seed decided.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub order: ListOrder,
    pub documented: bool,
    bounds: DayBounds,
    page_size: u32,
    page_cap: usize,
    orders: usize,
    nights: u32,
    /// At most so many things happen between two answers.
    unrest: u32,
    /// How far Salla's clock is off ours on the last night.
    clock_off: TimeDelta,
    ties: Ties,
    /// How many orders a merchant changes at once, now and then.
    bulk: usize,
    honours_sort: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Plan {
    fn of(rng: &mut StdRng) -> Self {
        let orders = [
            ListOrder::UpdatedAscending,
            ListOrder::UpdatedDescending,
            ListOrder::CreatedAscending,
            ListOrder::CreatedDescending,
            ListOrder::Id,
            ListOrder::Scattered,
        ];
        let bounds = [DayBounds::Inclusive, DayBounds::HalfOpen, DayBounds::Exclusive];
        let page_size = rng.random_range(2..30);
        let documented = rng.random_bool(0.3);
        Self {
            order: orders[rng.random_range(0..orders.len())],
            documented,
            bounds: bounds[rng.random_range(0..bounds.len())],
            page_size,
            page_cap: if rng.random_bool(0.3) { page_size as usize / 2 + 1 } else { 60 },
            orders: rng.random_range(0..70),
            nights: rng.random_range(2..5),
            unrest: rng.random_range(0..4),
            clock_off: TimeDelta::minutes([-60, 0, 60, -14_400][rng.random_range(0..4usize)]),
            ties: [Ties::ById, Ties::EachRequest, Ties::EachPage][rng.random_range(0..3usize)],
            bulk: [0, 10, 40][rng.random_range(0..3usize)],
            honours_sort: true,
        }
    }

    fn of_sorted(rng: &mut StdRng) -> Self {
        Self {
            documented: true,
            honours_sort: rng.random_bool(0.8),
            page_size: rng.random_range(15..40),
            orders: rng.random_range(180..260),
            unrest: rng.random_range(0..2),
            bulk: [0, 10, 30][rng.random_range(0..3usize)],
            ..Self::of(rng)
        }
    }
}

/// What came of a life.
#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    /// Nights that were not crashed for good, and those that came to their end.
    pub nights: u32,
    pub ended: u32,
    /// Of these, the nights on which a sorted list was believed.
    pub sorted: u32,
    /// The conditions that did not hold.
    pub broken: Vec<String>,
}

/// A stored copy of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub updated_at: DateTime<Utc>,
    pub word: String,
    pub note: i64,
    pub deleted: bool,
}

pub struct Life<K> {
    pub plan: Plan,
    pub simulator: Simulator,
    database: TestDatabase,
    config: Config,
    rng: StdRng,
    broken: Vec<String>,
    ended: u32,
    /// How many nights the sorted list was believed.
    sorted: u32,
    versions: BTreeMap<i64, DateTime<Utc>>,
    _folder: TempDir,
    _kind: PhantomData<K>,
}

impl<K: Kind> Life<K> {
    pub async fn new(seed: u64, engine: Engine, stores: Stores) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = if stores == Stores::Sorted { Plan::of_sorted(&mut rng) } else { Plan::of(&mut rng) };
        let folder = tempfile::tempdir().unwrap();
        let database = TestDatabase::create(engine, &folder).await;
        let clock_ahead = plan.clock_off - TimeDelta::days(i64::from(plan.nights));
        let now = Utc::now() + clock_ahead;
        let mut shop = Shop::seeded(MERCHANT, 0, now);
        for _ in 0..plan.orders {
            let created = now - TimeDelta::seconds(rng.random_range(3_600..20 * 86_400));
            let id = K::add(&mut shop, created);
            if rng.random_bool(0.6) {
                K::change(&mut shop, id, created + TimeDelta::seconds(rng.random_range(1..3_600)));
            }
        }
        change_at_once::<K>(&mut shop, plan.bulk, now - TimeDelta::minutes(30));
        let mut world = World::new([shop]);
        world.clock_ahead = clock_ahead;
        world.ties = plan.ties;
        world.list_order = plan.order;
        world.documented = plan.documented;
        // Drawn in any case, so that a seed stays the same store.
        let honours_sort = rng.random_bool(0.7);
        world.honours_sort = if stores == Stores::Sorted { plan.honours_sort } else { honours_sort };
        world.day_bounds = plan.bounds;
        world.page_cap = plan.page_cap;
        let simulator = Simulator::start(world).await.unwrap();
        let config = config(&simulator, &database, plan);
        let broken = Vec::new();
        let (versions, _folder, _kind) = (BTreeMap::new(), folder, PhantomData);
        Self { plan, simulator, database, config, rng, broken, ended: 0, sorted: 0, versions, _folder, _kind }
    }

    pub async fn live(mut self, reconciler: Reconciler) -> Outcome {
        let mut wrong = Wrong::new(reconciler);
        if reconciler == Reconciler::Ours {
            self.register().await;
        } else {
            let mut world = self.simulator.world();
            world.documented = false;
            world.list_order = ListOrder::UpdatedAscending;
            if reconciler != Reconciler::CountsRepeatsAsRecords {
                world.ties = Ties::ById;
            }
        }
        // The whole history first; once that is there, only what changed.
        for night in 0..=self.plan.nights {
            let before = self.orders();
            self.begin_unrest();
            let full = self.ended == 0;
            let covered = match reconciler {
                Reconciler::Ours => self.night(full).await,
                _ => wrong.night(&self, full).await,
            };
            self.simulator.world().quiet();
            let held = self.held(&wrong).await;
            if covered {
                self.ended += 1;
                let is_sorted = reconciler == Reconciler::Ours && self.was_sorted().await;
                self.sorted += u32::from(is_sorted);
                self.judge(night, &before, &held, is_sorted);
            }
            self.check_versions(night, &held);
            self.day(reconciler).await;
        }
        self.last_nights(reconciler, &mut wrong).await;
        Outcome {
            plan: self.plan,
            nights: self.plan.nights + 1,
            ended: self.ended,
            sorted: self.sorted,
            broken: self.broken,
        }
    }

    /// Nothing happens any more: what changed comes in one night, and what no night shows in a full one.
    async fn last_nights(&mut self, reconciler: Reconciler, wrong: &mut Wrong) {
        for full in [self.ended == 0, true] {
            let covered = match reconciler {
                Reconciler::Ours => self.night(full).await,
                _ if full => continue,
                _ => wrong.night(self, false).await,
            };
            if !covered {
                self.broken.push(format!("a quiet night failed, full: {full}"));
            }
            let (held, orders) = (self.held(wrong).await, self.orders());
            self.judge(99, &orders, &held, false);
            if full {
                for (id, copy) in &held {
                    if orders.contains_key(id) == copy.deleted {
                        self.broken.push(format!("order {id} is marked as gone: {}, which is wrong", copy.deleted));
                    }
                    if let Some(order) = orders.get(id).filter(|order| order.note() != copy.note) {
                        self.broken.push(format!("order {id} has note {} and not {}", copy.note, order.note()));
                    }
                }
            }
            self.check_versions(99, &held);
        }
    }

    /// Whether the last run believed a sorted list.
    async fn was_sorted(&self) -> bool {
        self.database.text("SELECT COALESCE(listing, '') FROM runs ORDER BY id DESC LIMIT 1").await == "sort"
    }

    /// Records that nothing happened to during the night are held as Salla has them. `is_sorted`: details show nothing that
    /// the list did not show.
    fn judge(&mut self, night: u32, before: &BTreeMap<i64, K>, held: &BTreeMap<i64, Copy>, is_sorted: bool) {
        let after = self.orders();
        for (id, order) in before {
            if after.get(id) != Some(order) {
                continue;
            }
            let right = held.get(id).is_some_and(|copy| {
                // The documented listing may take 28 nights for a change that only the details show.
                let is_summary = order.is_summarised(self.plan.documented) && !is_sorted;
                let seen = copy.updated_at == order.updated_at() || is_summary;
                let whole = is_summary || copy.note == order.note();
                seen && whole && copy.word == order.word() && !copy.deleted
            });
            if !right {
                self.broken.push(format!(
                    "night {night}: order {id} is {} of {}, and held as {:?}",
                    order.word(),
                    order.updated_at(),
                    held.get(id)
                ));
            }
        }
    }

    /// No copy goes back in time, whatever became of the night.
    fn check_versions(&mut self, night: u32, held: &BTreeMap<i64, Copy>) {
        for (id, copy) in held {
            let before = self.versions.insert(*id, copy.updated_at);
            if before.is_some_and(|before| before > copy.updated_at) {
                self.broken.push(format!("night {night}: order {id} went back from {before:?} to {}", copy.updated_at));
            }
        }
    }

    pub fn page_size(&self) -> usize {
        self.plan.page_size as usize
    }

    fn orders(&self) -> BTreeMap<i64, K> {
        let mut world = self.simulator.world();
        K::all(world.shop(MERCHANT)).iter().map(|item| (item.id(), item.clone())).collect()
    }

    /// Between any two answers things happen, by the seed.
    fn begin_unrest(&mut self) {
        let (mut rng, unrest) = (StdRng::seed_from_u64(self.rng.random()), self.plan.unrest);
        self.simulator.world().between_answers(move |shops, clock| {
            for _ in 0..rng.random_range(0..=unrest) {
                *clock += TimeDelta::seconds(rng.random_range(0..3));
                happen::<K>(&mut rng, shops.get_mut(&MERCHANT).unwrap(), Utc::now() + *clock);
            }
        });
    }

    /// The day between two nights: some webhooks come, most are lost.
    async fn day(&mut self, reconciler: Reconciler) {
        for _ in 0..self.rng.random_range(0..12) {
            let delivered = {
                let mut world = self.simulator.world();
                world.clock_ahead += TimeDelta::seconds(self.rng.random_range(0..5_000));
                let now = world.now();
                let shop = world.shop(MERCHANT);
                happen::<K>(&mut self.rng, shop, now);
                let newest = K::all(shop).iter().max_by_key(|item| item.updated_at()).cloned();
                newest.filter(|_| reconciler == Reconciler::Ours && self.rng.random_bool(0.3))
            };
            if let Some(order) = delivered {
                self.database.consume(MERCHANT, &order).await;
            }
        }
        let mut world = self.simulator.world();
        if self.rng.random_bool(0.5) {
            let now = world.now();
            change_at_once::<K>(world.shop(MERCHANT), self.plan.bulk, now);
        }
        world.clock_ahead += TimeDelta::hours(12);
    }

    async fn register(&self) {
        let services = Services::build(&self.config, OnOpenCircuit::Wait).await.unwrap();
        let (access, refresh) = {
            let mut world = self.simulator.world();
            let (access, refresh) = world.shop(MERCHANT).tokens();
            (access.to_owned(), refresh.to_owned())
        };
        let tokens =
            Tokens { access: access.into(), refresh: Some(refresh.into()), expires_at: None, owner_confirmed: false };
        let registration = Registration { merchant_id: MerchantId(MERCHANT), name: None, tokens };
        services.vault.register(&registration, &Actor::Local).await.unwrap();
        services.store.close().await.unwrap();
    }

    /// One night; whether the run came to its end. Its process may die at any request, and another goes on.
    async fn night(&mut self, full: bool) -> bool {
        let request = Request { full, resources: [K::RESOURCE].into_iter().collect(), ..Request::default() };
        let mut crashes = if self.rng.random_bool(0.4) { self.rng.random_range(1..3) } else { 0 };
        let mut queued = false;
        loop {
            let services = Services::build(&self.config, OnOpenCircuit::Wait).await.unwrap();
            if !queued {
                let new = NewRun {
                    merchant: MerchantId(MERCHANT),
                    trigger: Trigger::Http,
                    request,
                    by: Actor::Local,
                    key: None,
                };
                assert!(matches!(services.store.enqueue(new).await.unwrap(), EnqueueOutcome::Queued(_)));
                queued = true;
            }
            let Some(claim) = services.store.claim(1).await.unwrap().claims.pop() else {
                // The process died when the run had ended, and before it knew.
                services.store.close().await.unwrap();
                let status = self.database.text("SELECT status FROM runs ORDER BY id DESC LIMIT 1").await;
                return ["succeeded", "partial"].contains(&status.as_str());
            };
            let runner = services.runner(&self.config, ProgressSender::default(), OnStop::Release);
            let stop = CancellationToken::new();
            let run = runner.execute(claim, &stop);
            let last_request = self.simulator.world().seen.len() + self.rng.random_range(1..12usize);
            let ended = if crashes > 0 {
                tokio::select! {
                    ended = run => Some(ended),
                    () = self.reaches(last_request) => None,
                }
            } else {
                Some(run.await)
            };
            drop(runner);
            // A process that dies closes nothing; the pool is closed for the files' sake.
            services.store.close().await.unwrap();
            match ended {
                Some(Ended::Run(run)) => {
                    return matches!(run.status, RunStatus::Succeeded | RunStatus::Partial);
                }
                Some(other) => panic!("the run ended elsewhere: {other:?}"),
                None => {
                    crashes -= 1;
                    let ago = Utc::now() - TimeDelta::minutes(5);
                    self.database
                        .execute("UPDATE runs SET lease_expires_at = $1 WHERE status = 'running'", [ago.into()])
                        .await;
                }
            }
        }
    }

    async fn reaches(&self, requests: usize) {
        while self.simulator.world().seen.len() < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn held(&self, wrong: &Wrong) -> BTreeMap<i64, Copy> {
        if let Some(held) = wrong.held() {
            return held;
        }
        let sql = format!(
            "SELECT {id}, salla_updated_at, {word}, CAST(payload AS text) AS payload, \
             deleted_at IS NOT NULL AS deleted FROM {table}",
            id = K::ID,
            word = K::WORD,
            table = K::TABLE
        );
        let copy = |row: &sea_orm::QueryResult| {
            let payload: serde_json::Value =
                serde_json::from_str(&row.try_get::<String>("", "payload").unwrap()).unwrap();
            Copy {
                updated_at: row.try_get("", "salla_updated_at").unwrap(),
                word: row.try_get("", K::WORD).unwrap(),
                note: K::note_in(&payload),
                deleted: row.try_get("", "deleted").unwrap(),
            }
        };
        let rows = self.database.rows(&sql).await;
        rows.iter().map(|row| (row.try_get("", K::ID).unwrap(), copy(row))).collect()
    }
}

/// A bulk action: as many records as there are, up to `count`, get one stamp.
fn change_at_once<K: Kind>(shop: &mut Shop, count: usize, at: DateTime<Utc>) {
    let ids: Vec<i64> = K::all(shop).iter().map(Item::id).take(count).collect();
    ids.into_iter().for_each(|id| K::change(shop, id, at));
}

/// Something happens to the store.
pub fn happen<K: Kind>(rng: &mut StdRng, shop: &mut Shop, now: DateTime<Utc>) {
    let what = rng.random_range(0..10);
    match (what, any_id::<K>(shop, |count| rng.random_range(0..count))) {
        (0..3, _) | (_, None) => {
            K::add(shop, now);
        }
        (3..7, Some(id)) => K::change(shop, id, now),
        (7, Some(id)) => K::whisper(shop, id, now),
        (_, Some(id)) => K::remove(shop, id),
    }
}

fn config(simulator: &Simulator, database: &TestDatabase, plan: Plan) -> Config {
    let mut config = Config::defaults().unwrap();
    config.database.url = database.url.clone().into();
    config.salla.customer_requests_per_10_minutes = 1_000_000;
    config.salla.api_url = simulator.api_url().parse().unwrap();
    config.salla.token_url = simulator.token_url().parse().unwrap();
    config.salla.requests_per_minute = 1_000_000;
    config.vault.keys = KEYS.to_owned().into();
    config.reconcile.page_size = plan.page_size;
    config.reconcile.max_deletion_ratio = 1.0;
    // A change that the watermark does not cover must be covered by nothing else.
    config.reconcile.lookback = Duration::from_secs(1);
    config.reconcile.overlap = Duration::ZERO;
    config
}
