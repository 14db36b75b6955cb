//! Connecting, and calling with patience: every call has a time limit, and one that a passing trouble
//! broke is made again.

use std::{future::Future, time::Duration};

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    dialect::Dialect,
    error::{CALL_TIMEOUT, Trouble, is_held, is_lock_timeout, target_error, trouble},
    pool::LOCK_TIMEOUT,
    setup_error::StoreError,
};
use crate::{reconcile::ports::TargetError, store::Store};

/// Calls that run when the pool closes may end within this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses before a call is made again.
pub(in crate::store) const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

impl Store {
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

    /// Begins a transaction that may write. On SQLite this waits for the lock of another process, as a statement on
    /// PostgreSQL does.
    pub(in crate::store) async fn begin_write(&self) -> Result<DatabaseTransaction, DbErr> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let options = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            match self.begin(options).await {
                Err(error) if is_lock_timeout(&error) && Instant::now() < deadline => {}
                begun => return begun,
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

    /// Makes a call that may be repeated; again after a passing trouble, within the time limit.
    pub(in crate::store) async fn call<T, F, Fut>(&self, call: F) -> Result<T, TargetError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<T, DbErr>> + Send,
    {
        let started = Instant::now();
        let (mut pauses, deadline) = (PAUSES.iter(), started + CALL_TIMEOUT);
        loop {
            let error = match timeout_at(deadline, call()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(TargetError::Unavailable("no answer within 40 s".into())),
            };
            self.stale_plans.note(&error);
            self.disk_failure.note(&error);
            if is_lock_timeout(&error) {
                if started.elapsed() < LOCK_TIMEOUT {
                    continue;
                }
                // The caller has other work meanwhile.
                return Err(target_error(error));
            }
            match pauses.next() {
                Some(&pause) if trouble(&error) == Trouble::Passing => {
                    tracing::debug!(error = %error, "the database call is repeated");
                    sleep(pause).await;
                }
                _ => return Err(target_error(error)),
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
