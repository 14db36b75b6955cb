//! Writes records of any kind, with one conditional statement per page.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DbErr, IdenStatic,
    sea_query::{Condition, Expr, ExprTrait, InsertStatement, LockType, OnConflict, Query},
};

use super::stored::Stored;
use crate::{
    domain::{MerchantId, Outcome, PayloadHash},
    reconcile::ports::StoredVersion,
    store::connection::{dialect::Dialect, stamp::instant},
};

/// Far below the number of parameters that a statement may have (32,766 in SQLite, the smaller).
pub(in crate::store) const ROWS_A_STATEMENT: usize = 500;

/// When Salla was asked for the records that are written.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// How long ago; a row that was marked as gone since then stays so.
    pub ago: Duration,
    /// The latest stamp that its clock can have made; a row with a later one is not newer.
    pub latest: Option<DateTime<Utc>>,
}

/// Writes `records`, each unless a newer one stands there by now, and returns what became of those that
/// were written. The rest were unchanged.
pub async fn upsert<R: Stored>(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    records: &[&R],
    asked: Asked,
) -> Result<HashMap<i64, Outcome>, DbErr> {
    let mut written = HashMap::with_capacity(records.len());
    for records in records.chunks(ROWS_A_STATEMENT) {
        for row in db.query_all(&upsert_statement(dialect, merchant, records, asked)?).await? {
            let revision: i64 = row.try_get("", "revision")?;
            let outcome = if revision == 0 { Outcome::Created } else { Outcome::Updated };
            written.insert(row.try_get("", R::id_column())?, outcome);
        }
    }
    Ok(written)
}

/// Takes the mark from those of `ids` that were marked as gone before Salla was `asked`, so long ago, and returns which
/// were. Their content stays.
pub async fn restore<R: Stored>(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    ids: &[i64],
    asked: Duration,
) -> Result<Vec<i64>, DbErr> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (asked_at, asked) = dialect.now_minus_parameter(asked);
    let was_gone = marked_before(dialect, "deleted_at", asked_at);
    let restore = Query::update()
        .table(R::table())
        .value("deleted_at", Expr::cust("NULL"))
        .value("revision", Expr::cust("revision + 1"))
        .value("updated_at", Expr::cust(dialect.now()))
        .and_where(Expr::col("merchant_id").eq(merchant.0))
        .and_where(Expr::col(R::id_column()).is_in(ids.iter().copied()))
        .and_where(Expr::cust_with_values(was_gone, [asked]))
        .returning_col(R::id_column())
        .to_owned();
    db.query_all(&restore).await?.iter().map(|row| row.try_get("", R::id_column())).collect()
}

/// Marks those of `gone` as gone that are still held in the version beside them, and returns which were. Another writer
/// may have brought one back since Salla was asked. Never removes.
pub async fn mark_deleted<R: Stored>(
    db: &impl ConnectionTrait,
    dialect: Dialect,
    merchant: MerchantId,
    gone: &[StoredVersion],
    dry_run: bool,
) -> Result<Vec<StoredVersion>, DbErr> {
    let mut marked = Vec::new();
    for gone in gone.chunks(ROWS_A_STATEMENT) {
        let these = |ids: Vec<i64>| {
            Condition::all()
                .add(Expr::col("merchant_id").eq(merchant.0))
                .add(Expr::col(R::id_column()).is_in(ids))
                .add(Expr::col("deleted_at").is_null())
        };
        let mut select = Query::select();
        select
            .column(R::id_column())
            .expr_as(Expr::cust(dialect.finite("salla_updated_at")), "salla_updated_at")
            .from(R::table())
            .cond_where(these(gone.iter().map(|(id, _)| *id).collect()));
        if dialect == Dialect::Postgres {
            select.lock(LockType::Update);
        }
        let mut still = Vec::new();
        for row in db.query_all(&select).await? {
            let held = (row.try_get("", R::id_column())?, instant(&row, "salla_updated_at"));
            if gone.contains(&held) {
                still.push(held);
            }
        }
        if !dry_run && !still.is_empty() {
            let mark = Query::update()
                .table(R::table())
                .value("deleted_at", Expr::cust(dialect.now()))
                .value("revision", Expr::cust("revision + 1"))
                .value("updated_at", Expr::cust(dialect.now()))
                .cond_where(these(still.iter().map(|(id, _)| *id).collect()))
                .to_owned();
            db.execute(&mark).await?;
        }
        marked.extend(still);
    }
    Ok(marked)
}

