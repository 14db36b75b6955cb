//! The program itself at work, and the most memory that it has needed.

use std::{process::Stdio, time::Duration};

use chrono::Utc;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use salla_reconciler::simulator::{Shop, Simulator, World};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::Instant,
};

use crate::{database::Bench, process, queue, table::Table};

const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const MEMORY_MIB: u64 = 150;
/// So many of the register's stores have tokens and orders; the others' runs fail at once.
const REAL: i64 = 200;

/// `serve` with the whole register, and a sweep in the queue.
pub async fn serves(bench: &Bench, seconds: u64, table: &mut Table) {
    let salla = Simulator::start(World::new((1..=REAL).map(|id| Shop::seeded(id, 100, Utc::now())))).await.unwrap();
    register(bench, &salla, 1..=REAL).await;
    queue::fan_out(bench, "a sweep for `serve`", table).await;
    let queued = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')";
    let before = bench.number(queued).await;
    let began = Instant::now();
    let mut serve = command(bench, &salla, &["serve"]).spawn().unwrap();
    let mut most = 0;
    while began.elapsed() < Duration::from_secs(seconds) && bench.number(queued).await > 0 {
        most = peak_mib(&serve).unwrap_or_else(|| panic!("serve has ended: {:?}", serve.try_wait()));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (took, left) = (began.elapsed().as_secs_f64(), bench.number(queued).await);
    most = peak_mib(&serve).unwrap_or(most);
    kill(Pid::from_raw(serve.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(serve.wait().await.unwrap().success());
    let what = format!("memory of `serve`, {:.0} runs a second", (before - left) as f64 / took);
    table.number(&what, &format!("{most} MiB"), &format!("{MEMORY_MIB} MiB"), most <= MEMORY_MIB);
    bench.cancel_queued().await;
}

/// `run` for one store with so many orders.
pub async fn reads_a_large_store(bench: &Bench, orders: usize, table: &mut Table) {
    let merchant = REAL + 1;
    let mut shop = Shop::seeded(merchant, orders, Utc::now());
    // As the list has them: the simulator need not sort them for each page.
    shop.orders.sort_by_key(|order| (order.updated_at, order.id));
    let mut world = World::new([shop]);
    world.row_window = usize::MAX / 2;
    let salla = Simulator::start(world).await.unwrap();
    register(bench, &salla, [merchant]).await;
    for what in ["reads", "reads again"] {
        let began = Instant::now();
        let id = merchant.to_string();
        let mut run = command(bench, &salla, &["run", "--full", "--merchant", &id]).spawn().unwrap();
        let mut most = 0;
        let ended = loop {
            if let Some(ended) = run.try_wait().unwrap() {
                break ended;
            }
            most = peak_mib(&run).unwrap_or(most).max(most);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(ended.success(), "run ended with {ended}");
        let held = bench.number(&format!("SELECT count(*) FROM orders WHERE merchant_id = {merchant}")).await;
        assert_eq!(held, orders as u64);
        let a_second = orders as f64 / began.elapsed().as_secs_f64();
        let what = format!("memory of `run` that {what} {orders} orders, {a_second:.0}/s");
        table.number(&what, &format!("{most} MiB"), &format!("{MEMORY_MIB} MiB"), most <= MEMORY_MIB);
    }
}

/// Lets the program do once what it does for each store, and at its side.
pub async fn does_a_little_of_everything(bench: &Bench) {
    let salla = Simulator::start(World::new((1..=REAL).map(|id| Shop::seeded(id, 120, Utc::now())))).await.unwrap();
    register(bench, &salla, 1..=3).await;
    bench
        .execute("UPDATE orders SET status = 'other', revision = 0 WHERE merchant_id = 1 AND salla_order_id % 2 = 0")
        .await;
    for merchant in ["1", "2", "3"] {
        let mut run = command(bench, &salla, &["run", "--full", "--merchant", merchant]).spawn().unwrap();
        let ended = run.wait().await.unwrap();
        assert!(ended.success(), "run ended with {ended}");
    }
}

async fn register(bench: &Bench, salla: &Simulator, merchants: impl IntoIterator<Item = i64>) {
    let lines: Vec<String> = merchants.into_iter().map(|merchant| salla.registration(merchant).unwrap()).collect();
    let mut import = command(bench, salla, &["merchants", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).await.unwrap();
    assert!(import.wait().await.unwrap().success());
}

fn command(bench: &Bench, salla: &Simulator, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
    command.args(args).env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    for (key, value) in [
        ("DATABASE__URL", bench.url.as_str()),
        ("SALLA__API_URL", &salla.api_url()),
        ("SALLA__TOKEN_URL", &salla.token_url()),
        ("SALLA__CLIENT_ID", "bench"),
        ("SALLA__CLIENT_SECRET", "bench-secret"),
        ("SALLA__REQUESTS_PER_MINUTE", "100000"),
        ("SALLA__MAX_REQUESTS_PER_MINUTE", "600000"),
        ("VAULT__KEYS", KEYS),
        ("HTTP__LISTEN", "127.0.0.1:0"),
    ] {
        command.env(format!("SALLA_RECONCILER__{key}"), value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `None`: it has ended.
fn peak_mib(child: &Child) -> Option<u64> {
    process::peak_mib(child.id()?).map(|mib| mib.ceil() as u64)
}
