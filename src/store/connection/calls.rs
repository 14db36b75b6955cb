//! Connecting, and calling with patience: every call has a time limit, and one that a transient error
//! broke is made again.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait, Value,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    dialect::Dialect,
    error::{CALL_TIMEOUT, ErrorClass, database_error, error_class, is_held, is_lock_timeout},
    pool::LOCK_TIMEOUT,
    setup_error::StoreError,
};
use crate::{reconcile::ports::DatabaseError, store::Store};

/// Calls that run when the pool closes may end within this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two attempts to get the lock of SQLite.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Pauses before a call is repeated.
pub(in crate::store) const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

impl Store {
    /// A statement in the dialect of the database.
    pub(in crate::store) fn statement(&self, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.db.get_database_backend(), sql, values)
    }

    /// The time by the clock of the database.
    pub(in crate::store) async fn database_now(&self, db: &impl ConnectionTrait) -> Result<DateTime<Utc>, DbErr> {
        let sql = format!("SELECT {} AS now", self.dialect.clock());
        let row = db.query_one_raw(self.statement(&sql, [])).await?;
        row.ok_or_else(|| DbErr::RecordNotFound("the clock".to_owned()))?.try_get("", "now")
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

    /// Closes the pool. Running calls have five seconds to end.
    ///
    /// # Errors
    /// When the database has gone away meanwhile.
    pub async fn close(self) -> Result<(), DbErr> {
        timeout(CLOSE_TIMEOUT, self.db.close()).await.unwrap_or(Ok(()))
    }

    /// Begins a transaction that may write.
    pub(in crate::store) async fn begin_write(&self) -> Result<DatabaseTransaction, DbErr> {
        let begun = self.wait_for_lock(|| self.begin_write_now()).await;
        if begun.is_ok() {
            self.lock_wait.end();
        }
        begun
    }

    /// Begins a transaction that may write, and does not wait for another process to end its own.
    pub(in crate::store) async fn begin_write_now(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin(TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        })
        .await
    }

    /// Repeats a call on SQLite while another process holds the lock, for as long as PostgreSQL waits within a statement.
    /// Between the attempts, other tasks use the only connection.
    pub(in crate::store) async fn wait_for_lock<T, F, Fut>(&self, call: F) -> Result<T, DbErr>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, DbErr>>,
    {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match call().await {
                Err(error)
                    if self.dialect == Dialect::Sqlite && is_lock_timeout(&error) && Instant::now() < deadline =>
                {
                    self.lock_wait.note();
                    sleep(LOCK_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Begins a transaction that only reads.
    pub(in crate::store) async fn begin_read(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin(TransactionOptions::default()).await
    }

    async fn begin(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        self.begins.watch(self.db.begin_with_options(options)).await
    }

    /// Makes a call that may be repeated; again after a transient error, within the time limit.
    pub(in crate::store) async fn call<T, F, Fut>(&self, call: F) -> Result<T, DatabaseError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<T, DbErr>> + Send,
    {
        let (mut pauses, deadline) = (PAUSES.iter(), Instant::now() + CALL_TIMEOUT);
        loop {
            let error = match timeout_at(deadline, self.wait_for_lock(&call)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(DatabaseError::Unavailable("no answer within 40 s".into())),
            };
            self.stale_plans.note(&error);
            self.disk_failure.note(&error);
            match pauses.next() {
                // A lock that another session holds: the caller has other work meanwhile.
                Some(_) if is_lock_timeout(&error) => return Err(database_error(error)),
                Some(&pause) if error_class(&error) == ErrorClass::Transient => {
                    tracing::debug!(error = %error, "the database call is repeated");
                    sleep(pause).await;
                }
                _ => return Err(database_error(error)),
            }
        }
    }
}

pub(in crate::store) async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, StoreError> {
    match timeout(limit, call).await {
        Ok(done) => {
            done.map_err(|error| if is_held(&error) { StoreError::Held(error) } else { StoreError::Migration(error) })
        }
        Err(_) => Err(StoreError::Unreachable(format!("no answer within {} s", limit.as_secs()))),
    }
}
