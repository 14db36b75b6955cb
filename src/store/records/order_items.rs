//! The items of orders, replaced as a set in the transaction of their order.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, TransactionTrait,
    sea_query::{Expr, ExprTrait, LockType, Query},
};

use super::{discrepancies::Written, stored::Stored};
use crate::{
    domain::{MerchantId, OrderItem, Outcome},
    reconcile::ports::PageCommit,
    store::{
        Store,
        connection::{
            dialect::Dialect,
            error::{is_refusal, refusal},
            stamp::instant,
        },
    },
};

/// Their table.
pub const TABLE: &str = "order_items";

/// Far below the number of parameters that a statement may have.
const ROWS_A_STATEMENT: usize = 500;

impl Store {
    /// Replaces the stored items of each order whose stored version is the one that was read: another writer may have
    /// been faster. An order whose items the database refuses counts as failed.
    pub(in crate::store) async fn write_items<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        page: &PageCommit<'_, R>,
        one_by_one: bool,
        written: &mut HashMap<i64, Written>,
    ) -> Result<(), DbErr> {
        let batch = page.batch;
        if batch.items.is_empty() || page.dry_run {
            return Ok(());
        }
        let mut ids: Vec<i64> = batch.items.keys().copied().collect();
        ids.sort_unstable();
        let read = batch.records.iter().map(|one| (one.record.id(), one.record.updated_at()));
        let read: HashMap<i64, Option<DateTime<Utc>>> = read.collect();
        for ids in ids.chunks(ROWS_A_STATEMENT) {
            let mut select = Query::select();
            select
                .column(R::id_column())
                .expr_as(Expr::cust(self.dialect.finite("salla_updated_at")), "salla_updated_at")
                .from(R::table())
                .and_where(Expr::col("merchant_id").eq(merchant.0))
                .and_where(Expr::col(R::id_column()).is_in(ids.iter().copied()))
                .order_by(R::id_column(), sea_orm::Order::Asc);
            if self.dialect == Dialect::Postgres {
                select.lock(LockType::Update);
            }
            let mut standing = Vec::new();
            for row in txn.query_all(&select).await? {
                let id: i64 = row.try_get("", R::id_column())?;
                if read.get(&id) == Some(&instant(&row, "salla_updated_at")) {
                    standing.push(id);
                }
            }
            if !one_by_one {
                self.replace_items::<R>(txn, merchant, &standing, &batch.items).await?;
                continue;
            }
            for id in standing {
                let savepoint = txn.begin().await?;
                match self.replace_items::<R>(&savepoint, merchant, &[id], &batch.items).await {
                    Ok(()) => savepoint.commit().await?,
                    Err(error) if is_refusal(&error) => {
                        savepoint.rollback().await?;
                        written.insert(id, (Outcome::Failed, Some(format!("order item: {}", refusal(&error)))));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn replace_items<R: Stored>(
        &self,
        txn: &DatabaseTransaction,
        merchant: MerchantId,
        ids: &[i64],
        items: &HashMap<i64, Vec<OrderItem>>,
    ) -> Result<(), DbErr> {
        if ids.is_empty() {
            return Ok(());
        }
        let mark = Query::update()
            .table(R::table())
            .value("items_version", Expr::cust("salla_updated_at"))
            .value("revision", Expr::cust("revision + 1"))
            .and_where(Expr::col("merchant_id").eq(merchant.0))
            .and_where(Expr::col(R::id_column()).is_in(ids.iter().copied()))
            .to_owned();
        txn.execute(&mark).await?;
        let clear = Query::delete()
            .from_table(TABLE)
            .and_where(Expr::col("merchant_id").eq(merchant.0))
            .and_where(Expr::col(R::id_column()).is_in(ids.iter().copied()))
            .to_owned();
        txn.execute(&clear).await?;
        let all: Vec<(i64, usize, &OrderItem)> = ids
            .iter()
            .flat_map(|id| items.get(id).into_iter().flatten().enumerate().map(|(at, item)| (*id, at, item)))
            .collect();
        for some in all.chunks(ROWS_A_STATEMENT) {
            let mut insert = Query::insert();
            insert.into_table(TABLE).columns([
                "merchant_id",
                R::id_column(),
                "position",
                "salla_item_id",
                "product_id",
                "sku",
                "name",
                "quantity",
                "currency",
                "price_amount",
                "total_amount",
            ]);
            for (id, position, item) in some {
                let item = (*item).clone();
                let position = i64::try_from(*position).unwrap_or(i64::MAX);
                insert
                    .values([
                        Expr::val(merchant.0),
                        Expr::val(*id),
                        Expr::val(position),
                        Expr::val(item.id),
                        Expr::val(item.product_id),
                        Expr::val(item.sku),
                        Expr::val(item.name),
                        Expr::val(self.dialect.exact(item.quantity)),
                        Expr::val(item.currency),
                        Expr::val(self.dialect.exact(item.price_amount)),
                        Expr::val(self.dialect.exact(item.total_amount)),
                    ])
                    .map_err(|error| DbErr::Custom(error.to_string()))?;
            }
            txn.execute(&insert).await?;
        }
        Ok(())
    }
}
