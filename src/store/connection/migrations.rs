//! The migrations: which are applied, and how they are applied and reverted.

use std::time::Duration;

use migration::{MIGRATION_TABLE, Migrator, MigratorTrait, quoted};
use sea_orm::{ConnectionTrait, DbErr, Value};
use tokio::time::{Instant, sleep};

use super::{
    calls::{PAUSES, in_time},
    dialect::Dialect,
    error::{CALL_TIMEOUT, ErrorClass, dependents, error_class},
    setup_error::StoreError,
};
use crate::store::Store;

/// All migrations together. PostgreSQL also limits each statement.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a migration tries to get a lock that another session holds, a `lock_timeout` at a time.
const LOCK_PATIENCE: Duration = Duration::from_secs(45);

/// What a session sees of the table of migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableAccess {
    Missing,
    Readable,
    /// The role lacks USAGE on the schema.
    SchemaDenied,
}

impl Store {
    /// Applies the migrations that are missing. Another process may do the same at the same moment.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.create_schema().await?;
        self.require_no_table_conflict().await?;
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

    /// Reverts every migration, and with them every table, or nothing.
    ///
    /// # Errors
    /// When the database refuses, as when a view of another program reads a table.
    pub async fn revert(&self) -> Result<(), StoreError> {
        let revert = async {
            let txn = self.begin_write().await?;
            Migrator::down(&txn, None).await?;
            txn.commit().await
        };
        in_time(MIGRATION_TIMEOUT, revert).await.map_err(|error| match &error {
            StoreError::Migration(cause) => dependents(cause).map_or(error, StoreError::Dependents),
            _ => error,
        })
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
            StoreError::Migration(error) | StoreError::Held(error) if error_class(&error) == ErrorClass::Transient => {
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

    async fn find_schema(&self) -> Result<bool, DbErr> {
        let find = self.statement("SELECT 1 AS found FROM pg_namespace WHERE nspname = $1", [(&*self.schema).into()]);
        Ok(self.db.query_one_raw(find).await?.is_some())
    }

    /// Creates the schema of the tables on PostgreSQL. To find it first spares a role without the right to create schemas
    /// an error.
    async fn create_schema(&self) -> Result<(), StoreError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(());
        }
        let create = async {
            if self.find_schema().await? {
                return Ok(());
            }
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&self.schema));
            match self.db.execute_unprepared(&sql).await {
                // Another process created it at the same moment.
                Err(error) if error_class(&error) == ErrorClass::UniqueViolation => Ok(()),
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
    pub(in crate::store) async fn has_begun(&self) -> Result<bool, StoreError> {
        Ok(self.migrations().await?.iter().any(|(_, applied)| *applied))
    }

    /// Before the first migration: tables of another program with our names would make half of a schema.
    ///
    /// # Errors
    /// When there are any.
    pub(in crate::store) async fn require_no_table_conflict(&self) -> Result<(), StoreError> {
        let look = || async {
            let rows = self.db.query_all_raw(self.statement(self.dialect.table_names(), [])).await?;
            rows.iter().map(|row| row.try_get("", "name")).collect::<Result<Vec<String>, DbErr>>()
        };
        let there = self.call(look).await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        if there.iter().any(|table| table == MIGRATION_TABLE) && self.has_begun().await? {
            return Ok(());
        }
        let shipped = migration::tables().into_iter().map(|table| table.name());
        let taken: Vec<&str> = shipped.filter(|table| there.iter().any(|other| other == table)).collect();
        if taken.is_empty() { Ok(()) } else { Err(StoreError::TableNameConflict(taken.join(", "))) }
    }

    /// The SQL of the pending migrations; empty: none is pending.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn pending_sql(&self) -> Result<String, StoreError> {
        self.require_no_table_conflict().await?;
        let migrations = self.migrations().await?;
        let pending: Vec<String> =
            migrations.into_iter().filter(|(_, applied)| !applied).map(|(name, _)| name).collect();
        let (dialect, exists) = match self.dialect {
            Dialect::Postgres => (migration::Dialect::Postgres, in_time(CALL_TIMEOUT, self.find_schema()).await?),
            Dialect::Sqlite => (migration::Dialect::Sqlite, true),
        };
        Ok(if pending.is_empty() { String::new() } else { migration::sql(dialect, (&self.schema, exists), &pending) })
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
}
