//! A separate database for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, QueryResult, Statement, Value};
use tempfile::TempDir;

use super::{
    cluster::cluster,
    kind::{Cell, Kind},
};

/// On which database a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres15,
    Postgres16,
}

impl Engine {
    /// The server's major version.
    pub fn major(self) -> u32 {
        match self {
            Self::Sqlite => panic!("it has no server"),
            Self::Postgres15 => 15,
            Self::Postgres16 => 16,
        }
    }
}

/// The schema of the program's tables, by default.
pub const SCHEMA: &str = "salla";

/// A database for one test.
pub struct TestDatabase {
    pub engine: Engine,
    pub url: String,
    pub db: DatabaseConnection,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// An empty one; SQLite's file lies in `folder`.
    pub async fn create(engine: Engine, folder: &TempDir) -> Self {
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}?mode=rwc", folder.path().join("test.db").display()),
            Engine::Postgres15 => create_on(15).await,
            Engine::Postgres16 => create_on(16).await,
        };
        Self::connect(engine, url).await
    }

    /// Another connection to one that is there.
    pub async fn connect(engine: Engine, url: String) -> Self {
        let mut options = ConnectOptions::new(&url);
        options.sqlx_logging(false).max_connections(4);
        if engine == Engine::Sqlite {
            options
                .max_connections(1)
                .map_sqlx_sqlite_opts(|sqlite| sqlite.busy_timeout(std::time::Duration::from_secs(10)));
        }
        // Objects that a test creates before the first migration are in `public`.
        options.map_sqlx_postgres_opts(|postgres| postgres.options([("search_path", "salla,public")]));
        let db = Database::connect(options).await.unwrap();
        Self { engine, url, db }
    }

    pub fn is_postgres(&self) -> bool {
        self.engine != Engine::Sqlite
    }

    /// Runs SQL that returns nothing; `$1` works on both.
    pub async fn execute(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> u64 {
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), sql, values);
        self.db.execute_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    pub async fn rows(&self, sql: &str) -> Vec<QueryResult> {
        let statement = Statement::from_string(self.db.get_database_backend(), sql);
        self.db.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of the first row, as a number.
    pub async fn number(&self, sql: &str) -> i64 {
        self.rows(sql).await[0].try_get_by_index(0).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, of a query with values.
    pub async fn number_of(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> i64 {
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), sql, values);
        let row = self.db.query_one_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        row.unwrap().try_get_by_index(0).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of the first row, as a text; NULL reads `NULL`.
    pub async fn text(&self, sql: &str) -> String {
        let text: Option<String> =
            self.rows(sql).await[0].try_get_by_index(0).unwrap_or_else(|error| panic!("{sql}: {error}"));
        text.unwrap_or_else(|| "NULL".to_owned())
    }

    /// Every row of every table that there is, as text, by the name of its table.
    pub async fn dump(&self) -> Vec<(String, String)> {
        let tables = if self.is_postgres() {
            "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
        } else {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        };
        let mut dumped = Vec::new();
        for table in self.rows(tables).await {
            let table: String = table.try_get_by_index(0).unwrap();
            let rows = if self.is_postgres() {
                format!("SELECT CAST(t AS text) FROM {table} t")
            } else {
                format!("SELECT {} FROM \"{table}\"", self.columns(&table).await)
            };
            for row in self.rows(&rows).await {
                dumped.push((table.clone(), row.try_get_by_index(0).unwrap()));
            }
        }
        dumped
    }

    /// SQL that makes one text of a row of SQLite's.
    async fn columns(&self, table: &str) -> String {
        let names = self.rows(&format!("SELECT name FROM pragma_table_info('{table}')")).await;
        let names = names.iter().map(|row| row.try_get_by_index::<String>(0).unwrap());
        let text = |name| {
            format!("CASE typeof(\"{name}\") WHEN 'blob' THEN hex(\"{name}\") ELSE COALESCE(\"{name}\", '') END")
        };
        names.map(text).collect::<Vec<_>>().join(" || ' ' || ")
    }

    /// Writes an order as a webhook consumer does: the contract's columns and no others.
    pub async fn consume<K: Kind>(&self, merchant: i64, item: &K) {
        let own = item.columns();
        let cast = |cell: &Cell, number| match cell {
            Cell::Amount(_) if self.is_postgres() => format!("CAST(${number} AS numeric)"),
            _ => format!("${number}"),
        };
        let names: String = own.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String =
            own.iter().enumerate().map(|(nth, (_, cell))| format!(", {}", cast(cell, nth + 5))).collect();
        let changes: String = own.iter().map(|(name, _)| format!("{name} = excluded.{name}, ")).collect();
        let payload = if self.is_postgres() { "CAST($4 AS jsonb)" } else { "$4" };
        let (table, id) = (K::TABLE, K::ID);
        let sql = format!(
            "INSERT INTO {table} (merchant_id, {id}, salla_updated_at, payload{names}) VALUES ($1, $2, $3, {payload}{values}) \
             ON CONFLICT (merchant_id, {id}) DO UPDATE SET {changes} \
             salla_updated_at = excluded.salla_updated_at, payload = excluded.payload \
             WHERE {table}.salla_updated_at < excluded.salla_updated_at"
        );
        let common = [
            merchant.into(),
            item.id().into(),
            K::DATED.then(|| item.updated_at()).into(),
            item.payload().to_string().into(),
        ];
        let values: Vec<sea_orm::Value> = common.into_iter().chain(own.iter().map(|(_, cell)| cell.value())).collect();
        self.execute(&sql, values).await;
    }
}

async fn create_on(major: u32) -> String {
    let (server, name) = match std::env::var("TEST_DATABASE_URL") {
        Ok(given) => (given.trim_end_matches('/').to_owned(), format!("reconciler_{}_{}", std::process::id(), major)),
        Err(_) => (tokio::task::spawn_blocking(move || cluster(major).url.clone()).await.unwrap(), "test".to_owned()),
    };
    let name = format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let admin = connect_patiently(&format!("{server}/postgres")).await;
    admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
    admin.close().await.unwrap();
    format!("{server}/{name}")
}

/// A server that has just opened its port may still refuse.
async fn connect_patiently(url: &str) -> DatabaseConnection {
    for _ in 0..100 {
        let mut options = ConnectOptions::new(url);
        options.sqlx_logging(false).max_connections(1);
        if let Ok(db) = Database::connect(options).await {
            return db;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no connection to {url} within 10 s");
}
