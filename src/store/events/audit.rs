//! The entries of the audit. Each one is written in the transaction of its action.

use sea_orm::{ConnectionTrait, DbErr, Value};

use crate::{
    reconcile::ports::{Audit, DatabaseError},
    store::{Store, connection::dialect::Dialect},
};

impl Store {
    /// Makes an entry, in the transaction `db`. [`Audit::tell`] follows when that is committed.
    pub(in crate::store) async fn insert_audit(&self, db: &impl ConnectionTrait, audit: &Audit) -> Result<(), DbErr> {
        let detail = match self.dialect {
            Dialect::Postgres => "CAST($5 AS jsonb)",
            Dialect::Sqlite => "$5",
        };
        let sql =
            format!("INSERT INTO audit (actor, action, merchant_id, run_id, detail) VALUES ($1, $2, $3, $4, {detail})");
        let values: [Value; 5] = [
            audit.actor.to_string().into(),
            audit.action.as_str().into(),
            audit.merchant.map(|merchant| merchant.0).into(),
            audit.run.into(),
            audit.detail.to_string().into(),
        ];
        db.execute_raw(self.statement(&sql, values)).await?;
        Ok(())
    }

    /// Makes an entry about what was done in many transactions.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn note(&self, audit: &Audit) -> Result<(), DatabaseError> {
        self.call(|| self.insert_audit(&self.db, audit)).await?;
        audit.tell();
        Ok(())
    }
}
