//! A night whose length depends only on Salla's limits and on the way to Salla. It has many stores, a limit for each,
//! and a server that is far away: `cargo bench --bench latency`. Prints the length of the night, and the least length
//! that limit and latency permit. Exits with 1 when the night is more than 1.05 times as long, or a single request was
//! refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on may panic"
)]

#[path = "../tests/it/support/cluster.rs"]
mod cluster;
#[path = "support/process.rs"]
mod process;
#[path = "support/site.rs"]
mod site;

use std::{
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use clap::Parser;
use salla_reconciler::{
    simulator::{Fault, Limit, Shop, Simulator, World},
    store::Store,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::site::{SCHEMA, ask_for_runs, connect};

const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The night's length, as a multiple of what limit and latency permit.
const TARGET: f64 = 1.05;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 1_000)]
    stores: i64,
    /// Pages of each store. Each has one order, so that nothing but the requests takes time. Each is read twice,
    /// because a page of one order does not show how the list is sorted.
    #[arg(long, default_value_t = 75)]
    pages: u32,
    /// Stores at a time: no more than the machine has time for. Salla and the database also run on this machine.
    #[arg(long, default_value_t = 100)]
    concurrency: i64,
    /// Requests a minute and store.
    #[arg(long, default_value_t = 120)]
    limit: u32,
    /// From a request to its answer, in milliseconds.
    #[arg(long, default_value_t = 150)]
    latency: u64,
    /// Of the server that is started.
    #[arg(long, default_value_t = 16)]
    postgres: u32,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn merchants(&self) -> impl Iterator<Item = i64> + use<> {
        1..=self.stores
    }

    /// How often each store is asked.
    fn requests(&self) -> usize {
        2 * self.pages as usize
    }

    /// The least time that a night can take. A store's requests follow one after the other, and no minute holds more of
    /// them than the limit. At most `concurrency` stores are read at a time.
    fn bound(&self) -> Duration {
        let latency = Duration::from_millis(self.latency);
        let (mut sent, limit) = (Vec::<Duration>::new(), self.limit as usize);
        for request in 0..self.requests() {
            let answered = sent.last().map_or(Duration::ZERO, |&before| before + latency);
            let permitted = request.checked_sub(limit).map_or(Duration::ZERO, |at| sent[at] + Duration::from_secs(60));
            sent.push(answered.max(permitted));
        }
        let store = sent.last().map_or(Duration::ZERO, |&last| last + latency);
        store * u32::try_from(self.stores.unsigned_abs().div_ceil(self.concurrency.unsigned_abs())).unwrap()
    }
}

/// Where the night takes place.
struct Scene<'a> {
    args: &'a Args,
    salla: Simulator,
    folder: &'a Path,
    database: String,
}

