//! What a database error means: try again, set the row aside, or give up.

use std::time::Duration;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};

use crate::reconcile::ports::DatabaseError;

/// The time limit of a call with all its retries. The limits of PostgreSQL are shorter.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// A value as the JSON text that is kept of it.
pub fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String, DbErr> {
    serde_json::to_string(value).map_err(|error| DbErr::Json(error.to_string()))
}

/// The class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The connection, the server's state, or another transaction: the same call may succeed.
    Transient,
    /// The values of a row.
    InvalidRow,
    /// A unique index: someone else was faster.
    UniqueViolation,
    /// The database, one of the tables, or a right to them is missing: nothing can be done until it is there again.
    Unusable,
    /// Anything else.
    Permanent,
}

/// Tells errors apart by SQLSTATE (PostgreSQL, appendix A) or SQLite's result code.
pub fn error_class(error: &DbErr) -> ErrorClass {
    if matches!(error, DbErr::ConnectionAcquire(_)) {
        return ErrorClass::Transient;
    }
    let Some(error) = of_the_driver(error) else {
        return ErrorClass::Permanent;
    };
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.is_unique_violation() {
                ErrorClass::UniqueViolation
            } else if is_stale_plan(&**error) {
                ErrorClass::Transient
            } else if is_postgres(&**error) {
                postgres(&code)
            } else if ["no such table", "no such column"].iter().any(|missing| error.message().contains(missing)) {
                ErrorClass::Unusable
            } else {
                sqlite(code.parse().unwrap_or(0))
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => ErrorClass::Transient,
        // A value that the driver itself refuses to send.
        sqlx::Error::Encode(_) => ErrorClass::InvalidRow,
        _ => ErrorClass::Permanent,
    }
}

/// The SQLSTATE, or SQLite's result code without its extension.
enum Code {
    Postgres(String),
    Sqlite(i32),
}

fn code_of(error: &DbErr) -> Option<Code> {
    let error = of_the_driver(error)?.as_database_error()?;
    let code = error.code()?.into_owned();
    if is_postgres(error) {
        Some(Code::Postgres(code))
    } else {
        code.parse().ok().map(|code: i32| Code::Sqlite(code & 0xff))
    }
}

/// Whether another session held a lock for longer than `lock_timeout` of PostgreSQL or `busy_timeout` of SQLite.
pub fn is_lock_timeout(error: &DbErr) -> bool {
    match code_of(error) {
        Some(Code::Postgres(code)) => code == "55P03",
        // BUSY, LOCKED.
        Some(Code::Sqlite(code)) => matches!(code, 5 | 6),
        None => false,
    }
}

/// Whether another session had what this one waited for.
pub fn is_held(error: &DbErr) -> bool {
    is_lock_timeout(error) || matches!(code_of(error), Some(Code::Postgres(code)) if code == "40P01")
}

/// Whether the disk is full or broken.
pub fn is_disk_failure(error: &DbErr) -> bool {
    match code_of(error) {
        Some(Code::Postgres(code)) => matches!(&*code, "53100" | "58030"),
        // IOERR, FULL.
        Some(Code::Sqlite(code)) => matches!(code, 10 | 13),
        None => false,
    }
}

/// The views and other objects that depend on what was to be dropped, in PostgreSQL's words.
pub fn dependents(error: &DbErr) -> Option<String> {
    let error = of_the_driver(error)?.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    (error.code() == "2BP01").then(|| error.detail().unwrap_or_else(|| error.message()).replace('\n', "; "))
}

/// Whether a table was altered after this session had prepared the statement: the session's statements are of no use any
/// more.
pub fn has_stale_plan(error: &DbErr) -> bool {
    of_the_driver(error).and_then(sqlx::Error::as_database_error).is_some_and(is_stale_plan)
}

/// SQLSTATE 0A000 also means an unsupported feature. The routine distinguishes both, in any language.
fn is_stale_plan(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some_and(|error| {
        error.code() == "0A000"
            && (error.routine() == Some("RevalidateCachedQuery") || error.message().contains("cached plan"))
    })
}

fn is_postgres(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some()
}

