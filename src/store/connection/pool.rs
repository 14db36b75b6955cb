//! The connections of the pool: their settings, and the detection of connections that no longer answer.
//!
//! If a peer goes silent (a failover, a firewall that forgot the connection), TCP notices it after
//! a quarter of an hour. So every wait for an answer here has a limit. A connection that does not
//! answer is thrown away, and its place in the pool is free again.

use std::{
    fs::OpenOptions, io::ErrorKind, os::unix::fs::OpenOptionsExt, pin::pin, str::FromStr, sync::Arc, time::Duration,
};

use parking_lot::Mutex;
use sea_orm::{
    ConnectOptions,
    sqlx::{
        self, Connection, Executor, PgConnection, Row,
        postgres::{PgConnectOptions, PgPoolOptions},
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
    },
};
use tokio::time::{Instant, timeout};

use migration::quoted;

use super::stale_plans::StalePlans;

/// To open a connection, or to wait for one that is free.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// One round trip.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// One that was in use a moment ago is not asked before it is used again.
const FRESH: Duration = Duration::from_secs(1);

/// By then, every connection of an aborted call has returned to the pool.
const IN_DOUBT: Duration = Duration::from_mins(10);

/// How long a call waits for a lock that another session holds; `lock_timeout` on PostgreSQL.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement on SQLite waits for a lock before it lets the other tasks use the only connection. Opening the
/// connection waits for `LOCK_TIMEOUT`.
const SQLITE_LIMITS: &str = "PRAGMA busy_timeout = 500";

/// Set in each session after connecting, because PgBouncer refuses them as startup parameters.
///
/// Planning the statements of a claim costs more than executing them, so each is planned once per session. A plan from
/// an empty queue must stay right after a sweep has filled it. So every look-up and every order has an index, and the
/// planner must use it. Remaining scans and sorts look expensive then, and would be compiled first: `jit = off`
/// prevents that.
const LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '5s'; \
                      SET idle_in_transaction_session_timeout = '30s'; \
                      SET plan_cache_mode = force_generic_plan; \
                      SET enable_seqscan = off; SET enable_sort = off; SET jit = off";

/// For one process on one machine: one connection.
pub fn sqlite(url: &str) -> ConnectOptions {
    let mut options = options(url);
    options.max_connections(1).min_connections(1);
    options.map_sqlx_sqlite_opts(|sqlite| sqlite.journal_mode(SqliteJournalMode::Wal).busy_timeout(LOCK_TIMEOUT));
    options.map_sqlx_sqlite_pool_opts(|pool: SqlitePoolOptions| {
        pool.after_connect(|connection, _| Box::pin(async move { connection.execute(SQLITE_LIMITS).await.map(drop) }))
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    // A full disk ends a transaction behind the driver's back, which then cannot begin another.
                    Ok(!connection.is_in_transaction())
                })
            })
    });
    options
}

