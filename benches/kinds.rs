//! The cost of a record of each kind: the processor time of the program, and the most memory that it needs, side by
//! side. It is measured when all is new, and when nothing has changed: `cargo bench --bench kinds -- --records 10000`.
//! Exits with 1 when a kind costs much more than orders do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on may panic"
)]

#[path = "support/process.rs"]
mod process;

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use clap::Parser;
use salla_reconciler::{
    domain::Resource,
    simulator::{Shop, Simulator, World},
};
use tokio::{io::AsyncWriteExt, process::Command, time::Instant};

const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const MERCHANT: i64 = 1001;

/// Salla sends all of a store's statuses in one answer, so there are not many.
const STATUSES: usize = 1_000;

/// A kind may cost so much more than orders, in time a record and in memory.
const IN_LINE: f64 = 1.5;

#[derive(Parser)]
struct Args {
    /// Of each kind.
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// How often each is measured, in turns; the least counts.
    #[arg(long, default_value_t = 3)]
    times: usize,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Microseconds of the processor, a record.
    micros: f64,
    wall: Duration,
    /// The most memory, in MiB.
    mebibytes: f64,
}

impl Cost {
    fn least(self, other: Self) -> Self {
        Self {
            micros: self.micros.min(other.micros),
            wall: self.wall.min(other.wall),
            mebibytes: self.mebibytes.min(other.mebibytes),
        }
    }
}

struct Site {
    salla: Simulator,
    folder: tempfile::TempDir,
}

impl Site {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.args(args).env_clear().current_dir(self.folder.path()).kill_on_drop(true);
        for (key, value) in [
            ("DATABASE__URL", "sqlite://bench.db?mode=rwc"),
            ("SALLA__API_URL", &self.salla.api_url()),
            ("SALLA__TOKEN_URL", &self.salla.token_url()),
            ("SALLA__REQUESTS_PER_MINUTE", "100000"),
            ("SALLA__MAX_REQUESTS_PER_MINUTE", "600000"),
            ("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000"),
            ("VAULT__KEYS", KEYS),
        ] {
            command.env(format!("SALLA_RECONCILER__{key}"), value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    async fn run(&self, resource: Resource, records: usize) -> Cost {
        let began = Instant::now();
        let mut run = self.command(&["run", "--full", "--resource", resource.as_str()]).spawn().unwrap();
        let (id, mut most) = (run.id().unwrap(), 0.0);
        // Linux shows the processor time until the process is waited for, and the memory until it ends.
        while !process::has_ended(id) {
            most = process::peak_mib(id).unwrap_or(most).max(most);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let used = process::cpu(id).unwrap();
        assert!(run.wait().await.unwrap().success(), "a run of {resource} failed");
        Cost { micros: used.as_secs_f64() * 1e6 / records as f64, wall: began.elapsed(), mebibytes: most }
    }
}

/// A store with so many of each kind, and nothing held of it yet.
async fn site(records: usize) -> Site {
    let then = Utc::now() - TimeDelta::days(1);
    let shop = Shop::seeded(MERCHANT, records, then);
    let mut shop = shop.stocked(records, then).visited(records, then).with_statuses(STATUSES, then);
    // As the list has them: the simulator need not sort them for each page.
    shop.orders.sort_by_key(|order| (order.updated_at, order.id));
    let mut world = World::new([shop]);
    world.row_window = usize::MAX / 2;
    let site = Site { salla: Simulator::start(world).await.unwrap(), folder: tempfile::tempdir().unwrap() };
    let mut import = site.command(&["merchants", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let line = site.salla.registration(MERCHANT).unwrap();
    import.stdin.take().unwrap().write_all(line.as_bytes()).await.unwrap();
    assert!(import.wait().await.unwrap().success());
    site
}

async fn measure(args: &Args) -> Vec<(Resource, usize, [Cost; 2])> {
    let mut rows: Vec<(Resource, usize, [Cost; 2])> = Vec::new();
    for _ in 0..args.times {
        let site = site(args.records).await;
        for &resource in Resource::ALL {
            let records = if resource == Resource::OrderStatuses { STATUSES } else { args.records };
            let costs = [site.run(resource, records).await, site.run(resource, records).await];
            match rows.iter_mut().find(|(known, ..)| *known == resource) {
                Some((_, _, least)) => *least = [least[0].least(costs[0]), least[1].least(costs[1])],
                None => rows.push((resource, records, costs)),
            }
        }
    }
    rows
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rows = runtime.block_on(measure(&args));
    let orders = rows.iter().find(|(resource, ..)| *resource == Resource::Orders).map(|(_, _, costs)| *costs).unwrap();
    println!(
        "{:16}{:>9}{:12}{:>12}{:>9}{:>9}{:>9}{:>9}",
        "kind", "records", "  all", "µs each", "ratio", "MiB", "ratio", "wall"
    );
    let mut well = true;
    for (resource, records, costs) in rows {
        for (what, cost, of_orders) in [("  new", costs[0], orders[0]), ("  unchanged", costs[1], orders[1])] {
            let (time, memory) = (cost.micros / of_orders.micros, cost.mebibytes / of_orders.mebibytes);
            let wall = cost.wall.as_secs_f64();
            println!(
                "{:16}{records:>9}{what:12}{:>12.1}{time:>9.2}{:>9.1}{memory:>9.2}{wall:>8.2}s",
                resource.as_str(),
                cost.micros,
                cost.mebibytes,
            );
            // The start of the program, which is the same for all, is much for few records.
            well &= memory <= IN_LINE && (time <= IN_LINE || records == STATUSES);
        }
    }
    ExitCode::from(u8::from(!well))
}
