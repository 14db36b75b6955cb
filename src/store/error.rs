//! What a database error means: try again, set the row aside, or give up.

use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::reconcile::ports::TargetError;

/// Every call ends after this long; PostgreSQL's own limits are shorter.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection, the server's state, or another transaction: the same call may succeed.
    Passing,
    /// The values of a row.
    Row,
    /// A unique index: someone else was faster.
    Taken,
    /// Anything else.
    Lasting,
}

/// Tells errors apart by SQLSTATE (PostgreSQL, appendix A) or SQLite's result code.
pub fn trouble(error: &DbErr) -> Trouble {
    let sqlx_error = match error {
        DbErr::ConnectionAcquire(_) => return Trouble::Passing,
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => error,
        _ => return Trouble::Lasting,
    };
    match sqlx_error.as_ref() {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.is_unique_violation() {
                Trouble::Taken
            } else if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                postgres(&code)
            } else {
                sqlite(code.parse().unwrap_or(0))
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => Trouble::Passing,
        // A value that the driver itself refuses to send.
        sqlx::Error::Encode(_) => Trouble::Row,
        _ => Trouble::Lasting,
    }
}

fn postgres(code: &str) -> Trouble {
    match code {
        // Serialization, deadlock, lock not available, statement cancelled by a timeout, starting or
        // shutting down, too many connections, and every connection exception.
        "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "53300" => Trouble::Passing,
        _ if code.starts_with("08") => Trouble::Passing,
        // Data exceptions, constraints, program limits, and what a trigger raises.
        _ if ["22", "23", "44", "54", "P0"].contains(&code.get(..2).unwrap_or("")) => Trouble::Row,
        _ => Trouble::Lasting,
    }
}

fn sqlite(code: i32) -> Trouble {
    match code & 0xff {
        5 | 6 => Trouble::Passing,
        // TOOBIG, CONSTRAINT, MISMATCH.
        18..=20 => Trouble::Row,
        _ => Trouble::Lasting,
    }
}

/// The application's view of an error that nothing more is tried about.
pub fn target_error(error: DbErr) -> TargetError {
    match trouble(&error) {
        Trouble::Passing => TargetError::Unavailable(Box::new(error)),
        Trouble::Row | Trouble::Taken | Trouble::Lasting => TargetError::Refused(Box::new(error)),
    }
}
