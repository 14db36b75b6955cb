//! The pause of all stores.

use chrono::DateTime;
use sea_orm::{ConnectionTrait, DbErr, Value};
use serde_json::json;

use super::{connect::Store, stamp::instant};
use crate::reconcile::ports::{Action, Actor, Audit, Standstill};

impl Store {
    /// False when it was so already.
    pub(super) async fn set_standstill_once(&self, still: bool, by: &Actor) -> Result<bool, DbErr> {
        let txn = self.begin_write().await?;
        let (sql, action) = if still {
            let now = self.dialect.now();
            let sql =
                format!("INSERT INTO standstill (id, since, actor) VALUES (1, {now}, $1) ON CONFLICT (id) DO NOTHING");
            (self.statement(&sql, [Value::from(by.to_string())]), Action::AllPause)
        } else {
            (self.statement("DELETE FROM standstill", []), Action::AllResume)
        };
        if txn.execute_raw(sql).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let audit = Audit { actor: by.clone(), action, merchant: None, run: None, detail: json!({}) };
        self.record(&txn, &audit).await?;
        txn.commit().await?;
        audit.tell();
        Ok(true)
    }

    /// Whether nothing is to be begun, and since when.
    pub(super) async fn find_standstill(&self, db: &impl ConnectionTrait) -> Result<Option<Standstill>, DbErr> {
        let row = db.query_one_raw(self.statement("SELECT since, actor FROM standstill", [])).await?;
        row.map(|row| {
            Ok(Standstill {
                since: instant(&row, "since").unwrap_or(DateTime::UNIX_EPOCH),
                by: row.try_get("", "actor")?,
            })
        })
        .transpose()
    }
}