/// `records` sorted by id, so that two writers of the same rows wait for each other instead of
/// deadlocking.
fn upsert_statement<R: Stored>(
    dialect: Dialect,
    merchant: MerchantId,
    records: &[&R],
    asked: Asked,
) -> Result<InsertStatement, DbErr> {
    let mut statement = Query::insert();
    let own = R::COLUMNS.iter().map(IdenStatic::as_str);
    statement.into_table(R::table()).columns(["merchant_id", R::id_column()].into_iter().chain(own).chain([
        "salla_updated_at",
        "payload",
        "content_hash",
        "payload_hash",
    ]));
    let mut records = records.to_vec();
    records.sort_unstable_by_key(|record| record.id());
    for record in records {
        let place = [Expr::val(merchant.0), Expr::val(record.id())];
        let version = [
            Expr::val(record.updated_at()),
            dialect.json(record.payload().to_owned()),
            Expr::val(record.content_hash().to_string()),
            Expr::val(PayloadHash::of(record.content_hash(), record.payload()).as_bytes().to_vec()),
        ];
        statement
            .values(place.into_iter().chain(record.values(dialect)).chain(version))
            .map_err(|error| DbErr::Custom(error.to_string()))?;
    }
    statement
        .on_conflict(newer_wins::<R>(dialect, asked))
        .returning(Query::returning().columns([R::id_column(), "revision"]));
    Ok(statement)
}

/// Newer wins; at equal age, and where no age is told, other content does. Our `revision` tells a new row from a changed one, and
/// tells the content hash's trigger that the content hash is maintained.
fn newer_wins<R: Stored>(dialect: Dialect, asked: Asked) -> OnConflict {
    let table = R::table();
    let ours = dialect.comparable(&format!("{table}.salla_updated_at"));
    let theirs = dialect.comparable("excluded.salla_updated_at");
    let (asked_at, ago) = dialect.now_minus_parameter(asked.ago);
    let was_gone = marked_before(dialect, &format!("{table}.deleted_at"), asked_at);
    // In the order in which the condition below has them.
    let (latest, parameters) = match dialect {
        Dialect::Postgres => ("CAST($2 AS timestamptz)", [ago.clone(), asked.latest.into()]),
        Dialect::Sqlite => ("julianday(?)", [asked.latest.into(), ago.clone()]),
    };
    let mark = format!("CASE WHEN NOT ({was_gone}) THEN {table}.deleted_at END");
    let own = R::COLUMNS.iter().map(IdenStatic::as_str);
    OnConflict::columns(["merchant_id", R::id_column()])
        .update_columns(own.chain(["salla_updated_at", "payload", "content_hash", "payload_hash"]))
        .value("deleted_at", Expr::cust_with_values(mark, [ago]))
        .value("revision", Expr::cust(format!("{table}.revision + 1")))
        .value("updated_at", Expr::cust(dialect.now()))
        .action_and_where(Expr::cust_with_values(
            format!(
                "({ours}) IS NULL OR ({ours}) < ({theirs}) OR ({ours}) > {latest} OR ((({ours}) = ({theirs}) OR ({theirs}) IS NULL) AND \
                 ({table}.content_hash IS DISTINCT FROM excluded.content_hash OR {was_gone}))"
            ),
            parameters,
        ))
        .to_owned()
}

/// The clock of a program that marks rows as gone may be ahead by this much. A mark that is later was not made just now.
const MARK_TOLERANCE: Duration = Duration::from_secs(300);

/// Whether a row was marked as gone before an instant, or in the future. Another writer may have left a mark that cannot be
/// read as an instant.
pub(super) fn marked_before(dialect: Dialect, deleted_at: &str, instant: &str) -> String {
    let (marked, instant) = (dialect.age(deleted_at), dialect.age(instant));
    let ahead = dialect.age(&dialect.clock_plus(MARK_TOLERANCE));
    format!("COALESCE({marked} < {instant} OR {marked} > {ahead}, {deleted_at} IS NOT NULL)")
}
