//! Whether the database can be used now: read and written, with every right that runs need. Nothing is written to find out.

use std::{path::Path, time::Duration};

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::{
    reconcile::ports::{DatabaseError, NotReady},
    store::{
        Store,
        connection::{
            dialect::Dialect,
            error::{ErrorClass, database_error, error_class, is_held},
            setup_error::StoreError,
        },
    },
};

/// A probe gets its answer within this time.
const WITHIN: Duration = Duration::from_secs(3);

/// A process that holds the lock of SQLite for longer keeps others from working.
const LONGEST_LOCK: Duration = Duration::from_secs(30);

/// Whether the session only reads, and which rights the role lacks on the tables of the schema.
///
/// Ids come from identity columns, whose sequences need no right.
const ACCESS: &str = "SELECT current_setting('transaction_read_only') = 'on' AS read_only, \
    (SELECT string_agg(p || ' on ' || c.relname, ', ' ORDER BY c.relname, p) \
     FROM pg_class c JOIN unnest($1::text[], $2::text[]) AS n(name, p) ON c.relname = n.name \
     WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p') \
     AND NOT has_table_privilege(c.oid, p)) AS missing, \
    (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c \
     WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relname = ANY($1) \
     AND row_security_active(c.oid)) AS filtered";

/// So much of a list of missing rights is shown.
const SHOWN: usize = 200;

impl Store {
    pub(in crate::store) async fn ready(&self) -> Result<(), NotReady> {
        let look = async {
            if let Some(ago) = self.disk_failure.recent() {
                return Err(NotReady::DiskFailure(ago));
            }
            self.require_schema().await.map_err(|error| not_ready(&error))?;
            self.check_schema().await?;
            match self.dialect {
                Dialect::Postgres => {
                    self.check_access().await?;
                    match self.lacking_platform_rights(self.platform.values()).await.map_err(of_database)? {
                        Some(lacking) => Err(NotReady::MissingRights(shown(&lacking))),
                        None => Ok(()),
                    }
                }
                Dialect::Sqlite => self.check_writable().await,
            }
        };
        match tokio::time::timeout(WITHIN, look).await {
            Ok(ready) => ready,
            // Other calls keep the only connection of SQLite while they wait for another process.
            Err(_) => match self.lock_wait.lasted() {
                Some(lasted) => ready_beside_lock(lasted),
                None => Err(NotReady::Unavailable("no answer within 3 s".into())),
            },
        }
    }

    async fn check_schema(&self) -> Result<(), NotReady> {
        let damage = self.damage().await.map_err(of_database)?;
        if damage.is_empty() { Ok(()) } else { Err(NotReady::Damaged(shown(&damage.join(", ")))) }
    }

    async fn check_access(&self) -> Result<(), NotReady> {
        let needed = migration::tables();
        let needed = needed.iter().flat_map(|table| table.rights().iter().map(|right| (table.name(), *right)));
        let (tables, rights): (Vec<String>, Vec<String>) =
            needed.map(|(table, right)| (table.to_owned(), right.to_owned())).unzip();
        let values: [Value; 2] = [tables.into(), rights.into()];
        let row = self.db.query_one_raw(self.statement(ACCESS, values)).await.map_err(of_database)?;
        type Access = (bool, Option<String>, Option<String>);
        let get = |row: &QueryResult| -> Result<Access, DbErr> {
            Ok((row.try_get("", "read_only")?, row.try_get("", "missing")?, row.try_get("", "filtered")?))
        };
        match row.as_ref().map(get).transpose().map_err(of_database)? {
            Some((true, ..)) => Err(NotReady::ReadOnly),
            Some((false, Some(missing), _)) => Err(NotReady::MissingRights(shown(&missing))),
            Some((false, None, Some(tables))) => {
                Err(NotReady::MissingRights(shown(&format!("row-level security hides rows of {tables}"))))
            }
            _ => Ok(()),
        }
    }

    /// The file can be used, also while another process writes to it for some time.
    async fn check_writable(&self) -> Result<(), NotReady> {
        let file = "SELECT file FROM pragma_database_list WHERE name = 'main'";
        let row = self.db.query_one_raw(self.statement(file, [])).await.map_err(of_database)?;
        let file = row.and_then(|row| row.try_get::<String>("", "file").ok()).filter(|file| !file.is_empty());
        if file.is_some_and(|file| !Path::new(&file).exists()) {
            return Err(NotReady::Unavailable("the database file was moved or removed".into()));
        }
        match self.begin_write_now().await {
            Ok(txn) => {
                self.lock_wait.end();
                txn.rollback().await.map_err(of_database)
            }
            Err(error) if is_held(&error) => {
                self.lock_wait.note();
                ready_beside_lock(self.lock_wait.lasted().unwrap_or_default())
            }
            Err(error) => Err(of_database(error)),
        }
    }
}

/// Another process has held the lock of SQLite for so long.
fn ready_beside_lock(lasted: Duration) -> Result<(), NotReady> {
    if lasted < LONGEST_LOCK { Ok(()) } else { Err(NotReady::Locked(lasted)) }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn not_ready(error: &StoreError) -> NotReady {
    match error {
        StoreError::Outdated(migrations) => NotReady::Outdated(*migrations),
        StoreError::SchemaDenied(schema) => NotReady::MissingRights(format!("USAGE on the schema {schema}")),
        StoreError::Migration(error) if error_class(error) != ErrorClass::Transient => {
            NotReady::Refused(error.to_string().into())
        }
        error => NotReady::Unavailable(error.to_string().into()),
    }
}

fn of_database(error: DbErr) -> NotReady {
    match database_error(error) {
        DatabaseError::Unavailable(cause)
            if cause.to_string().contains("read-only") || cause.to_string().contains("readonly") =>
        {
            NotReady::ReadOnly
        }
        DatabaseError::Unavailable(cause) => NotReady::Unavailable(cause),
        DatabaseError::Unusable(cause) | DatabaseError::Refused(cause) => NotReady::Refused(cause),
        DatabaseError::LeaseLost(run) => NotReady::Refused(run.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lock_of_another_process_is_not_a_failure() {
        assert!(ready_beside_lock(Duration::from_secs(29)).is_ok());
        let locked = ready_beside_lock(Duration::from_secs(31)).unwrap_err();
        assert_eq!(
            locked.public_message(),
            "another process has locked the database file for 31 s; end its transaction"
        );
    }
}
