//! The pause of all merchants.

use chrono::DateTime;
use sea_orm::{ConnectionTrait, DbErr, Value};
use serde_json::json;

use crate::{
    reconcile::ports::{Action, Actor, Audit, GlobalPause},
    store::{Store, connection::stamp::instant},
};

impl Store {
    /// False when it was so already.
    pub(in crate::store) async fn set_global_pause_once(&self, still: bool, by: &Actor) -> Result<bool, DbErr> {
        let txn = self.begin_write().await?;
        let (sql, action) = if still {
            let now = self.dialect.now();
            let sql = format!(
                "INSERT INTO global_pause (id, paused_at, paused_by) VALUES (1, {now}, $1) ON CONFLICT (id) DO NOTHING"
            );
            (self.statement(&sql, [Value::from(by.to_string())]), Action::AllPause)
        } else {
            (self.statement("DELETE FROM global_pause", []), Action::AllResume)
        };
        if txn.execute_raw(sql).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let audit = Audit { actor: by.clone(), action, merchant: None, run: None, detail: json!({}) };
        self.insert_audit(&txn, &audit).await?;
        txn.commit().await?;
        audit.tell();
        Ok(true)
    }

    /// Whether a global pause is active, and since when.
    pub(in crate::store) async fn find_global_pause(
        &self,
        db: &impl ConnectionTrait,
    ) -> Result<Option<GlobalPause>, DbErr> {
        let row = db.query_one_raw(self.statement("SELECT paused_at, paused_by FROM global_pause", [])).await?;
        row.map(|row| {
            Ok(GlobalPause {
                since: instant(&row, "paused_at").unwrap_or(DateTime::UNIX_EPOCH),
                by: row.try_get("", "paused_by")?,
            })
        })
        .transpose()
    }
}
