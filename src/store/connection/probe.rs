//! Checks whether connections to PostgreSQL keep their sessions, before the pool opens any.

use std::{str::FromStr, time::Duration};

use sea_orm::sqlx::{self, Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::timeout;

use super::{
    pool::{PING_TIMEOUT, of_session},
    setup_error::StoreError,
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// -1 means no limit. A superuser has no limit.
const ALLOWED_CONNECTIONS: &str = "SELECT (SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1)) \
                                   FROM pg_roles, pg_database WHERE rolname = current_user \
                                   AND datname = current_database() AND NOT rolsuper)";

/// Connects outside the pool, and checks whether a session keeps its settings. The pool would only
/// say that it waited in vain. Returns how many connections the role and the database allow, if
/// they set a limit. A pool that tries to open more keeps its callers from the connections that it
/// has.
///
/// # Errors
/// When the server cannot be reached, has no room for two connections, or is behind a pooler that hands its sessions
/// to others between transactions.
pub async fn connections(url: &str) -> Result<Option<u32>, StoreError> {
    let options = of_session(PgConnectOptions::from_str(url).map_err(|_| StoreError::Address)?);
    let mut first = open(&options).await.map_err(|error| {
        if error.contains("unsupported startup parameter") { StoreError::StartupParameter } else { unreachable(error) }
    })?;
    let mut second = open(&options).await.map_err(StoreError::NoSpareConnections)?;
    let looked = async {
        let kept = keeps_sessions(&mut first, &mut second).await?;
        // Also by the simple protocol.
        let limit = first.fetch_one(ALLOWED_CONNECTIONS).await?.try_get::<Option<i32>, _>(0)?;
        let encoding = first.fetch_one("SELECT current_setting('server_encoding')").await?.try_get::<String, _>(0)?;
        Ok::<_, sqlx::Error>((kept, limit.and_then(|limit| u32::try_from(limit).ok()), encoding))
    };
    let looked = timeout(PROBE_TIMEOUT, looked).await;
    for connection in [first, second] {
        // The result does not matter, because the connection is not used again.
        let _ = timeout(PING_TIMEOUT, connection.close()).await;
    }
    match looked {
        Ok(Ok((false, ..))) => Err(StoreError::SharedSessions),
        Ok(Ok((.., encoding))) if encoding != "UTF8" => Err(StoreError::Encoding(encoding)),
        Ok(Ok((_, limit, _))) => Ok(limit),
        Ok(Err(error)) => Err(unreachable(error)),
        Err(_) => Err(unreachable("no answer within 10 s")),
    }
}

fn unreachable(why: impl ToString) -> StoreError {
    StoreError::Unreachable(why.to_string())
}

/// A connection whose session has answered: a pooler greets before it has one for us.
async fn open(options: &PgConnectOptions) -> Result<PgConnection, String> {
    let opened = async {
        let mut connection = PgConnection::connect_with(options).await?;
        connection.execute("SET salla_reconciler.session = ''").await?;
        Ok::<_, sqlx::Error>(connection)
    };
    match timeout(PROBE_TIMEOUT, opened).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err("no answer within 10 s".to_owned()),
    }
}

/// One session must not see the setting of the other. The simple protocol is used, because a shared session loses
/// prepared statements. Repeated, because a busy pooler may return the same session by chance.
async fn keeps_sessions(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for _ in 0..3 {
        first.execute("SET salla_reconciler.session = 'first'").await?;
        second.execute("SET salla_reconciler.session = 'second'").await?;
        let row = first.fetch_one("SELECT current_setting('salla_reconciler.session', true)").await?;
        if row.try_get::<Option<String>, _>(0)?.as_deref() != Some("first") {
            return Ok(false);
        }
    }
    Ok(true)
}
