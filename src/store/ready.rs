//! Whether the database can be used now: read and written, with every right that runs need. Nothing is written to find out.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::{
    connect::Store,
    dialect::Dialect,
    error::{Trouble, trouble},
    publication::{UNPUBLISHED, published},
    setup_error::StoreError,
};
use crate::reconcile::ports::{NotReady, TargetError};

/// A probe gets its answer within this time.
const WITHIN: Duration = Duration::from_secs(3);

/// Whether the session only reads, and which rights the role lacks on the tables of the schema.
///
/// Ids come from identity columns, whose sequences need no right.
const ACCESS: &str = "SELECT current_setting('transaction_read_only') = 'on' AS read_only, \
    (SELECT string_agg(p || ' on ' || c.relname, ', ' ORDER BY c.relname, p) \
     FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p \
     WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p') \
     AND c.relname = ANY($1) AND NOT has_table_privilege(c.oid, p)) AS missing";

/// So much of a list of missing rights is shown.
const SHOWN: usize = 200;

impl Store {
    pub(super) async fn check_ready(&self) -> Result<(), NotReady> {
        let look = async {
            self.require_schema().await.map_err(|error| not_ready(&error))?;
            match self.dialect {
                Dialect::Postgres => self.check_access().await,
                Dialect::Sqlite => self.check_writable().await,
            }
        };
        tokio::time::timeout(WITHIN, look).await.unwrap_or(Err(NotReady::Unavailable("no answer within 3 s".into())))
    }

    async fn check_access(&self) -> Result<(), NotReady> {
        let tables: Vec<String> = published()
            .into_iter()
            .chain(UNPUBLISHED)
            .filter(|table| *table != "seaql_migrations")
            .map(str::to_owned)
            .collect();
        let row = self.db.query_one_raw(self.statement(ACCESS, [tables.into()])).await.map_err(of_database)?;
        let get = |row: &QueryResult| -> Result<(bool, Option<String>), DbErr> {
            Ok((row.try_get("", "read_only")?, row.try_get("", "missing")?))
        };
        match row.as_ref().map(get).transpose().map_err(of_database)? {
            Some((true, _)) => Err(NotReady::ReadOnly),
            Some((false, Some(missing))) => Err(NotReady::MissingRights(missing.chars().take(SHOWN).collect())),
            _ => Ok(()),
        }
    }

    /// A file that another process writes to at this moment can be used.
    async fn check_writable(&self) -> Result<(), NotReady> {
        match self.begin_write().await {
            Ok(txn) => txn.rollback().await.map_err(of_database),
            Err(error) if super::error::is_held(&error) => Ok(()),
            Err(error) => Err(of_database(error)),
        }
    }
}

fn not_ready(error: &StoreError) -> NotReady {
    match error {
        StoreError::Outdated(migrations) => NotReady::Outdated(*migrations),
        StoreError::Migration(error) if trouble(error) != Trouble::Passing => {
            NotReady::Refused(error.to_string().into())
        }
        error => NotReady::Unavailable(error.to_string().into()),
    }
}

fn of_database(error: DbErr) -> NotReady {
    match super::error::target_error(error) {
        TargetError::Unavailable(cause)
            if cause.to_string().contains("read-only") || cause.to_string().contains("readonly") =>
        {
            NotReady::ReadOnly
        }
        TargetError::Unavailable(cause) => NotReady::Unavailable(cause),
        TargetError::Unusable(cause) | TargetError::Refused(cause) => NotReady::Refused(cause),
        TargetError::LeaseLost(run) => NotReady::Refused(run.to_string().into()),
    }
}
