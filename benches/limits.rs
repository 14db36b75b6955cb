//! How much of a store's limit is used, and how often it is broken, in real time, whichever way the server counts:
//! `cargo bench --bench limits -- --minutes 10 --limit 120 --kind all`. Exits with 1 when less than 95 % is used, or a
//! single request is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on may panic"
)]

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use clap::Parser;
use futures::future::join_all;
use salla_reconciler::simulator::{Announces, Limit, LimitKind, Shop, Simulator, World};
use tokio::{io::AsyncWriteExt, process::Command};

const MERCHANT: i64 = 1001;
const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const ENOUGH: f64 = 95.0;

#[derive(Parser)]
struct Args {
    /// How long, for all of them at the same time.
    #[arg(long, default_value_t = 5)]
    minutes: u32,
    /// Requests a minute.
    #[arg(long, default_value_t = 120)]
    limit: u32,
    /// window, clock-minute, sliding, leaky or all.
    #[arg(long, default_value = "all")]
    kind: String,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What came of one way of counting.
struct Row {
    limit: Limit,
    used: usize,
    refused: usize,
}

fn name(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Window => "window",
        LimitKind::ClockMinute => "clock-minute",
        LimitKind::Sliding => "sliding",
        LimitKind::Leaky => "leaky",
    }
}

/// Lets the program read a store that is too large for the time.
async fn measure(limit: Limit, minutes: u32) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let requests = (limit.per_minute * (minutes + 2)) as usize;
    let mut world = World::new([Shop::seeded(MERCHANT, requests, Utc::now())]);
    // Summaries only, and a request for each order: several are under way at a time.
    (world.documented, world.limit) = (true, Some(limit));
    let salla = Simulator::start(world).await.unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.args(args).env_clear().current_dir(folder.path()).kill_on_drop(true);
        for (key, value) in [
            ("DATABASE__URL", "sqlite://bench.db?mode=rwc"),
            ("SALLA__API_URL", &salla.api_url()),
            ("SALLA__TOKEN_URL", &salla.token_url()),
            ("SALLA__LISTING", "scan"),
            // Where nothing is announced, it has to be set.
            ("SALLA__REQUESTS_PER_MINUTE", &limit.per_minute.to_string()),
            ("VAULT__KEYS", KEYS),
        ] {
            command.env(format!("SALLA_RECONCILER__{key}"), value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    assert!(command(&["migrate", "up"]).wait().await.unwrap().success());
    let mut import = command(&["merchants", "import", "-"]);
    import.stdin.take().unwrap().write_all(salla.registration(MERCHANT).unwrap().as_bytes()).await.unwrap();
    assert!(import.wait().await.unwrap().success());

    let mut run = command(&["run", "--full"]);
    let begin = loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some(first) = salla.world().seen.first() {
            break first.at;
        }
    };
    let end = begin + TimeDelta::minutes(i64::from(minutes));
    tokio::select! {
        ended = run.wait() => panic!("the run ended too early: {ended:?}"),
        () = tokio::time::sleep((end - Utc::now()).to_std().unwrap()) => {}
    }
    run.kill().await.unwrap();
    let world = salla.world();
    let used = world.seen.iter().filter(|seen| seen.at < end).count();
    Row { limit, used, refused: world.violations.len() }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let kinds = LimitKind::ALL.into_iter().filter(|&kind| args.kind == "all" || args.kind == name(kind));
    let limits: Vec<Limit> = kinds
        .flat_map(|kind| {
            let limit = Limit::a_minute(args.limit).of(kind);
            [Announces::All, Announces::NoReset, Announces::Nothing].map(|announces| limit.announcing(announces))
        })
        .collect();
    if limits.is_empty() {
        println!("--kind {}: window, clock-minute, sliding, leaky or all", args.kind);
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rows = runtime.block_on(join_all(limits.into_iter().map(|limit| measure(limit, args.minutes))));
    println!("{:14}{:10}{:>8}{:>8}{:>8}{:>6}", "kind", "announces", "allowed", "used", "share", "429s");
    let mut well = true;
    for Row { limit, used, refused } in rows {
        let allowed = limit.per_minute * args.minutes;
        let share = 100.0 * used as f64 / f64::from(allowed);
        let announces = format!("{:?}", limit.announces).to_lowercase();
        println!("{:14}{announces:10}{allowed:>8}{used:>8}{share:>7.1}%{refused:>6}", name(limit.kind));
        well &= share >= ENOUGH && refused == 0;
    }
    ExitCode::from(u8::from(!well))
}
