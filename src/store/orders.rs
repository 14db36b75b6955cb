//! Where an order is read and written: one query a page, one conditional statement a page.

use std::collections::HashMap;

use rust_decimal::Decimal;
use sea_orm::{
    ConnectionTrait, DbErr, EntityName, QueryResult,
    sea_query::{Condition, Expr, ExprTrait, InsertStatement, LockType, OnConflict, Query, SelectStatement},
};

use super::{
    dialect::Dialect,
    entity::order::{Column, Entity},
};
use crate::{
    domain::{Fingerprint, Held, MerchantId, Order, OrderColumns, Outcome},
    reconcile::ports::HeldVersion,
};

/// Far below the number of parameters that a statement may have (32,766 in SQLite, the smaller).
const ROWS_A_STATEMENT: usize = 500;

/// What is held under `ids`. The payload comes along only where no fingerprint stands for it.
pub async fn held(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    ids: &[i64],
) -> Result<HashMap<i64, Held<Order>>, DbErr> {
    let mut held = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(ROWS_A_STATEMENT) {
        for row in db.query_all(&select_held(dialect, merchant, ids)).await? {
            held.insert(row.try_get("", "salla_order_id")?, read(&row, dialect)?);
        }
    }
    Ok(held)
}

fn select_held(dialect: Dialect, merchant: MerchantId, ids: &[i64]) -> SelectStatement {
    Query::select()
        .columns([Column::SallaOrderId, Column::ReferenceId, Column::Status, Column::Currency, Column::Fingerprint])
        .expr_as(Expr::cust(dialect.finite("salla_created_at")), "salla_created_at")
        .expr_as(Expr::cust(dialect.finite("salla_updated_at")), "salla_updated_at")
        .expr_as(Expr::col(Column::TotalAmount).cast_as("text"), "total")
        .expr_as(Expr::col(Column::DeletedAt).is_not_null(), "deleted")
        .expr_as(
            Expr::cust(format!(
                "CASE WHEN fingerprint LIKE '{}%' THEN NULL ELSE CAST(payload AS text) END",
                Fingerprint::prefix()
            )),
            "unhashed_payload",
        )
        .from(Entity.table_ref())
        .and_where(Expr::col(Column::MerchantId).eq(merchant.0))
        .and_where(Expr::col(Column::SallaOrderId).is_in(ids.iter().copied()))
        .to_owned()
}

fn read(row: &QueryResult, dialect: Dialect) -> Result<Held<Order>, DbErr> {
    let instant = |column| match row.try_get("", column) {
        // Another program may have written anything into SQLite's text.
        Err(_) if dialect == Dialect::Sqlite => Ok(None),
        read => read,
    };
    let stored: Option<String> = row.try_get("", "fingerprint")?;
    let payload: Option<String> = row.try_get("", "unhashed_payload")?;
    let total: Option<String> = row.try_get("", "total")?;
    Ok(Held {
        updated_at: instant("salla_updated_at")?,
        fingerprint: stored.and_then(|text| text.parse().ok()).or_else(|| Fingerprint::of_json(&payload?).ok()),
        deleted: row.try_get("", "deleted")?,
        columns: OrderColumns {
            reference_id: row.try_get("", "reference_id")?,
            status: row.try_get("", "status")?,
            currency: row.try_get("", "currency")?,
            total_amount: total.and_then(|text| text.parse::<Decimal>().ok()),
            salla_created_at: instant("salla_created_at")?,
        },
    })
}

/// Writes `orders`, each unless a newer one stands there by now, and returns what became of those that
/// were written. The rest were unchanged.
pub async fn upsert(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    orders: &[&Order],
) -> Result<HashMap<i64, Outcome>, DbErr> {
    let mut written = HashMap::with_capacity(orders.len());
    for orders in orders.chunks(ROWS_A_STATEMENT) {
        for row in db.query_all(&upsert_statement(dialect, merchant, orders)?).await? {
            let revision: i64 = row.try_get("", "revision")?;
            let outcome = if revision == 0 { Outcome::Created } else { Outcome::Updated };
            written.insert(row.try_get("", "salla_order_id")?, outcome);
        }
    }
    Ok(written)
}

/// Takes the mark from those of `ids` that are marked as gone, and returns which were. Their content stays.
pub async fn restore(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    ids: &[i64],
) -> Result<Vec<i64>, DbErr> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let restore = Query::update()
        .table(Entity.table_ref())
        .value(Column::DeletedAt, Expr::cust("NULL"))
        .value(Column::Revision, Expr::cust("revision + 1"))
        .value(Column::UpdatedAt, Expr::cust(dialect.now()))
        .and_where(Expr::col(Column::MerchantId).eq(merchant.0))
        .and_where(Expr::col(Column::SallaOrderId).is_in(ids.iter().copied()))
        .and_where(Expr::col(Column::DeletedAt).is_not_null())
        .returning_col(Column::SallaOrderId)
        .to_owned();
    db.query_all(&restore).await?.iter().map(|row| row.try_get("", "salla_order_id")).collect()
}