fn of_the_driver(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

fn postgres(code: &str) -> ErrorClass {
    match code {
        // Serialization failures, statements with an unknown outcome, deadlocks, unavailable locks,
        // and statements that a timeout cancelled.
        // Timeouts of a session; a server that starts or shuts down; a database that does not
        // accept connections.
        // A server that only reads. After a failover, it is the old one.
        "40001" | "40003" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04"
        | "25006" | "55000" => ErrorClass::Transient,
        // Connection exceptions; no room on the disk, in memory or for connections; the system's errors.
        _ if ["08", "53", "58"].contains(&code.get(..2).unwrap_or("")) => ErrorClass::Transient,
        // The database or the schema does not exist, or was dropped under the session. The role may
        // not log in or lacks a right. A table or column does not exist.
        "3D000" | "57P04" | "3F000" | "28000" | "28P01" | "42501" | "42P01" | "42703" => ErrorClass::Unusable,
        // Data exceptions, constraints, program limits, and what a trigger raises.
        _ if ["22", "23", "44", "54", "P0"].contains(&code.get(..2).unwrap_or("")) => ErrorClass::InvalidRow,
        _ => ErrorClass::Permanent,
    }
}

fn sqlite(code: i32) -> ErrorClass {
    match code & 0xff {
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL: the disk's and other processes' troubles.
        // SCHEMA: a table was altered.
        5..=8 | 10 | 13..=15 | 17 => ErrorClass::Transient,
        // PERM, CORRUPT, AUTH, NOTADB.
        3 | 11 | 23 | 26 => ErrorClass::Unusable,
        // TOOBIG, CONSTRAINT, MISMATCH.
        18..=20 => ErrorClass::InvalidRow,
        _ => ErrorClass::Permanent,
    }
}

/// Whether the database refuses a row. Another unique index on the table also does.
pub fn is_refusal(error: &DbErr) -> bool {
    matches!(error_class(error), ErrorClass::InvalidRow | ErrorClass::UniqueViolation)
}

/// Whether a function may have raised an error about a record: not the connection, a lock, a missing object or right, or the
/// server.
pub fn is_raised(error: &DbErr) -> bool {
    const NOT_ABOUT_A_RECORD: [&str; 10] = ["08", "25", "40", "42", "53", "57", "58", "F0", "XX", "HV"];
    match code_of(error) {
        Some(Code::Postgres(code)) => {
            code != "55P03" && !NOT_ABOUT_A_RECORD.iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

/// The database's message, without its detail, which quotes values.
pub fn refusal(error: &DbErr) -> String {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            match error.as_ref() {
                sqlx::Error::Database(error) => error.message().to_owned(),
                other => other.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// The application's view of an error that nothing more is tried about.
pub fn database_error(error: DbErr) -> DatabaseError {
    match error_class(&error) {
        // The pool knows no more than that it waited.
        ErrorClass::Transient if matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => {
            DatabaseError::Unavailable(
                "no connection within 10 s: the server does not answer, or has no free connection \
                 (max_connections, CONNECTION LIMIT of the role, pool_size of the pooler)"
                    .into(),
            )
        }
        ErrorClass::Transient if is_lock_timeout(&error) => DatabaseError::Unavailable(
            format!("another session held a lock for too long; look for a long transaction: {error}").into(),
        ),
        ErrorClass::Transient => DatabaseError::Unavailable(Box::new(error)),
        ErrorClass::Unusable => DatabaseError::Unusable(Box::new(error)),
        ErrorClass::InvalidRow | ErrorClass::UniqueViolation | ErrorClass::Permanent => {
            DatabaseError::Refused(Box::new(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_server_are_transient() {
        for code in ["53100", "53200", "53300", "58030", "08006", "57P01", "57P03", "25006", "25P03"] {
            assert_eq!(postgres(code), ErrorClass::Transient, "{code}");
        }
        for (code, error_class) in [
            ("22003", ErrorClass::InvalidRow),
            ("P0001", ErrorClass::InvalidRow),
            ("42501", ErrorClass::Unusable),
            ("0A000", ErrorClass::Permanent),
        ] {
            assert_eq!(postgres(code), error_class, "{code}");
        }
        // FULL, IOERR_WRITE, CANTOPEN, READONLY_DBMOVED.
        for code in [13, 778, 14, 1032, 17] {
            assert_eq!(sqlite(code), ErrorClass::Transient, "{code}");
        }
        // CORRUPT, NOTADB.
        for code in [11, 26] {
            assert_eq!(sqlite(code), ErrorClass::Unusable, "{code}");
        }
    }
}
