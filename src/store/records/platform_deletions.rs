//! Marks records of a table of the platform as deleted.

use std::time::Duration;

use chrono::{DateTime, Utc};
use migration::quoted;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, QueryResult, Statement, Value,
    sea_query::{Expr, ExprTrait, extension::postgres::PgFunc},
};

use super::{
    platform::{OMITTED, PlatformTable, same_version},
    stored::Stored,
    write::marked_before,
};
use crate::{
    domain::{MerchantId, Outcome, Unreadable},
    reconcile::ports::StoredVersion,
    store::connection::dialect::Dialect,
};

/// The results for records that Salla has deleted.
#[derive(Debug, Default)]
pub struct DeletionResult {
    pub marked: Vec<StoredVersion>,
    /// The database refuses to mark them.
    pub refused: Vec<Unreadable>,
}

impl PlatformTable {
    /// Marks the records as deleted if the platform still has the given version. Returns the marked records, and those that the
    /// function did not mark.
    pub async fn mark_deleted<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        dialect: Dialect,
        merchant: MerchantId,
        gone: &[StoredVersion],
        dry_run: bool,
    ) -> Result<DeletionResult, DbErr> {
        if gone.is_empty() {
            return Ok(DeletionResult::default());
        }
        let id = R::id_column();
        let stored = self.unmarked_versions::<R>(txn, dialect, merchant, gone).await?;
        let still: Vec<StoredVersion> = gone.iter().filter(|one| stored.contains(one)).copied().collect();
        if dry_run || still.is_empty() {
            return Ok(DeletionResult { marked: still, refused: Vec::new() });
        }
        let ids: Vec<i64> = still.iter().map(|(id, _)| *id).collect();
        let version = |(_, version): &StoredVersion| version.map_or_else(String::new, |version| version.to_rfc3339());
        let versions: Vec<String> = still.iter().map(version).collect();
        let values = || -> [Value; 3] { [merchant.0.into(), ids.clone().into(), versions.clone().into()] };
        // The mark of a view without `deleted_at`.
        let own = format!(
            "INSERT INTO {table} AS own (merchant_id, {id}, salla_updated_at, deleted_at) \
             SELECT DISTINCT ON (v.{id}) v.merchant_id, v.{id}, v.salla_updated_at, now() FROM {view} AS v \
             {still} ON CONFLICT (merchant_id, {id}) DO UPDATE SET deleted_at = now(), revision = own.revision + 1, updated_at = now()",
            table = quoted(R::table()),
            view = self.view.sql(),
            still = still_of_version(id, dialect),
        );
        txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), own, values())).await?;
        let written = self.call::<R>(txn, &self.gone::<R>(dialect), values()).await?;
        let unmarked = self.unmarked_versions::<R>(txn, dialect, merchant, &still).await?;
        // Without a mark in the view, the one in our own table counts.
        let is_marked = |one: &StoredVersion| match written.get(&one.0) {
            None | Some((Outcome::Failed, _)) => false,
            Some(_) => !unmarked.contains(one),
        };
        let (marked, refused): (Vec<_>, Vec<_>) = still.into_iter().partition(is_marked);
        let refused = refused.into_iter().map(|(id, _)| {
            let reason = match written.get(&id) {
                Some((outcome, _)) => format!("the function of the platform answered {}", outcome.as_str()),
                None => OMITTED.to_owned(),
            };
            let reason = format!("the deletion was not written: {reason}");
            Unreadable { id: Some(id), ..Unreadable::failed(reason) }
        });
        Ok(DeletionResult { marked, refused: refused.collect() })
    }

    /// The records that the platform marked as deleted after Salla was asked, `ago`. Such a mark is newer than the answer.
    pub async fn marked_since<R: Stored>(
        &self,
        db: &impl ConnectionTrait,
        merchant: MerchantId,
        ids: &[i64],
        ago: Duration,
    ) -> Result<Vec<i64>, DbErr> {
        if !self.has("deleted_at") {
            return Ok(Vec::new());
        }
        let id = R::id_column();
        let (asked_at, ago) = Dialect::Postgres.now_minus_parameter(ago);
        let was_gone = marked_before(Dialect::Postgres, "v.deleted_at", asked_at);
        let select = self
            .select_view()
            .column(("v", id))
            .and_where(Expr::col(("v", "merchant_id")).eq(merchant.0))
            .and_where(Expr::col(("v", id)).eq(PgFunc::any(ids.to_vec())))
            .and_where(Expr::cust_with_values(format!("v.deleted_at IS NOT NULL AND NOT ({was_gone})"), [ago]))
            .to_owned();
        db.query_all(&select).await?.iter().map(|row| row.try_get("", id)).collect()
    }

    /// Records that are gone as the platform holds them, with the mark. Columns that the view lacks come from our own row.
    fn gone<R: Stored>(&self, dialect: Dialect) -> String {
        let id = R::id_column();
        let value = |column: &str| if self.has(column) { format!("v.{column}") } else { format!("own.{column}") };
        let own = R::COLUMNS.iter().map(IdenStatic::as_str).chain(["payload"]);
        let pairs: Vec<String> = own.map(|column| format!("'{column}', {}", value(column))).collect();
        format!(
            "SELECT jsonb_build_object('merchant_id', v.merchant_id, '{id}', v.{id}, 'salla_updated_at', v.salla_updated_at, \
             'deleted_at', now(), {}) AS record FROM {} AS v \
             LEFT JOIN {} AS own ON own.merchant_id = v.merchant_id AND own.{id} = v.{id} {}",
            pairs.join(", "),
            self.view.sql(),
            quoted(R::table()),
            still_of_version(id, dialect),
        )
    }

    /// The versions of the records that the platform holds and has not marked.
    async fn unmarked_versions<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        dialect: Dialect,
        merchant: MerchantId,
        of: &[StoredVersion],
    ) -> Result<Vec<StoredVersion>, DbErr> {
        let id = R::id_column();
        let sql = format!(
            "SELECT o.{id} AS id, {version} AS version FROM {source} AS o \
             WHERE o.merchant_id = $1 AND o.{id} = ANY($2) AND o.deleted_at IS NULL",
            version = dialect.finite("o.salla_updated_at"),
            source = self.source::<R>(),
        );
        let ids: Vec<i64> = of.iter().map(|(id, _)| *id).collect();
        let values: [Value; 2] = [merchant.0.into(), ids.into()];
        let rows = txn.query_all_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
        let version = |row: &QueryResult| -> Result<StoredVersion, DbErr> {
            let changed: Option<DateTime<Utc>> = row.try_get("", "version")?;
            Ok((row.try_get("", "id")?, changed))
        };
        rows.iter().map(version).collect()
    }
}

/// The condition that the view `v` still shows the records `$2` in the versions `$3`. The platform may have written a newer
/// version after the program looked.
fn still_of_version(id: &str, dialect: Dialect) -> String {
    format!(
        "JOIN unnest($2::bigint[], $3::text[]) AS looked_up(id, version) ON looked_up.id = v.{id} AND {} \
         WHERE v.merchant_id = $1",
        same_version("CAST(NULLIF(looked_up.version, '') AS timestamptz)", &dialect.finite("v.salla_updated_at"))
    )
}
