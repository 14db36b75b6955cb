//! Erased customers, and the removal of personal fields from stored records.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic,
    sea_query::{Condition, Expr, ExprTrait, LockType, Query},
};
use serde_json::{Value, json};

use crate::{
    domain::MerchantId,
    reconcile::ports::{Action, Actor, Audit, DatabaseError},
    store::{Store, connection::dialect::Dialect, records::stored::Stored},
};

/// So many rows are looked at in a transaction.
const BATCH: u64 = 500;

/// Which rows are rewritten.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All.
    All,
    /// The record of this id.
    Record(i64),
    /// Those in whose payload this id stands, at a path of names with dots between them.
    Naming(&'a str, i64),
}

impl Store {
    /// From here on, the program keeps nothing of a customer. A run of the merchant may already
    /// have read forbidden data. So it loses its lease, and the next claim knows the erased
    /// customer. Returns false if the customer was already erased.
    ///
    /// # Errors
    /// When the database is away, or refuses.
    pub async fn forbid(&self, merchant: MerchantId, customer: i64, by: &Actor) -> Result<bool, DatabaseError> {
        self.call(|| self.forbid_once(merchant, customer, by)).await
    }

    async fn forbid_once(&self, merchant: MerchantId, customer: i64, by: &Actor) -> Result<bool, DbErr> {
        let txn = self.begin_write().await?;
        let fence = format!(
            "UPDATE runs SET epoch = epoch + 1, lease_expires_at = {} WHERE merchant_id = $1 AND status = 'running'",
            self.dialect.now()
        );
        txn.execute_raw(self.statement(&fence, [merchant.0.into()])).await?;
        let note = "INSERT INTO erased_customers (merchant_id, customer_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let noted = txn.execute_raw(self.statement(note, [merchant.0.into(), customer.into()])).await?;
        let audit = Audit::of_merchant(by, Action::CustomerErase, merchant, json!({"customer_id": customer}));
        self.insert_audit(&txn, &audit).await?;
        txn.commit().await?;
        audit.tell();
        Ok(noted.rows_affected() > 0)
    }

    /// The erased customers of a merchant.
    pub(in crate::store) async fn erased(
        &self,
        db: &impl ConnectionTrait,
        merchant: MerchantId,
    ) -> Result<Vec<i64>, DbErr> {
        let sql = "SELECT customer_id FROM erased_customers WHERE merchant_id = $1";
        let rows = db.query_all_raw(self.statement(sql, [merchant.0.into()])).await?;
        rows.iter().map(|row| row.try_get("", "customer_id")).collect()
    }

    /// The same.
    ///
    /// # Errors
    /// When the database is away, or refuses.
    pub async fn erased_customers(&self, merchant: MerchantId) -> Result<Vec<i64>, DatabaseError> {
        self.call(|| self.erased(&self.db, merchant)).await
    }

    /// The merchants with stored records of a kind, registered or not.
    ///
    /// # Errors
    /// When the database is away, or refuses.
    pub async fn holders<R: Stored>(&self) -> Result<Vec<MerchantId>, DatabaseError> {
        let select = Query::select().distinct().column("merchant_id").from(R::table()).to_owned();
        self.call(|| async {
            let rows = self.db.query_all(&select).await?;
            rows.iter().map(|row| row.try_get("", "merchant_id").map(MerchantId)).collect()
        })
        .await
    }

    /// Replaces each payload by the result of `less`, if it differs, and returns the number of rewritten rows. Without
    /// a result or a payload, all personal columns are cleared.
    ///
    /// # Errors
    /// When the database does not answer, or refuses. Rewritten rows stay rewritten.
    pub async fn rewrite<R: Stored>(
        &self,
        merchant: MerchantId,
        which: Which<'_>,
        less: &(dyn Fn(&str) -> Option<R> + Sync),
    ) -> Result<u64, DatabaseError> {
        let (mut after, mut rewritten) = (None, 0);
        loop {
            let done = self.call(|| self.rewrite_some(merchant, which, after, less)).await?;
            rewritten += done.1;
            match done.0 {
                Some(last) => after = Some(last),
                None => return Ok(rewritten),
            }
        }
    }

