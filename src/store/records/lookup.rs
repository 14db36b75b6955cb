//! Looks up stored records of any kind, with one query per page.

use std::collections::HashMap;

use sea_orm::{
    ConnectionTrait, DbErr, IdenStatic, QueryResult,
    sea_query::{Asterisk, Condition, Expr, ExprTrait, Func, JoinType, Query, SelectStatement},
};

use super::{platform::PlatformTable, stored::Stored, write::ROWS_A_STATEMENT};
use crate::{
    domain::{ContentHash, MerchantId, StoredRecord},
    store::connection::{
        dialect::Dialect,
        stamp::{instant, lenient},
    },
};

/// The stored records of `ids`, in our own table or in the one of the platform. The payload is read only without a content hash.
pub async fn look_up<R: Stored>(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    platform: Option<&PlatformTable>,
    merchant: MerchantId,
    ids: &[i64],
) -> Result<HashMap<i64, StoredRecord<R>>, DbErr> {
    let mut stored = HashMap::with_capacity(ids.len());
    for ids in ids.chunks(ROWS_A_STATEMENT) {
        for row in db.query_all(&select_held::<R>(dialect, platform, merchant, ids)).await? {
            let known = platform.map_or(Ok(None), |platform| platform.known_columns::<R>(&row))?;
            stored.insert(row.try_get("", R::id_column())?, StoredRecord { known, ..read(&row)? });
        }
    }
    Ok(stored)
}

/// In one statement, PostgreSQL looks up one record after the other. Before the first statistics of
/// a table, as before a first load, its planner assumes that a merchant has few rows. It would then
/// go through all of them for each page (measured in `docs/explanation/performance.md`). `OFFSET 0`
/// keeps it from merging the two parts.
fn select_held<R: Stored>(
    dialect: Dialect,
    platform: Option<&PlatformTable>,
    merchant: MerchantId,
    ids: &[i64],
) -> SelectStatement {
    if let Some(platform) = platform {
        let mut select = selected::<R>(dialect);
        select.columns(["is_known", "unhashed_payload"]);
        return select.from_subquery(platform.select_some::<R>(merchant, ids), R::table()).to_owned();
    }
    let unhashed =
        format!("CASE WHEN content_hash LIKE '{}%' THEN NULL ELSE CAST(payload AS text) END", ContentHash::prefix());
    let own = |which| {
        let mut select = selected::<R>(dialect);
        select.expr_as(Expr::cust(unhashed.clone()), "unhashed_payload").from(R::table());
        select.and_where(Expr::col("merchant_id").eq(merchant.0)).and_where(which).to_owned()
    };
    match dialect {
        Dialect::Sqlite => own(Expr::col(R::id_column()).is_in(ids.iter().copied())),
        Dialect::Postgres => {
            let one = own(Expr::col(R::id_column()).eq(Expr::col("wanted"))).offset(0).to_owned();
            Query::select()
                .column(("stored", Asterisk))
                .from_function(Func::cust("unnest").arg(ids.to_vec()), "wanted")
                .join_lateral(JoinType::InnerJoin, one, "stored", Condition::all())
                .to_owned()
        }
    }
}

/// The columns that are read of each record.
fn selected<R: Stored>(dialect: Dialect) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns([R::id_column(), "content_hash", "payload_hash"])
        .expr_as(Expr::cust(dialect.finite("salla_updated_at")), "salla_updated_at")
        .expr_as(Expr::col("deleted_at").is_not_null(), "deleted");
    if let Some(items_version) = R::ITEMS_VERSION {
        select.expr_as(Expr::cust(dialect.finite(items_version.as_str())), "items_version");
    }
    for (expression, name) in R::selected(dialect) {
        select.expr_as(expression, name);
    }
    select
}

fn read<R: Stored>(row: &QueryResult) -> Result<StoredRecord<R>, DbErr> {
    let stored: Option<String> = lenient(row, "content_hash");
    let payload: Option<String> = lenient(row, "unhashed_payload");
    let payload_hash: Option<Vec<u8>> = lenient(row, "payload_hash");
    Ok(StoredRecord {
        payload_hash: payload_hash.and_then(|bytes| bytes.as_slice().try_into().ok()),
        updated_at: instant(row, "salla_updated_at"),
        content_hash: match payload {
            Some(payload) => ContentHash::of_json(&payload).ok(),
            None => stored.and_then(|text| text.parse().ok()),
        },
        deleted: row.try_get("", "deleted")?,
        columns: R::columns_of(row),
        known: None,
        items_version: if R::ITEMS_VERSION.is_some() { instant(row, "items_version") } else { None },
    })
}
