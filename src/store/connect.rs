//! Connecting, and calling with patience: every call has a time limit, and one that a passing trouble
//! broke is made again.

use std::{future::Future, sync::Arc, time::Duration};

use migration::{MIGRATION_TABLE, Migrator, MigratorTrait, quoted};
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait, Value,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::{
    dialect::Dialect,
    error::{CALL_TIMEOUT, Trouble, is_held, is_lock_timeout, target_error, trouble},
    frontier::Frontier,
    outbox::HandOver,
    pool::{self, Begins},
    setup_error::StoreError,
    stale_plans::StalePlans,
};
use crate::{
    domain::{Resource, Resources},
    reconcile::ports::TargetError,
};

/// Each statement of a migration has PostgreSQL's limit, too.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a migration tries to get a lock that another session holds, a `lock_timeout` at a time.
const LOCK_PATIENCE: Duration = Duration::from_secs(45);

/// What is under way when the pool is closed ends first.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses before a call is made again.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// The database. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) db: DatabaseConnection,
    pub(super) dialect: Dialect,
    /// This process, by a name that no other process ever has.
    pub(super) worker_id: Uuid,
    pub(super) lease: Duration,
    /// Where PostgreSQL's tables are.
    pub(super) schema: Arc<str>,
    /// The resources of a run that names none.
    pub(super) resources: Resources,
    pub(super) frontier: Frontier,
    pub(super) hand_over: HandOver,
    begins: Begins,
    stale_plans: StalePlans,
}

impl Store {
    /// Connects. `schema`: where PostgreSQL's tables are. `lease`: how long a claim on a run lasts without renewal.
    ///
    /// # Errors
    /// When the URL names no database that is known, it does not answer, or a pooler before it does not keep sessions.
    pub async fn connect(
        url: &SecretString,
        schema: &str,
        connections: u32,
        lease: Duration,
    ) -> Result<Self, StoreError> {
        let (url, begins, stale_plans) = (url.expose_secret(), Begins::default(), StalePlans::default());
        let options = if url.starts_with("sqlite:") {
            pool::create_privately(url).map_err(|error| StoreError::Unreachable(error.to_string()))?;
            pool::sqlite(url)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let allowed = pool::knock(url).await?.unwrap_or(connections);
            if allowed < connections {
                tracing::warn!(
                    allowed,
                    wanted = connections,
                    "the database allows this role few connections: runs wait for each other"
                );
            }
            pool::postgres((url, schema), connections.min(allowed), &begins, &stale_plans)
        } else {
            return Err(StoreError::Scheme);
        };
        let db = Database::connect(options).await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        Ok(Self {
            dialect: Dialect::of(db.get_database_backend()),
            db,
            schema: schema.into(),
            worker_id: Uuid::new_v4(),
            lease,
            resources: Resource::ALL.iter().copied().collect(),
            frontier: Frontier::default(),
            hand_over: HandOver::default(),
            begins,
            stale_plans,
        })
    }

