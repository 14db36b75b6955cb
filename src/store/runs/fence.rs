//! The fence of a page's commit: a run's cursor moves only for who holds its lease, and once.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, Value};

use super::commit::Attempt;
use crate::{
    domain::{Listing, ResourceRun, Totals},
    reconcile::ports::{Committed, Lease, PageCommit},
    store::{
        Store,
        connection::{dialect::Dialect, error::json},
        records::stored::Stored,
    },
};

impl Store {
    /// The fence: moves the cursor if this process holds the lease and the page was not committed before. Stores the
    /// seen ids, and renews the lease.
    pub(in crate::store) async fn advance<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
        resource_runs: &[ResourceRun],
    ) -> Result<Option<Committed>, DbErr> {
        let moved = format!(
            "UPDATE runs SET cursor = $1, window_since = $2, window_until = $3, fetched = $4, created = $5, \
             updated = $6, unchanged = $7, skipped = $8, failed = $9, backfilled_created = $10, backfilled_updated = $11, \
             requests = $12, listing = $13, resource_results = $14, targets = $15, \
             failed_attempts = 0, waiting_reason = NULL, waiting_message = NULL, waiting_until = NULL, waiting_attempts = 0, \
             lease_expires_at = {} \
             WHERE id = $16 AND epoch = $17 AND status = 'running' AND cursor IS DISTINCT FROM $1 \
             RETURNING id, cancel_requested",
            self.dialect.now_plus(self.lease)
        );
        let window = ResourceRun::hull(resource_runs);
        let begin: [Value; 3] = [
            cursor_text(page)?.into(),
            window.map(|window| window.since).into(),
            window.map(|window| window.until).into(),
        ];
        let end: [Value; 6] = [
            count(page.requests),
            ResourceRun::first_listing(resource_runs).map(Listing::as_str).into(),
            json(resource_runs)?.into(),
            self.targets_text().into(),
            lease.run_id.into(),
            lease.epoch.into(),
        ];
        let values = begin.into_iter().chain(counts(ResourceRun::sum(resource_runs))).chain(end);
        let seen = seen(page);
        let row = match self.dialect {
            Dialect::Postgres => {
                let (numbers, ids): (Vec<i64>, Vec<Vec<u8>>) = seen.unzip();
                let sql = format!(
                    "WITH moved AS ({moved}), seen AS (INSERT INTO run_seen_ids (run_id, batch, ids) \
                       SELECT moved.id, s.batch, s.ids FROM moved, unnest($18::bigint[], $19::bytea[]) AS s(batch, ids) \
                       ON CONFLICT DO NOTHING) \
                     SELECT cancel_requested FROM moved"
                );
                let values = values.chain([numbers.into(), ids.into()]);
                txn.query_one_raw(self.statement(&sql, values)).await?
            }
            Dialect::Sqlite => {
                let sql = "INSERT INTO run_seen_ids (run_id, batch, ids) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
                for (number, ids) in seen {
                    let values: [Value; 3] = [lease.run_id.into(), number.into(), ids.into()];
                    txn.execute_raw(self.statement(sql, values)).await?;
                }
                txn.query_one_raw(self.statement(&moved, values)).await?
            }
        };
        row.map(|row| {
            Ok(Committed { totals: resource_runs[page.at].totals, cancel: row.try_get("", "cancel_requested")? })
        })
        .transpose()
    }

    /// The fence refused: the lease is lost, or an earlier attempt, whose answer was lost, has committed this page and
    /// its totals.
    pub(in crate::store) async fn after_fence<R: Stored>(
        &self,
        txn: DatabaseTransaction,
        lease: &Lease,
        page: &PageCommit<'_, R>,
    ) -> Result<Attempt, DbErr> {
        txn.rollback().await?;
        let run = crate::store::entity::run::Entity::find_by_id(lease.run_id).one(&self.db).await?;
        let cursor = cursor_text(page)?;
        Ok(run
            .filter(|run| {
                run.epoch == lease.epoch && run.status == "running" && run.cursor.as_deref() == Some(cursor.as_str())
            })
            .and_then(|run| {
                let resource_run = run.resource_runs()?.into_iter().nth(page.at)?;
                let committed = Committed { totals: resource_run.totals, cancel: run.cancel_requested };
                Some(Attempt::Done(committed, HashMap::new()))
            })
            .unwrap_or(Attempt::LeaseLost))
    }
}

/// The ids that were seen, under numbers that sort by pass and commit.
fn seen<R: Stored>(page: &PageCommit<'_, R>) -> impl Iterator<Item = (i64, Vec<u8>)> {
    let commits = i64::from(page.cursor.commits);
    page.batch.seen.iter().map(move |(pass, ids)| {
        (i64::from(*pass) << 32 | commits, ids.iter().copied().flat_map(i64::to_le_bytes).collect())
    })
}

/// A number, as a column.
pub(in crate::store) fn count(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

/// Totals, as the columns `fetched`, `created`, `updated`, `unchanged`, `skipped`, `failed`, `backfilled_created` and
/// `backfilled_updated`.
pub(in crate::store) fn counts(totals: Totals) -> [Value; 8] {
    [
        totals.fetched,
        totals.created,
        totals.updated,
        totals.unchanged,
        totals.skipped,
        totals.failed,
        totals.backfilled.created,
        totals.backfilled.updated,
    ]
    .map(count)
}

fn cursor_text<R: Stored>(page: &PageCommit<'_, R>) -> Result<String, DbErr> {
    json(page.cursor)
}
