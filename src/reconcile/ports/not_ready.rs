//! Why a database cannot be used.

use std::time::Duration;

use super::Cause;

/// Why nothing can be read or written now.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It cannot be reached, or does not answer in time.
    #[error("the database does not answer: {0}")]
    Unavailable(Cause),
    /// It can be read only.
    #[error("the database is read-only: it is a standby, or was set to read-only")]
    ReadOnly,
    /// A write failed so long ago, because the disk is full or broken.
    #[error("the disk of the database is full or broken: a write failed {} s ago", .0.as_secs())]
    DiskFailure(Duration),
    /// Another process has locked the file of SQLite for so long.
    #[error("another process has locked the database file for {} s; end its transaction", .0.as_secs())]
    Locked(Duration),
    /// The role may not do what runs do.
    #[error("the role lacks rights: {0}")]
    MissingRights(String),
    /// Tables, columns, triggers or unique indexes are missing or different, although their migrations were applied.
    #[error("the schema was altered: {0}; restore it as `migrate up --sql` prints it for an empty database")]
    Damaged(String),
    /// The schema is older than this program.
    #[error("the schema lacks {0} migration(s); run `salla-reconciler migrate up`")]
    Outdated(usize),
    /// It refuses the connection or the query.
    #[error("the database refuses: {0}")]
    Refused(Cause),
}

impl NotReady {
    /// The message that everyone may see. It contains no words of the database.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Unavailable(_) => "the database does not answer".to_owned(),
            Self::Refused(_) => "the database refuses the connection or the schema: check its name and the rights of the role with `check`".to_owned(),
            Self::ReadOnly | Self::DiskFailure(_) | Self::Locked(_) | Self::MissingRights(_) | Self::Damaged(_) | Self::Outdated(_) => self.to_string(),
        }
    }
}
