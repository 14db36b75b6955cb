//! The fence of a page's commit: a run's cursor moves only for who holds its lease, and once.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, Statement, Value};

use super::{commit::Attempt, connect::Store, error::json, records::Stored};
use crate::{
    domain::{Listing, Part, Totals},
    reconcile::ports::{Committed, Lease, PageCommit},
};

impl Store {
    /// Keeps the ids that were seen, as long as the run goes on.
    pub(super) async fn note_seen<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
    ) -> Result<(), DbErr> {
        for (pass, ids) in &page.batch.seen {
            let number = i64::from(*pass) << 32 | i64::from(page.cursor.commits);
            let ids: Vec<u8> = ids.iter().copied().flat_map(i64::to_le_bytes).collect();
            txn.execute_raw(Statement::from_sql_and_values(
                txn.get_database_backend(),
                "INSERT INTO run_pages (run_id, number, ids) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                [lease.run_id.into(), number.into(), ids.into()],
            ))
            .await?;
        }
        Ok(())
    }

    /// The fence: moves the run's cursor if the lease is still ours and the page was not committed
    /// before. Renews the lease, too.
    pub(super) async fn advance<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
        parts: &[Part],
    ) -> Result<Option<Committed>, DbErr> {
        let sql = format!(
            "UPDATE runs SET next_page = $1, window_since = $2, window_until = $3, fetched = $4, created = $5, \
             updated = $6, unchanged = $7, skipped = $8, failed = $9, requests = $10, listing = $11, resources = $12, setbacks = 0, lease_until = {} \
             WHERE id = $13 AND epoch = $14 AND status = 'running' AND next_page IS DISTINCT FROM $1 \
             RETURNING cancel_requested",
            self.dialect.now_plus(self.lease)
        );
        let [fetched, created, updated, unchanged, skipped, failed] = counts(Part::sum(parts));
        let window = Part::hull(parts);
        let row = txn
            .query_one_raw(Statement::from_sql_and_values(
                txn.get_database_backend(),
                sql,
                [
                    cursor_text(page)?.into(),
                    window.map(|window| window.since).into(),
                    window.map(|window| window.until).into(),
                    fetched,
                    created,
                    updated,
                    unchanged,
                    skipped,
                    failed,
                    count(page.requests),
                    Part::first_listing(parts).map(Listing::as_str).into(),
                    json(parts)?.into(),
                    lease.run_id.into(),
                    lease.epoch.into(),
                ],
            ))
            .await?;
        row.map(|row| Ok(Committed { totals: parts[page.at].totals, cancel: row.try_get("", "cancel_requested")? }))
            .transpose()
    }

    /// The fence held us back: either the lease is lost, or an earlier attempt, whose answer was lost,
    /// has committed this very page. What it counted is in the ledger.
    pub(super) async fn after_fence<R: Stored>(
        &self,
        txn: DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
    ) -> Result<Attempt, DbErr> {
        txn.rollback().await?;
        let run = super::entity::run::Entity::find_by_id(lease.run_id).one(&self.db).await?;
        let cursor = cursor_text(page)?;
        Ok(run
            .filter(|run| {
                run.epoch == lease.epoch && run.status == "running" && run.next_page.as_deref() == Some(cursor.as_str())
            })
            .and_then(|run| {
                let part = run.parts()?.into_iter().nth(page.at)?;
                let committed = Committed { totals: part.totals, cancel: run.cancel_requested };
                Some(Attempt::Done(committed, HashMap::new()))
            })
            .unwrap_or(Attempt::LeaseLost))
    }
}

/// A number, as a column.
pub(super) fn count(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

/// Totals, as the columns `fetched`, `created`, `updated`, `unchanged`, `skipped` and `failed`.
pub(super) fn counts(totals: Totals) -> [Value; 6] {
    [totals.fetched, totals.created, totals.updated, totals.unchanged, totals.skipped, totals.failed].map(count)
}

fn cursor_text<R: Stored>(page: &PageCommit<'_, R>) -> Result<String, DbErr> {
    json(page.cursor)
}