    /// The last id that was looked at, and how many rows were rewritten.
    async fn rewrite_some<R: Stored>(
        &self,
        merchant: MerchantId,
        which: Which<'_>,
        after: Option<i64>,
        less: &(dyn Fn(&str) -> Option<R> + Sync),
    ) -> Result<(Option<i64>, u64), DbErr> {
        let txn = self.begin_write().await?;
        let mut select = Query::select();
        select
            .column(R::id_column())
            .expr_as(Expr::col("payload").cast_as("text"), "payload")
            .expr_as(Expr::cust(any_is_set(R::PERSONAL.iter().map(IdenStatic::as_str))), "told")
            .from(R::table())
            .cond_where(self.these::<R>(merchant, which))
            .order_by(R::id_column(), sea_orm::Order::Asc)
            .limit(BATCH);
        if let Some(after) = after {
            select.and_where(Expr::col(R::id_column()).gt(after));
        }
        if self.dialect == Dialect::Postgres {
            select.lock(LockType::Update);
        }
        let (mut last, mut rewritten) = (None, 0);
        for row in txn.query_all(&select).await? {
            let id: i64 = row.try_get("", R::id_column())?;
            let payload: Option<String> = row.try_get("", "payload")?;
            let record = payload.as_deref().and_then(less);
            last = Some(id);
            // Beside a payload that is missing there may be columns all the same.
            let told = payload.is_none() && row.try_get("", "told")?;
            if told || !same(payload.as_deref(), record.as_ref().map(R::payload)) {
                self.overwrite(&txn, merchant, id, record.as_ref()).await?;
                rewritten += 1;
            }
        }
        txn.commit().await?;
        Ok((last, rewritten))
    }

    fn these<R: Stored>(&self, merchant: MerchantId, which: Which<'_>) -> Condition {
        let whose = Condition::all().add(Expr::col("merchant_id").eq(merchant.0));
        match which {
            Which::All => whose,
            Which::Record(id) => whose.add(Expr::col(R::id_column()).eq(id)),
            Which::Naming(path, id) => whose.add(Expr::cust(self.dialect.text_at("payload", path)).eq(id.to_string())),
        }
    }

    async fn overwrite<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        id: i64,
        record: Option<&R>,
    ) -> Result<(), DbErr> {
        let mut update = Query::update();
        let personal = |name: &str| R::PERSONAL.iter().any(|column| column.as_str() == name);
        let own = R::COLUMNS.iter().map(IdenStatic::as_str);
        match record {
            Some(record) => {
                for (column, value) in own.zip(record.values(self.dialect)).filter(|(column, _)| personal(column)) {
                    update.value(column, value);
                }
                update
                    .value("payload", self.dialect.json(record.payload().to_owned()))
                    .value("content_hash", record.content_hash().to_string());
            }
            None => {
                for column in own.filter(|column| personal(column)).chain(["payload", "content_hash"]) {
                    update.value(column, Expr::cust("NULL"));
                }
            }
        }
        update
            .table(R::table())
            .value("revision", Expr::cust("revision + 1"))
            .value("updated_at", Expr::cust(self.dialect.now()))
            .cond_where(self.these::<R>(merchant, Which::Record(id)));
        txn.execute(&update).await?;
        Ok(())
    }
}

/// Whether one of these columns holds anything.
fn any_is_set<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    let set: Vec<String> = columns.map(|column| format!("{column} IS NOT NULL")).collect();
    if set.is_empty() { "1 = 0".to_owned() } else { set.join(" OR ") }
}

/// Whether two payloads are equal, ignoring their spelling.
fn same(ours: Option<&str>, theirs: Option<&str>) -> bool {
    let value = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    ours == theirs || value(ours).is_some_and(|ours| Some(ours) == value(theirs))
}
