//! Requests that carry an `Idempotency-Key`: which run the first of them made, for a day. The
//! transaction that makes the run reads and writes them. So of two requests at two processes, one
//! makes the run and the other finds it.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, Value};

use crate::{
    domain::RunId,
    reconcile::ports::{Actor, IdempotencyKey},
    store::Store,
};

/// A key is known for this long.
pub(in crate::store) const KEEP_KEYS: Duration = Duration::from_secs(86_400);

/// What a key stands for.
pub(in crate::store) enum Known {
    /// A request with the same body made this run.
    Same(RunId),
    /// It belongs to a request with another body.
    Other,
}

impl Store {
    pub(in crate::store) async fn known_key(
        &self,
        db: &impl ConnectionTrait,
        caller: &Actor,
        key: &IdempotencyKey,
    ) -> Result<Option<Known>, DbErr> {
        let sql = format!(
            "SELECT run_id, body FROM idempotency_keys WHERE caller = $1 AND key = $2 AND created_at > {}",
            self.dialect.now_minus(KEEP_KEYS)
        );
        let values: [Value; 2] = [caller.to_string().into(), key.key.as_str().into()];
        let row = db.query_one_raw(self.statement(&sql, values)).await?;
        row.map(|row| {
            let body: Vec<u8> = row.try_get("", "body")?;
            Ok(if body == key.body { Known::Same(row.try_get("", "run_id")?) } else { Known::Other })
        })
        .transpose()
    }

    /// Remembers what a key stands for; false when another request, by now committed, was faster.
    pub(in crate::store) async fn remember_key(
        &self,
        db: &impl ConnectionTrait,
        caller: &Actor,
        key: &IdempotencyKey,
        run: RunId,
    ) -> Result<bool, DbErr> {
        let sql = format!(
            "INSERT INTO idempotency_keys (caller, key, body, run_id) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (caller, key) DO UPDATE SET body = excluded.body, run_id = excluded.run_id, created_at = {} \
             WHERE idempotency_keys.created_at <= {}",
            self.dialect.now(),
            self.dialect.now_minus(KEEP_KEYS)
        );
        let values: [Value; 4] =
            [caller.to_string().into(), key.key.as_str().into(), key.body.to_vec().into(), run.into()];
        Ok(db.execute_raw(self.statement(&sql, values)).await?.rows_affected() > 0)
    }
}