/// Makes the file of a database that is to be created, so that only its owner reads what is stored. The files beside it get
/// its mode.
///
/// # Errors
/// When it cannot be made.
pub fn create_privately(url: &str) -> std::io::Result<()> {
    let Ok(options) = SqliteConnectOptions::from_str(url) else {
        // The connection says what is wrong.
        return Ok(());
    };
    if !url.contains("mode=rwc") {
        return Ok(());
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(options.get_filename()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Up to so many connections; `begins` knows of transactions that were given up while they were begun,
/// `stale_plans` of statements whose tables were altered.
pub fn postgres(
    url: &str,
    schema: &str,
    connections: u32,
    begins: &AbortedBegins,
    stale_plans: &StalePlans,
) -> ConnectOptions {
    let mut options = options(url);
    options.max_connections(connections).min_connections(0);
    options.map_sqlx_postgres_opts(of_session);
    let (silence, begins, stale_plans) = (DeadPeerDetector::default(), begins.clone(), stale_plans.clone());
    let search_path = quoted(schema);
    options.map_sqlx_postgres_pool_opts(move |pool: PgPoolOptions| {
        let (idle, released, begins, stale_plans) =
            (silence.clone(), silence.clone(), begins.clone(), stale_plans.clone());
        let search_path = search_path.clone();
        pool.test_before_acquire(false)
            .after_connect(move |connection, _| {
                let search_path = search_path.clone();
                Box::pin(async move {
                    connection.execute(LIMITS).await?;
                    let set = sqlx::query("SELECT set_config('search_path', $1, false)").bind(search_path);
                    connection.execute(set.persistent(false)).await.map(drop)
                })
            })
            .before_acquire(move |connection, usage| {
                let (silence, is_outdated) = (idle.clone(), stale_plans.outdates(usage.age));
                Box::pin(async move {
                    if is_outdated {
                        return Ok(false);
                    }
                    if usage.idle_for >= FRESH {
                        silence.presume(usage.idle_for)?;
                        silence.limit(connection.ping()).await?;
                    }
                    Ok(true)
                })
            })
            // A cancelled call returns a connection that may be silent, or in the middle of a transaction.
            .after_release(move |connection, _| {
                let (silence, begins) = (released.clone(), begins.clone());
                Box::pin(async move {
                    if begins.are_in_doubt() {
                        return silence.limit(is_at_rest(connection)).await;
                    }
                    silence.limit(connection.ping()).await.map(|()| true)
                })
            })
    });
    options
}

fn options(url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false).connect_timeout(ACQUIRE_TIMEOUT).acquire_timeout(ACQUIRE_TIMEOUT);
    options
}

/// PgBouncer knows few parameters of a session's start, and refuses others.
pub(super) fn of_session(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("salla-reconciler").extra_float_digits(None)
}

/// When a connection was last found silent. Connections that were idle since before then are most
/// likely also silent. A wait for each of them would keep the callers from a server that is back.
/// Clones share it.
#[derive(Clone, Default)]
struct DeadPeerDetector(Arc<Mutex<Option<Instant>>>);

impl DeadPeerDetector {
    /// A connection that was idle when another one fell silent is not used again.
    fn presume(&self, idle_for: Duration) -> Result<(), sqlx::Error> {
        match *self.0.lock() {
            Some(found) if found.elapsed() < idle_for => Err(silent()),
            _ => Ok(()),
        }
    }

    /// Waits for the answer to a question that any connection can answer at once.
    async fn limit<T>(&self, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        timeout(PING_TIMEOUT, answer).await.unwrap_or_else(|_| {
            *self.0.lock() = Some(Instant::now());
            Err(silent())
        })
    }
}

/// Watches the begin of transactions. A caller that is cancelled during `BEGIN` leaves a
/// transaction that the driver does not know (sqlx 0.9.0, its issue 4385). The next writes on this
/// connection would then seem done, and be undone when the connection is closed. So from then on,
/// each connection that comes back is checked, for long enough that the affected one is among them.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct AbortedBegins(Arc<Mutex<Option<Instant>>>);

impl AbortedBegins {
    /// Waits for a transaction to be begun, and takes note if the caller does not.
    pub async fn watch<T>(&self, begin: impl Future<Output = T>) -> T {
        let begin = pin!(begin);
        // The last declared value is dropped first, so the note exists before the connection returns.
        let mut watched = Watched { begins: self, is_over: false };
        let begun = begin.await;
        watched.is_over = true;
        begun
    }

    fn are_in_doubt(&self) -> bool {
        self.0.lock().is_some_and(|given_up| given_up.elapsed() < IN_DOUBT)
    }
}

struct Watched<'a> {
    begins: &'a AbortedBegins,
    is_over: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            *self.begins.0.lock() = Some(Instant::now());
        }
    }
}

/// Whether no transaction is open. The driver knows the state of the session, but does not show it.
/// A transaction that an earlier message began is older than this statement. This requires a
/// statement of one message, so the simple protocol is used.
async fn is_at_rest(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    connection.fetch_one("SELECT transaction_timestamp() = statement_timestamp()").await?.try_get(0)
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the connection is silent"))
}
