//! Daemons are killed at random while merchants change, runs are requested and the schedule fires.
//! The tests check conditions after each death, and at the end.
//!
//! `CHAOS_KILLS=200 tests/run --test it -- chaos::` kills 200 times a test; `SEED=4711` makes the same decisions again
//! (the machine's own timing stays its own).

mod replicas;
mod storm;

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep_until};

use self::storm::{Storm, number};
use crate::support::Engine;

on_every_database!(repeated_kills_lose_nothing, repeated_sigterms_lose_nothing);

/// How many kills by default.
const KILLS: u64 = 20;

/// Failure modes, "Crash recovery": three replicas, or the one that SQLite is for.
async fn repeated_kills_lose_nothing(engine: Engine) {
    let replicas = if engine == Engine::Sqlite { 1 } else { 3 };
    let mut storm = Storm::new(engine, replicas, "2s").await;
    for _ in 0..number("CHAOS_KILLS").unwrap_or(KILLS) {
        storm.ask_for_runs().await;
        let pause = storm.random(50..1200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        storm.kill_one().await;
    }
    storm.end().await;
}

/// Failure modes, "Rolling deploys": an orderly end costs no run an attempt, however much goes on.
async fn repeated_sigterms_lose_nothing(engine: Engine) {
    // The leases are so long that none lapses on a slow machine. A lapse also costs an attempt.
    let mut storm = Storm::new(engine, 1, "10s").await;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let next = Instant::now() + Duration::from_secs(2);
        storm.ask_for_runs().await;
        storm.await_work().await;
        sleep_until(next).await;
        let began = Instant::now();
        let mut daemon = storm.daemons.remove(0);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().await, Some(0), "{}: {}", storm.plan(), daemon.log_text());
        slowest = slowest.max(began.elapsed());
        assert!(slowest < Duration::from_secs(25), "{}: the grace is over: {slowest:?}", storm.plan());
        let database = &storm.site.database;
        for (what, sql) in [
            ("runs were left behind", "SELECT count(*) FROM runs WHERE status = 'running'"),
            (
                "attempts were spent",
                "SELECT count(*) FROM runs WHERE attempt > CASE status WHEN 'queued' THEN 0 ELSE 1 END",
            ),
            ("failed_attempts were counted", "SELECT count(*) FROM runs WHERE failed_attempts > 0"),
        ] {
            assert_eq!(database.number(sql).await, 0, "{}: {what}: {}", storm.plan(), daemon.log_text());
        }
        storm.start_one().await;
    }
    println!("{engine:?}: the slowest of 10 orderly ends took {slowest:?}");
    storm.end().await;
}
