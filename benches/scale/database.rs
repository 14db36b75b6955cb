//! A database of a platform's size.

use std::time::Duration;

use salla_reconciler::store::Store;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};

/// The database, and a connection beside the program's.
pub struct Bench {
    pub url: String,
    pub db: DatabaseConnection,
}

/// The schema of the program's tables, by default.
const SCHEMA: &str = "salla";

/// Of the statements of the benchmark's own, which fill tables.
const PATIENCE: Duration = Duration::from_secs(600);

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).max_connections(1).acquire_timeout(PATIENCE);
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

impl Bench {
    /// An empty one, with the program's schema.
    pub async fn create(server: &str) -> Self {
        let name = format!("scale_{}", std::process::id());
        let admin = connect(&format!("{server}/postgres")).await;
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = format!("{server}/{name}");
        let bench = Self { db: connect(&url).await, url };
        bench.store().await.migrate().await.unwrap();
        bench
    }

    /// The connections of one process.
    pub async fn store(&self) -> Store {
        Store::connect(&self.url.clone().into(), SCHEMA, 2, Duration::from_secs(60)).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first column of the first row.
    pub async fn text(&self, sql: &str) -> String {
        let row = self.db.query_one_raw(sea_orm::Statement::from_string(self.db.get_database_backend(), sql)).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap().try_get_by_index(0).unwrap()
    }

    pub async fn number(&self, sql: &str) -> u64 {
        self.text(&format!("SELECT CAST(({sql}) AS text)")).await.parse().unwrap()
    }

    /// Registers the merchants 1 to `merchants`, each covered up to some minute of the last day.
    pub async fn register(&self, merchants: u64) {
        self.execute(&format!(
            "INSERT INTO merchants (merchant_id, name, state) \
             SELECT g, 'store ' || g, 'active' FROM generate_series(1, {merchants}) g"
        ))
        .await;
        self.execute(
            "INSERT INTO watermarks (merchant_id, resource, watermark) \
             SELECT merchant_id, 'orders', now() - random() * interval '1 day' FROM merchants",
        )
        .await;
    }

    /// Adds the ended runs of so many nights, of which one in fifty did not succeed.
    pub async fn age(&self, merchants: u64, nights: u32) {
        for night in 1..=nights {
            let slot = format!("(date_trunc('day', now()) - interval '{night} days')");
            self.execute(&format!(
                "INSERT INTO runs (id, merchant_id, trigger, status, sweep_scheduled_for, scheduled_at, queued_at, started_at, finished_at, \
                 window_since, window_until, fetched, unchanged, epoch, attempt) \
                 SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM {slot}) * 1000 AS bigint) + g), 12, '0') || '7' \
                 || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 14, 19) AS uuid), g, 'schedule', \
                 CASE WHEN g % 50 = 0 THEN 'failed' ELSE 'succeeded' END, {slot}, {slot}, {slot}, {slot}, \
                 {slot} + g * interval '50 milliseconds', {slot} - interval '1 day', {slot}, 20, 20, 1, 1 \
                 FROM generate_series(1, {merchants}) g"
            ))
            .await;
            self.execute(&format!(
                "INSERT INTO sweeps (scheduled_for, cron, outcome, run_count, ended_at) \
                 VALUES ({slot}, 'aged', 'schedule', {merchants}, now())"
            ))
            .await;
        }
        self.execute("VACUUM ANALYZE").await;
    }

    /// Ends what waits.
    pub async fn cancel_queued(&self) {
        self.execute("UPDATE runs SET status = 'cancelled', finished_at = now() WHERE status = 'queued'").await;
    }

    /// Salla has asked that of a hundred stores one be left alone.
    pub async fn pause(&self) {
        self.execute(
            "INSERT INTO rate_limit_backoffs (merchant_id, retry_at) SELECT merchant_id, now() + interval '3 hours' FROM merchants \
             WHERE merchant_id % 100 = 7 ON CONFLICT DO NOTHING",
        )
        .await;
    }
}
