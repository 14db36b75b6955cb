//! What a night needs before it begins.

use std::time::Duration;

use futures::{StreamExt, stream};
use salla_reconciler::{
    domain::{MerchantId, Request, Trigger},
    reconcile::ports::{Actor, EnqueueOutcome, NewRun, RunQueue},
    store::Store,
};
use sea_orm::{ConnectOptions, Database, DatabaseConnection};

/// The schema of the program's tables, by default.
pub const SCHEMA: &str = "salla";

/// A connection of the benchmark's own.
pub async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(1).acquire_timeout(Duration::from_secs(600));
    options.map_sqlx_postgres_opts(|postgres| postgres.options([("search_path", "salla,public")]));
    for _ in 0..100 {
        // A server that has just opened its port may still refuse.
        if let Ok(db) = Database::connect(options.clone()).await {
            return db;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no connection to the server within 10 s");
}

/// Puts a run of each store's whole history into the queue.
pub async fn ask_for_runs(url: &str, merchants: impl Iterator<Item = i64>) {
    const AT_ONCE: u32 = 10;
    let store = Store::connect(&url.to_owned().into(), SCHEMA, AT_ONCE, Duration::from_secs(60)).await.unwrap();
    let asked = merchants.map(|merchant| {
        let run = NewRun {
            merchant: MerchantId(merchant),
            trigger: Trigger::Http,
            request: Request { full: true, ..Request::default() },
            by: Actor::Local,
            key: None,
        };
        let store = &store;
        async move { assert!(matches!(store.enqueue(run).await.unwrap(), EnqueueOutcome::Queued(_))) }
    });
    stream::iter(asked).for_each_concurrent(AT_ONCE as usize, |asked| asked).await;
    store.close().await.unwrap();
}
