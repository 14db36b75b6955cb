//! Stores that live, replicas that die, and the last look.

use std::{ops::Range, panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use salla_reconciler::simulator::{Customer, Fault, Order, OrderStatus, Product};
use serde_json::json;

use crate::{
    model::happen,
    support::{
        Engine, Site,
        daemon::Daemon,
        site::{EVERYTHING, everything},
        until,
    },
};

const MERCHANTS: Range<i64> = 1001..1007;

/// A number of the environment's.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// A site in which nothing keeps still.
pub struct Storm {
    pub site: Site,
    pub daemons: Vec<Daemon>,
    engine: Engine,
    seed: u64,
    rng: StdRng,
    kills: u32,
}

impl Storm {
    /// Six stores that change between answers, a schedule of every three seconds, and so many daemons with such leases.
    pub async fn new(engine: Engine, replicas: usize, lease: &str) -> Self {
        let seed = number("SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        println!("{engine:?}: SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut site = Site::new(engine, MERCHANTS.map(|merchant| everything(merchant, 20, 4))).await;
        for (key, value) in EVERYTHING.into_iter().chain([
            ("RECONCILE__LEASE", lease),
            ("RECONCILE__PAGE_SIZE", "4"),
            // A change that the watermark does not cover must be covered by nothing else.
            ("RECONCILE__LOOKBACK", "1s"),
            ("RECONCILE__OVERLAP", "0s"),
            ("RECONCILE__MAX_DELETION_RATIO", "1"),
            ("SCHEDULE__CRON", "*/3 * * * * *"),
            ("SCHEDULE__SPREAD", "0s"),
        ]) {
            site.set(key, value);
        }
        // The first night finds what was there; from then on only what changed is asked for.
        site.run(&["run", "--full"]).await.exits(0);
        let mut life = StdRng::seed_from_u64(rng.random());
        {
            let mut world = site.salla.world();
            for merchant in MERCHANTS {
                world.always.insert(merchant, Fault::Hang(Duration::from_millis(150)));
            }
            world.between_answers(move |shops, _| {
                if life.random_bool(0.5) {
                    let shop = shops.get_mut(&life.random_range(MERCHANTS)).unwrap();
                    match life.random_range(0..8) {
                        0 => happen::<Product>(&mut life, shop, Utc::now()),
                        1 => happen::<Customer>(&mut life, shop, Utc::now()),
                        2 => happen::<OrderStatus>(&mut life, shop, Utc::now()),
                        _ => happen::<Order>(&mut life, shop, Utc::now()),
                    }
                }
            });
        }
        let mut storm = Self { site, daemons: Vec::new(), engine, seed, rng, kills: 0 };
        for _ in 0..replicas {
            storm.start_one().await;
        }
        storm
    }

    /// What reproduces it.
    pub fn plan(&self) -> String {
        format!("SEED={} after {} kills", self.seed, self.kills)
    }

    pub fn random(&mut self, range: Range<u64>) -> u64 {
        self.rng.random_range(range)
    }

    pub async fn start_one(&mut self) {
        self.daemons.push(self.site.serve().await);
    }

    /// By hand, for some stores, at any replica; one that has a run is told so.
    pub async fn ask_for_runs(&mut self) {
        for _ in 0..self.rng.random_range(0..4) {
            let at = self.rng.random_range(0..self.daemons.len());
            let body = json!({"merchant_id": self.rng.random_range(MERCHANTS), "full": self.rng.random_bool(0.3)});
            let status = self.daemons[at].try_post("/runs", &body.to_string(), &[]).await;
            assert!(matches!(status.map(|status| status.as_u16()), Some(202 | 409)), "{}: {status:?}", self.plan());
        }
    }

    /// Waits until there is something to interrupt.
    pub async fn await_work(&self) {
        self.daemons[0].await_run("status=running", |_| true).await;
    }

    /// `kill -9` of any replica; another takes its place.
    pub async fn kill_one(&mut self) {
        let at = self.rng.random_range(0..self.daemons.len());
        let mut daemon = self.daemons.remove(at);
        daemon.signal(Signal::SIGKILL);
        daemon.wait().await;
        self.kills += 1;
        println!("{:?}: {}", self.engine, self.plan());
        self.site.assert_no_watermark_ahead().await;
        self.start_one().await;
    }

    /// The stores keep still, what is open comes to its end, and all is as Salla has it.
    pub async fn end(mut self) {
        let plan = self.plan();
        println!("{:?}: {plan}, and the end", self.engine);
        self.site.salla.world().quiet();
        // The last daemon has a schedule that does not fire.
        for mut daemon in self.daemons.drain(..) {
            daemon.signal(Signal::SIGKILL);
            daemon.wait().await;
        }
        self.site.unset("SCHEDULE__CRON");
        let mut daemon = self.site.serve().await;
        let settled = AssertUnwindSafe(self.site.await_settled()).catch_unwind().await;
        assert!(settled.is_ok(), "{plan}: {}", daemon.log_text());
        let deferred = "SELECT count(*) FROM sweeps WHERE deferred IS NOT NULL";
        until("no sweep defers a run", async || self.site.database.number(deferred).await == 0).await;
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().await, Some(0), "{plan}");

        self.check_ledger(&plan).await;
        self.site.run(&["run"]).await.exits(0);
        self.site.assert_no_watermark_ahead().await;
        self.site.assert_recovered(&["--full"]).await;
        // The full run found nothing that the nights before it had left behind: only what no window shows is news.
        let behind = "SELECT count(*) FROM discrepancies d JOIN runs r ON r.id = d.run_id WHERE r.full_history \
                      AND d.remote_updated_at IS NOT NULL AND d.run_id IN \
                      (SELECT id FROM runs ORDER BY id DESC LIMIT 6)";
        assert_eq!(self.site.database.number(behind).await, 0, "{plan}: a night left something behind");
    }

    async fn check_ledger(&self, plan: &str) {
        let database = &self.site.database;
        let merchants = MERCHANTS.count();
        let incomplete = format!(
            "SELECT count(*) FROM sweeps f WHERE f.outcome IN ('schedule', 'catch_up') AND \
             (f.run_count + f.already_queued <> {merchants} \
             OR f.run_count <> (SELECT count(DISTINCT merchant_id) FROM runs r WHERE r.sweep_scheduled_for = f.scheduled_for))"
        );
        assert_eq!(database.number(&incomplete).await, 0, "{plan}: a sweep left a merchant without a run");
        let fired = "SELECT count(*) FROM sweeps WHERE run_count > 0";
        assert!(database.number(fired).await > 0, "{plan}: the schedule did not fire");
        // Five deaths in a row without a page between them park a run, and rightly. If a list
        // changes at every look, a run may not be able to prove that it read the whole list.
        // Nothing else may go wrong.
        let failed = "SELECT COALESCE(max(error_kind || ': ' || error_message), '') FROM runs WHERE status = 'failed' \
                      AND error_kind <> 'listing_unstable' AND (error_kind <> 'worker_crash_loop' OR failed_attempts < 5)";
        assert_eq!(database.text(failed).await, "", "{plan}: a run failed");
        self.check_one_at_a_time(plan).await;
        let counts = "SELECT CAST(count(*) AS text) || ' runs, ' || sum(CASE WHEN epoch > 1 THEN 1 ELSE 0 END) || ' taken \
                      up again, ' || sum(CASE error_kind WHEN 'worker_crash_loop' THEN 1 ELSE 0 END) || ' in crash loops, ' \
                      || sum(CASE error_kind WHEN 'listing_unstable' THEN 1 ELSE 0 END) || ' of unstable lists, ' \
                      || (SELECT count(*) FROM sweeps) || ' sweeps' FROM runs";
        println!("{:?}: {plan}: {}", self.engine, database.text(counts).await);
    }

    /// No two runs of a store went on at the same time; those given back aside, which let others pass.
    async fn check_one_at_a_time(&self, plan: &str) {
        // A stamp is of the moment its transaction began, which may then have waited for the one that ended the other.
        let stamps = TimeDelta::seconds(1);
        let sql = "SELECT merchant_id, started_at, finished_at FROM runs \
                   WHERE attempt = epoch AND started_at IS NOT NULL ORDER BY merchant_id, started_at";
        let rows = self.site.database.rows(sql).await;
        let mut spans = rows.iter().map(|row| {
            let at = |column: &str| row.try_get::<DateTime<Utc>>("", column).unwrap();
            (row.try_get::<i64>("", "merchant_id").unwrap(), at("started_at"), at("finished_at"))
        });
        let mut before = spans.next().unwrap();
        for span in spans {
            assert!(
                before.0 != span.0 || before.2 <= span.1 + stamps,
                "{plan}: two runs of {} went on at a time: {before:?}, {span:?}",
                span.0
            );
            before = span;
        }
    }
}