impl Scene<'_> {
    fn program(&self, command: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        program.args(command).env_clear().current_dir(self.folder).kill_on_drop(true);
        for (key, value) in [
            ("DATABASE__URL", &*self.database),
            ("SALLA__API_URL", &self.salla.api_url()),
            ("SALLA__TOKEN_URL", &self.salla.token_url()),
            ("SALLA__CLIENT_ID", "bench"),
            ("SALLA__CLIENT_SECRET", "bench-secret"),
            ("SALLA__REQUESTS_PER_MINUTE", &self.args.limit.to_string()),
            // As behind an address that may send more, or in as many processes as that takes.
            ("SALLA__MAX_REQUESTS_PER_MINUTE", "6000000"),
            ("RECONCILE__CONCURRENCY", &self.args.concurrency.to_string()),
            ("RECONCILE__PAGE_SIZE", "1"),
            ("VAULT__KEYS", KEYS),
            ("HTTP__LISTEN", "127.0.0.1:0"),
        ] {
            program.env(format!("SALLA_RECONCILER__{key}"), value);
        }
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        program
    }

    /// Registers the stores, and puts a run of each into the queue.
    async fn prepare(&self) {
        let store = Store::connect(&self.database.clone().into(), SCHEMA, 10, Duration::from_secs(60)).await.unwrap();
        store.migrate().await.unwrap();
        let mut import = self.program(&["merchants", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = import.stdin.take().unwrap();
        for merchant in self.args.merchants() {
            stdin.write_all(self.salla.registration(merchant).unwrap().as_bytes()).await.unwrap();
            stdin.write_all(b"\n").await.unwrap();
        }
        drop(stdin);
        assert!(import.wait().await.unwrap().success(), "the stores could not be registered");
        store.close().await.unwrap();
        ask_for_runs(&self.database, self.args.merchants()).await;
    }

    /// From the first request to the end of the last run.
    async fn night(&self, db: &DatabaseConnection) -> (Duration, Usage) {
        let mut daemon = self.program(&["serve"]).spawn().unwrap();
        while self.salla.world().seen.is_empty() {
            assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
            sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        let patience = self.args.bound() * 3;
        while number(db, "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')").await > 0 {
            assert!(daemon.try_wait().unwrap().is_none(), "the daemon ended");
            assert!(began.elapsed() < patience, "not within three times as long");
            sleep(Duration::from_millis(100)).await;
        }
        let took = began.elapsed();
        let used = Usage::of(&daemon);
        daemon.kill().await.unwrap();
        (took, used)
    }
}

/// What the daemon needed.
struct Usage {
    cpu: Duration,
    peak_mib: f64,
}

impl Usage {
    fn of(daemon: &Child) -> Self {
        let id = daemon.id().unwrap();
        Self { cpu: process::cpu(id).unwrap(), peak_mib: process::peak_mib(id).unwrap() }
    }
}

async fn measure(args: &Args) -> bool {
    let major = args.postgres;
    let server = tokio::task::spawn_blocking(move || cluster::cluster(major).url.clone()).await.unwrap();
    let admin = connect(&format!("{server}/postgres")).await;
    admin.execute_unprepared("CREATE DATABASE latency").await.unwrap();
    let long_ago = Utc::now() - TimeDelta::hours(1);
    let mut world = World::new(args.merchants().map(|id| Shop::seeded(id, args.pages as usize, long_ago)));
    world.limit = Some(Limit::a_minute(args.limit));
    world.always = args.merchants().map(|id| (id, Fault::Hang(Duration::from_millis(args.latency)))).collect();
    let folder = tempfile::tempdir().unwrap();
    let salla = Simulator::start(world).await.unwrap();
    let scene = Scene { args, salla, folder: folder.path(), database: format!("{server}/latency") };
    scene.prepare().await;

    let db = connect(&scene.database).await;
    let (took, used) = scene.night(&db).await;
    let held = number(&db, "SELECT count(*) FROM orders").await;
    assert_eq!(held, args.stores * i64::from(args.pages), "orders");
    assert_eq!(number(&db, "SELECT count(*) FROM runs WHERE status <> 'succeeded'").await, 0, "runs");
    let world = scene.salla.world();
    assert_eq!(world.seen.len(), args.requests() * usize::try_from(args.stores).unwrap(), "requests");
    let (bound, refused) = (args.bound(), world.violations.len());
    let ratio = took.as_secs_f64() / bound.as_secs_f64();
    println!(
        "{} stores, {} requests, {} stores at a time: {:.1} s, which is {ratio:.3} times the {:.1} s that limit and latency \
         permit; refused: {refused}; the daemon: {:.1} s of processor time, {:.1} MiB",
        args.stores,
        world.seen.len(),
        args.concurrency,
        took.as_secs_f64(),
        bound.as_secs_f64(),
        used.cpu.as_secs_f64(),
        used.peak_mib,
    );
    ratio <= TARGET && refused == 0
}

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap().try_get_by_index(0).unwrap()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    ExitCode::from(u8::from(!runtime.block_on(measure(&args))))
}
