//! How the server goes about the program's statements, from its own log: none may read a whole table that it could look
//! things up in.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::{
    database::Bench,
    outbox, program,
    queue::{self, ending_of},
    table::Table,
};

use salla_reconciler::reconcile::ports::{RunHistory, RunQueue, ScheduleStore};

/// The tables that the program's work must not read whole.
const TABLES: [&str; 14] = [
    "runs",
    "merchants",
    "orders",
    "credentials",
    "rate_limit_backoffs",
    "watermarks",
    "run_seen_ids",
    "discrepancies",
    "order_detail_checks",
    "sweeps",
    "audit",
    "idempotency_keys",
    "outbox",
    "outbox_delivery_state",
];

/// A table of fewer pages is rightly read whole.
const SMALL: u64 = 100;

/// Statements about all merchants or all events: the parts of a sweep, and the counts for scrapes.
const ABOUT_ALL: [(&str, &[&str]); 3] = [
    (
        "INSERT INTO runs (id, merchant_id, trigger, status, sweep_scheduled_for",
        &["merchants", "credentials", "watermarks"],
    ),
    ("SELECT count(*) AS pending", &["outbox"]),
    ("SELECT m.state, count(*) AS merchants, min(w.watermark)", &["merchants", "watermarks"]),
];

/// Goes through the program's statements, and looks at the plans.
pub async fn look(bench: &Bench, table: &mut Table) {
    let name = bench.text("SELECT current_database()").await;
    // Sessions that begin from now on say what they do.
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
    ] {
        bench.execute(&format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    let log = PathBuf::from(bench.text("SELECT current_setting('data_directory')").await).with_file_name("log");
    let begin = std::fs::metadata(&log).unwrap().len();
    let mut quiet = Table::silent();
    queue::fan_out(bench, "for the plans", &mut quiet).await;
    let store = bench.store().await.with_events(outbox::EVENTS);
    bench.pause().await;
    queue::reads(bench, &store, "", &mut quiet).await;
    for limit in [1, 16, 16] {
        let claims = store.claim(limit).await.unwrap().claims;
        let held: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
        store.renew_leases(&held).await.unwrap();
        for (number, claim) in claims.iter().enumerate() {
            if number % 2 == 0 {
                store.release(&claim.lease, Duration::from_secs(60), None).await.unwrap();
            } else {
                store.finish(&claim.lease, ending_of(claim)).await.unwrap();
            }
        }
    }
    for _ in 0..3 {
        outbox::deliver(&store).await;
    }
    store.ended_sweeps().await.unwrap();
    store.prune(Duration::from_secs(86400 * 4)).await.unwrap();
    program::does_a_little_of_everything(bench).await;

    let large = large(bench).await;
    let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()[usize::try_from(begin).unwrap()..]).into_owned();
    let mut plans = 0;
    let mut whole = BTreeSet::new();
    for (statement, plan) in entries(&text) {
        plans += 1;
        let allowed: Vec<&str> = ABOUT_ALL
            .iter()
            .filter(|(part, _)| statement.contains(part))
            .flat_map(|(_, tables)| tables.iter().copied())
            .collect();
        for read in scanned(plan).filter(|name| large.contains(name) && !allowed.contains(name)) {
            whole.insert((read.to_owned(), statement.to_owned()));
        }
    }
    assert!(plans > 0, "the server explains nothing");
    let what = format!("of {plans} statements, those that read one of {} large tables", large.len());
    table.number(&what, &whole.len().to_string(), "0", whole.is_empty());
    for (name, statement) in whole {
        println!("  {name}: {}", statement.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

async fn large(bench: &Bench) -> Vec<&'static str> {
    let mut large = Vec::new();
    for name in TABLES {
        if bench.number(&format!("SELECT pg_relation_size('{name}') / 8192")).await >= SMALL {
            large.push(name);
        }
    }
    large
}

/// Statements and their plans. An entry's further lines begin with a tab.
fn entries(log: &str) -> impl Iterator<Item = (&str, &str)> {
    log.split("  plan:\n\tQuery Text: ").skip(1).map(|entry| {
        let end = entry.match_indices('\n').find(|(at, _)| !entry[at + 1..].starts_with('\t'));
        let entry = end.map_or(entry, |(at, _)| &entry[..at]);
        // The statements that are explained here are one line each.
        entry.split_once('\n').unwrap_or((entry, ""))
    })
}

fn scanned(plan: &str) -> impl Iterator<Item = &str> {
    plan.split("Seq Scan on ").skip(1).filter_map(|rest| rest.split_whitespace().next())
}