    /// Which database it is, for people.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.dialect {
            Dialect::Postgres => "PostgreSQL",
            Dialect::Sqlite => "SQLite",
        }
    }

    /// The schema that a session uses, if it exists; SQLite has none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn current_schema(&self) -> Result<Option<String>, StoreError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(None);
        }
        let sql = "SELECT CAST(current_schema() AS text) AS name";
        let read = async {
            let row = self.db.query_one_raw(self.statement(sql, [])).await?;
            row.map_or(Ok(None), |row| row.try_get("", "name"))
        };
        in_time(CALL_TIMEOUT, read).await
    }

    /// Applies the migrations that are missing. Another process may do the same at the same moment.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.create_schema().await?;
        self.require_room().await?;
        let (mut pauses, patience) = (PAUSES.iter(), Instant::now() + LOCK_PATIENCE);
        while self.pending().await? > 0 {
            self.require_known_migrations().await?;
            let up = self.begins.watch(Migrator::up(&self.db, None));
            match in_time(MIGRATION_TIMEOUT, up).await {
                Ok(()) => {}
                Err(StoreError::Held(_)) if Instant::now() < patience => sleep(PAUSES[0]).await,
                Err(error) => sleep(*pauses.next().ok_or(error)?).await,
            }
        }
        Ok(())
    }

    /// Reverts every migration, and with them every table of ours.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn revert(&self) -> Result<(), StoreError> {
        in_time(MIGRATION_TIMEOUT, self.begins.watch(Migrator::down(&self.db, None))).await
    }

    /// Each migration's name, and whether it is applied. Only reads: the role may have no right to more.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrations(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let applied = self.applied().await?;
        let all = Migrator::migrations();
        Ok(all.iter().map(|one| (one.name().to_owned(), applied.iter().any(|name| name == one.name()))).collect())
    }

    /// The names of all applied migrations, also of those that this version does not know.
    async fn applied(&self) -> Result<Vec<String>, StoreError> {
        let read = async {
            let access = match self.dialect {
                Dialect::Postgres => self.migration_table_access().await?,
                Dialect::Sqlite => {
                    let sql = format!("SELECT 1 FROM sqlite_master WHERE name = '{MIGRATION_TABLE}'");
                    let found = self.db.query_one_raw(self.statement(&sql, [])).await?;
                    if found.is_some() { TableAccess::Readable } else { TableAccess::Missing }
                }
            };
            match access {
                TableAccess::Missing => return Ok(Ok(Vec::new())),
                TableAccess::SchemaDenied => return Ok(Err(StoreError::SchemaDenied(self.schema.to_string()))),
                TableAccess::Readable => {}
            }
            let sql = format!("SELECT version FROM {MIGRATION_TABLE}");
            let rows = self.db.query_all_raw(self.statement(&sql, [])).await?;
            rows.iter().map(|row| row.try_get("", "version")).collect::<Result<Vec<String>, DbErr>>().map(Ok)
        };
        let read = async { read.await.inspect_err(|error| self.stale_plans.note(error)) };
        let applied = in_time(CALL_TIMEOUT, read).await.map_err(|error| match error {
            StoreError::Migration(error) | StoreError::Held(error) if trouble(&error) == Trouble::Passing => {
                StoreError::Unreachable(error.to_string())
            }
            error => error,
        });
        applied?
    }

    /// A session without USAGE on the schema finds no table in it: the catalogue says whether there is one.
    async fn migration_table_access(&self) -> Result<TableAccess, DbErr> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = $2) AS found, \
                   has_schema_privilege(n.oid, 'USAGE') AS may_use FROM pg_namespace n WHERE n.nspname = $1";
        let values: [Value; 2] = [self.schema.as_ref().into(), MIGRATION_TABLE.into()];
        let Some(row) = self.db.query_one_raw(self.statement(sql, values)).await? else {
            return Ok(TableAccess::Missing);
        };
        Ok(match (row.try_get("", "found")?, row.try_get("", "may_use")?) {
            (_, false) => TableAccess::SchemaDenied,
            (true, true) => TableAccess::Readable,
            (false, true) => TableAccess::Missing,
        })
    }

    /// Creates the schema of the tables on PostgreSQL. To find it first spares a role without the right to create schemas
    /// an error.
    async fn create_schema(&self) -> Result<(), StoreError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(());
        }
        let create = async {
            let find =
                self.statement("SELECT 1 AS found FROM pg_namespace WHERE nspname = $1", [(&*self.schema).into()]);
            if self.db.query_one_raw(find).await?.is_some() {
                return Ok(());
            }
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&self.schema));
            match self.db.execute_unprepared(&sql).await {
                // Another process created it at the same moment.
                Err(error) if trouble(&error) == Trouble::Taken => Ok(()),
                created => created.map(drop),
            }
        };
        in_time(CALL_TIMEOUT, create).await
    }

    /// Refuses to migrate where migrations are on record that this version does not know.
    async fn require_known_migrations(&self) -> Result<(), StoreError> {
        let ours = Migrator::migrations();
        let mut unknown = self.applied().await?;
        unknown.retain(|name| !ours.iter().any(|one| one.name() == name));
        unknown.sort_unstable();
        unknown.truncate(5);
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::UnknownMigrations(unknown.join(", "))) }
    }

    /// Whether one of the migrations of this program is on record.
    pub(super) async fn has_begun(&self) -> Result<bool, StoreError> {
        Ok(self.migrations().await?.iter().any(|(_, applied)| *applied))
    }

    /// The SQL of the pending migrations; empty: none is pending.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn pending_sql(&self) -> Result<String, StoreError> {
        self.require_room().await?;
        let migrations = self.migrations().await?;
        let pending: Vec<String> =
            migrations.into_iter().filter(|(_, applied)| !applied).map(|(name, _)| name).collect();
        let dialect = match self.dialect {
            Dialect::Postgres => migration::Dialect::Postgres,
            Dialect::Sqlite => migration::Dialect::Sqlite,
        };
        Ok(if pending.is_empty() { String::new() } else { migration::sql(dialect, &self.schema, &pending) })
    }

    /// How many migrations are missing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn pending(&self) -> Result<usize, StoreError> {
        let migrations = self.migrations().await?;
        Ok(migrations.iter().filter(|(_, applied)| !applied).count())
    }

    /// Refuses to work on a schema that is older than this program.
    ///
    /// # Errors
    /// When migrations are missing, or the database refuses.
    pub async fn require_schema(&self) -> Result<(), StoreError> {
        match self.pending().await? {
            0 => Ok(()),
            pending => {
                self.require_known_migrations().await?;
                Err(StoreError::Outdated(pending))
            }
        }
    }

    /// Closes the pool; what is under way has five seconds to end.
    ///
    /// # Errors
    /// When the database has gone away meanwhile.
    pub async fn close(self) -> Result<(), DbErr> {
        timeout(CLOSE_TIMEOUT, self.db.close()).await.unwrap_or(Ok(()))
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin_write(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await
    }

    /// Begins a transaction that only reads.
    pub(super) async fn begin_read(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin(TransactionOptions::default()).await
    }

    async fn begin(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        self.begins.watch(self.db.begin_with_options(options)).await
    }

    /// Makes a call that may be repeated; again after a passing trouble, within the time limit.
    pub(super) async fn call<T, F, Fut>(&self, call: F) -> Result<T, TargetError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<T, DbErr>> + Send,
    {
        let (mut pauses, deadline) = (PAUSES.iter(), Instant::now() + CALL_TIMEOUT);
        loop {
            let error = match timeout_at(deadline, call()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(TargetError::Unavailable("no answer within 40 s".into())),
            };
            self.stale_plans.note(&error);
            match pauses.next() {
                // A lock that another session holds: the caller has other work meanwhile.
                Some(_) if is_lock_timeout(&error) => return Err(target_error(error)),
                Some(&pause) if trouble(&error) == Trouble::Passing => {
                    tracing::debug!(error = %error, "the database call is made again");
                    sleep(pause).await;
                }
                _ => return Err(target_error(error)),
            }
        }
    }
}

/// What a session sees of the table of migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableAccess {
    Missing,
    Readable,
    /// The role lacks USAGE on the schema.
    SchemaDenied,
}

async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
    match timeout(limit, call).await {
        Ok(done) => {
            done.map_err(|error| if is_held(&error) { StoreError::Held(error) } else { StoreError::Migration(error) })
        }
        Err(_) => Err(StoreError::Unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}