/// Marks those of `gone` as gone that are still held in the version beside them, and returns which were. Another writer
/// may have brought one back since Salla was asked. Never removes.
pub async fn mark_gone(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    gone: &[HeldVersion],
    dry_run: bool,
) -> Result<Vec<HeldVersion>, DbErr> {
    let mut marked = Vec::new();
    for gone in gone.chunks(ROWS_A_STATEMENT) {
        let these = |ids: Vec<i64>| {
            Condition::all()
                .add(Expr::col(Column::MerchantId).eq(merchant.0))
                .add(Expr::col(Column::SallaOrderId).is_in(ids))
                .add(Expr::col(Column::DeletedAt).is_null())
        };
        let mut select = Query::select();
        select
            .column(Column::SallaOrderId)
            .expr_as(Expr::cust(dialect.finite("salla_updated_at")), "salla_updated_at")
            .from(Entity.table_ref())
            .cond_where(these(gone.iter().map(|(id, _)| *id).collect()));
        if dialect == Dialect::Postgres {
            select.lock(LockType::Update);
        }
        let mut still = Vec::new();
        for row in db.query_all(&select).await? {
            let held = (row.try_get("", "salla_order_id")?, row.try_get("", "salla_updated_at").unwrap_or(None));
            if gone.contains(&held) {
                still.push(held);
            }
        }
        if !dry_run && !still.is_empty() {
            let mark = Query::update()
                .table(Entity.table_ref())
                .value(Column::DeletedAt, Expr::cust(dialect.now()))
                .value(Column::Revision, Expr::cust("revision + 1"))
                .value(Column::UpdatedAt, Expr::cust(dialect.now()))
                .cond_where(these(still.iter().map(|(id, _)| *id).collect()))
                .to_owned();
            db.execute(&mark).await?;
        }
        marked.extend(still);
    }
    Ok(marked)
}

/// `orders` sorted by id, so that two writers of the same rows wait for each other instead of
/// deadlocking.
fn upsert_statement(dialect: Dialect, merchant: MerchantId, orders: &[&Order]) -> Result<InsertStatement, DbErr> {
    let mut statement = Query::insert();
    statement.into_table(Entity.table_ref()).columns([
        Column::MerchantId,
        Column::SallaOrderId,
        Column::ReferenceId,
        Column::Status,
        Column::Currency,
        Column::TotalAmount,
        Column::SallaCreatedAt,
        Column::SallaUpdatedAt,
        Column::Payload,
        Column::Fingerprint,
    ]);
    let mut orders = orders.to_vec();
    orders.sort_unstable_by_key(|order| order.id);
    for order in orders {
        let columns = &order.columns;
        statement
            .values([
                Expr::val(merchant.0),
                Expr::val(order.id),
                Expr::val(columns.reference_id),
                Expr::val(columns.status.clone()),
                Expr::val(columns.currency.clone()),
                Expr::val(dialect.exact(columns.total_amount)),
                Expr::val(columns.salla_created_at),
                Expr::val(order.updated_at),
                dialect.json(order.payload.clone()),
                Expr::val(order.fingerprint.to_string()),
            ])
            .map_err(|error| DbErr::Custom(error.to_string()))?;
    }
    statement
        .on_conflict(newer_wins(dialect))
        .returning(Query::returning().columns([Column::SallaOrderId, Column::Revision]));
    Ok(statement)
}

/// Newer wins; at equal age, other content does. Our `revision` tells a new row from a changed one, and
/// tells the fingerprint's trigger that the fingerprint is maintained.
fn newer_wins(dialect: Dialect) -> OnConflict {
    let ours = dialect.comparable("orders.salla_updated_at");
    let theirs = dialect.comparable("excluded.salla_updated_at");
    OnConflict::columns([Column::MerchantId, Column::SallaOrderId])
        .update_columns([
            Column::ReferenceId,
            Column::Status,
            Column::Currency,
            Column::TotalAmount,
            Column::SallaCreatedAt,
            Column::SallaUpdatedAt,
            Column::Payload,
            Column::Fingerprint,
        ])
        .value(Column::DeletedAt, Expr::cust("NULL"))
        .value(Column::Revision, Expr::cust("orders.revision + 1"))
        .value(Column::UpdatedAt, Expr::cust(dialect.now()))
        .action_and_where(Expr::cust(format!(
            "({ours}) IS NULL OR ({ours}) < ({theirs}) OR (({ours}) = ({theirs}) AND \
             (orders.fingerprint IS DISTINCT FROM excluded.fingerprint OR orders.deleted_at IS NOT NULL))"
        )))
        .to_owned()
}
