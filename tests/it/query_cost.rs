//! What a night costs the database, by its own counts, which no noise changes.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Engine, Site,
    site::{shop, totals},
};

on_every_database!(@ postgres: what_a_night_costs, what_a_small_store_costs);

const ORDERS: usize = 600;

/// Counts of a database's since it was made.
#[derive(Debug, Clone, Copy)]
struct Counts {
    /// Transactions. A statement outside of a transaction also counts as one.
    transactions: i64,
    /// Rows of orders that were read, for whatever reason.
    read: i64,
    /// Rows of orders that were inserted, updated or deleted.
    written: i64,
}

impl Counts {
    /// After the sessions before have ended, for these tell what they did at their ends.
    async fn of(site: &Site) -> Self {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let count = async |sql: &str| site.database.number(sql).await;
        let orders = "FROM pg_stat_user_tables WHERE relname = 'orders'";
        Self {
            transactions: count("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").await,
            read: count(&format!("SELECT seq_tup_read + idx_tup_fetch {orders}")).await,
            written: count(&format!("SELECT n_tup_ins + n_tup_upd + n_tup_del {orders}")).await,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            read: self.read - before.read,
            written: self.written - before.written,
        }
    }
}

async fn run(site: &Site) -> (Value, Counts) {
    let before = Counts::of(site).await;
    let run = site.reconcile(1001, &["--full"]).await;
    (run, Counts::of(site).await.since(before))
}

async fn what_a_night_costs(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, ORDERS)]).await;
    let orders = i64::try_from(ORDERS).unwrap();

    // The server has not looked at the table yet, and does not know that it grows.
    let (new, counts) = run(&site).await;
    assert_eq!(totals(&new)[1], ORDERS as u64, "{new}");
    assert_eq!(counts.written, orders);
    assert!(counts.read <= 4 * orders, "a page's cost does not grow with the store: {counts:?}");

    let (unchanged, counts) = run(&site).await;
    assert_eq!(totals(&unchanged)[3], ORDERS as u64, "{unchanged}");
    assert_eq!(counts.written, 0, "nothing is written where nothing has changed");
    let requests = unchanged["requests"].as_i64().unwrap();
    assert!(counts.read <= 4 * orders, "{counts:?} for {requests} requests");
    assert!(
        counts.transactions <= 4 * requests + 60,
        "the token, and what is held: {counts:?} for {requests} requests"
    );
}

async fn what_a_small_store_costs(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    run(&site).await;
    let (unchanged, counts) = run(&site).await;
    assert_eq!(totals(&unchanged)[3], 3, "{unchanged}");
    assert!(counts.transactions <= 60, "{counts:?}");
}
