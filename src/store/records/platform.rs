//! Tables of the platform that this program reconciles: a view shows what they hold, and a function writes into them.
//! Our own table keeps what was last written.

use std::{collections::HashMap, fmt};

use migration::quoted;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, QueryResult, Statement, Value,
    sea_query::{
        Asterisk, CommonTableExpression, Condition, Expr, ExprTrait, JoinType, PostgresQueryBuilder, Query,
        SelectStatement, WithClause, extension::postgres::PgFunc,
    },
};

use super::{discrepancies::Written, stored::Stored};
use crate::domain::{ContentHash, MerchantId, Outcome};

/// The name of a view or a function: in a schema, or in the first schema of the search path that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    schema: Option<String>,
    name: String,
}

impl ObjectName {
    /// Reads `name` or `schema.name`; `None` if the text is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |part: &str| {
            (1..=63).contains(&part.len())
                && part.chars().all(|letter| letter.is_alphanumeric() || "_$".contains(letter))
        };
        let parts: Vec<&str> = text.split('.').collect();
        match *parts.as_slice() {
            [name] if is_name(name) => Some(Self { schema: None, name: name.to_owned() }),
            [schema, name] if is_name(schema) && is_name(name) => {
                Some(Self { schema: Some(schema.to_owned()), name: name.to_owned() })
            }
            _ => None,
        }
    }

    /// The name in SQL.
    pub fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema.as_ref().map_or_else(String::new, |schema| format!("{schema}."));
        write!(f, "{schema}{}", self.name)
    }
}

/// The view and the function for one kind of record.
#[derive(Debug, Clone)]
pub struct PlatformTable {
    pub view: ObjectName,
    pub function: ObjectName,
    /// The columns of the view that are compared.
    pub columns: Vec<String>,
}

/// Two time stamps that differ by less are one: Prisma stores milliseconds.
const SAME_VERSION_SECONDS: &str = "0.001";

pub(super) const OMITTED: &str =
    "the function of the platform did not return the record: is its merchant in the table of the platform?";

/// What the function says about each record.
const OUTCOMES: [(&str, Outcome); 3] =
    [("created", Outcome::Created), ("updated", Outcome::Updated), ("unchanged", Outcome::Unchanged)];

impl PlatformTable {
    /// The name of the function with the type of its argument.
    pub fn signature(&self) -> String {
        format!("{}(jsonb)", self.function.sql())
    }

    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|one| one == column)
    }

    /// What the platform holds, with the columns of our own table. A column that the view lacks comes from our own row, if that is
    /// of the same version.
    pub fn select<R: Stored>(&self) -> SelectStatement {
        let same = format!("own.merchant_id = v.merchant_id AND own.{id} = v.{id}", id = R::id_column());
        self.select_view()
            .expr(Expr::cust(self.list::<R>()))
            .join_as(JoinType::LeftJoin, R::table(), "own", Expr::cust(same))
            // A platform may have orders of other origin.
            .and_where(Expr::cust(format!("v.merchant_id IS NOT NULL AND v.{} IS NOT NULL", R::id_column())))
            .to_owned()
    }

    /// The same for some records. The statement reads the view once, and then our own table one
    /// record after the other. Before the first statistics, PostgreSQL assumes that a table is
    /// small. It would then read all of it for each record.
    pub fn select_some<R: Stored>(&self, merchant: MerchantId, ids: &[i64]) -> SelectStatement {
        let (id, table) = (R::id_column(), quoted(R::table()));
        let shown = self
            .select_view()
            .column(Asterisk)
            .and_where(Expr::col(("v", "merchant_id")).eq(merchant.0))
            .and_where(Expr::col(("v", id)).eq(PgFunc::any(ids.to_vec())))
            .to_owned();
        let shown = CommonTableExpression::new().table_name("shown").query(shown).materialized(true).to_owned();
        let same = format!("{table}.merchant_id = v.merchant_id AND {table}.{id} = v.{id}");
        let own = Query::select().column(Asterisk).from(R::table()).and_where(Expr::cust(same)).offset(0).to_owned();
        Query::select()
            .expr(Expr::cust(self.list::<R>()))
            .from_as("shown", "v")
            .join_lateral(JoinType::LeftJoin, own, "own", Condition::all())
            .with_cte(WithClause::new().cte(shown).to_owned())
            .to_owned()
    }

    pub(super) fn select_view(&self) -> SelectStatement {
        match &self.view.schema {
            Some(schema) => Query::select().from_as((schema.clone(), self.view.name.clone()), "v").to_owned(),
            None => Query::select().from_as(self.view.name.clone(), "v").to_owned(),
        }
    }

    /// The columns of a record of the view `v` beside our row `own`.
    fn list<R: Stored>(&self) -> String {
        let id = R::id_column();
        let own_or_view = |column: &str| {
            match (self.has(column), column) {
            // The contract has a text here, and our own table a number.
            (true, "reference_id") => {
                "CASE WHEN CAST(v.reference_id AS text) ~ '^[0-9]{1,18}$' THEN CAST(CAST(v.reference_id AS text) AS bigint) END"
                    .to_owned()
            }
            (true, _) => format!("v.{column}"),
            (false, _) => format!("CASE WHEN {known} THEN own.{column} END", known = is_known()),
        }
        };
        let own = |column: &str| format!("CASE WHEN {} THEN own.{column} END", is_known());
        // The platform has no hash of the payload. Its payload is read unless it equals the one that our row has the
        // hash of.
        let is_hashed = format!("{} AND own.content_hash LIKE '{}%'", is_known(), ContentHash::prefix());
        let is_same = if self.has("payload") { " AND own.payload = v.payload" } else { "" };
        let unhashed =
            format!("CASE WHEN {is_hashed}{is_same} THEN NULL ELSE CAST({} AS text) END", own_or_view("payload"));
        let mut list: Vec<String> = R::COLUMNS
            .iter()
            .map(|column| format!("{} AS {}", own_or_view(column.as_str()), column.as_str()))
            .collect();
        if let Some(items_version) = R::ITEMS_VERSION {
            list.push(format!("own.{0} AS {0}", items_version.as_str()));
        }
        let deleted_at = if self.has("deleted_at") { "v" } else { "own" };
        list.extend([
            format!("v.merchant_id, v.{id}, {deleted_at}.deleted_at, {} AS is_known", is_known()),
            format!(
                "CASE WHEN {} THEN own.salla_updated_at ELSE v.salla_updated_at END AS salla_updated_at",
                is_known()
            ),
            // Without a payload, the row of the platform has no content that was hashed.
            if self.has("payload") {
                format!("CASE WHEN v.payload IS NOT NULL THEN {} END AS content_hash", own("content_hash"))
            } else {
                format!("{} AS content_hash", own("content_hash"))
            },
            format!("{} AS payload_hash", own("payload_hash")),
            format!("{} AS payload, {unhashed} AS unhashed_payload", own_or_view("payload")),
        ]);
        list.join(", ")
    }

    /// The same as a table of a statement.
    pub fn source<R: Stored>(&self) -> String {
        format!("({})", self.select::<R>().to_string(PostgresQueryBuilder))
    }

    /// The columns that are known of a row of [`PlatformTable::select`]; `None`: all.
    pub fn known_columns<R: Stored>(&self, row: &QueryResult) -> Result<Option<Vec<&'static str>>, DbErr> {
        let is_known: bool = row.try_get("", "is_known")?;
        let columns = R::COLUMNS.iter().map(IdenStatic::as_str).chain(["payload"]).filter(|column| self.has(column));
        Ok(if is_known { None } else { Some(columns.collect()) })
    }

    /// Calls the function with the records as our own table has them, and returns what it did. A record that does not come back
    /// failed.
    pub async fn write<R: Stored>(
        &self,
        db: &impl ConnectionTrait,
        merchant: MerchantId,
        ids: &[i64],
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let rows = records::<R>(&quoted(R::table()));
        let mut written = self.call::<R>(db, &rows, [Value::from(merchant.0), ids.to_vec().into()]).await?;
        for id in ids {
            written.entry(*id).or_insert_with(|| (Outcome::Failed, Some(OMITTED.to_owned())));
        }
        written.retain(|id, _| ids.contains(id));
        Ok(written)
    }

    /// Gives one record back to the function as the view shows it; `None`: the view shows none. A reason stands beside the outcome
    /// if all columns of the record are known.
    pub async fn write_back<R: Stored>(&self, txn: &DatabaseTransaction) -> Result<Option<Written>, DbErr> {
        let (id, source) = (R::id_column(), self.source::<R>());
        let columns = format!("o.merchant_id AS merchant, o.{id} AS id, o.is_known");
        let any = format!("SELECT {columns} FROM {source} AS o LIMIT 1");
        // A record that this program has written says more.
        let own = format!(
            "SELECT {columns} FROM (SELECT merchant_id, {id} FROM {} WHERE deleted_at IS NULL LIMIT 1) AS own \
             JOIN {source} AS o ON o.merchant_id = own.merchant_id AND o.{id} = own.{id}",
            quoted(R::table())
        );
        let select = |sql: String| txn.query_one_raw(Statement::from_string(txn.get_database_backend(), sql));
        let found = match select(own).await? {
            None => select(any).await?,
            found => found,
        };
        let Some(row) = found else { return Ok(None) };
        let (merchant, one): (i64, i64) = (row.try_get("", "merchant")?, row.try_get("", "id")?);
        let rows = records::<R>(&source);
        let mut written = self.call::<R>(txn, &rows, [Value::from(merchant), vec![one].into()]).await?;
        let is_known: bool = row.try_get("", "is_known")?;
        let known = |(outcome, reason): Written| (outcome, reason.or_else(|| is_known.then(String::new)));
        let omitted = || (Outcome::Failed, Some(OMITTED.to_owned()));
        Ok(Some(written.remove(&one).map_or_else(omitted, known)))
    }

    pub(super) async fn call<R: Stored>(
        &self,
        db: &impl ConnectionTrait,
        rows: &str,
        values: impl IntoIterator<Item = Value> + Send,
    ) -> Result<HashMap<i64, Written>, DbErr> {
        let sql = format!(
            "SELECT CAST(w.{id} AS bigint) AS id, CAST(w.outcome AS text) AS outcome \
             FROM {function}((SELECT COALESCE(jsonb_agg(page.record ORDER BY page.record -> '{id}'), '[]') FROM ({rows}) AS page)) AS w",
            function = self.function.sql(),
            id = R::id_column(),
        );
        let mut written = HashMap::new();
        for row in db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await? {
            let (Some(id), outcome): (Option<i64>, Option<String>) =
                (row.try_get("", "id")?, row.try_get("", "outcome")?)
            else {
                continue;
            };
            let outcome = outcome.unwrap_or_default();
            let known = OUTCOMES.iter().find(|(word, _)| *word == outcome);
            let unknown = || {
                let reason = format!(
                    "the function of the platform returned the outcome {outcome:?}; return created, updated or unchanged"
                );
                (Outcome::Failed, Some(reason))
            };
            written.insert(id, known.map_or_else(unknown, |(_, outcome)| (*outcome, None)));
        }
        Ok(written)
    }
}

/// Whether our own row is of the version that the platform holds.
fn is_known() -> String {
    format!("(own.merchant_id IS NOT NULL AND {})", same_version("own.salla_updated_at", "v.salla_updated_at"))
}

/// Whether two time stamps are of one version.
pub(super) fn same_version(one: &str, other: &str) -> String {
    format!(
        "COALESCE({one} IS NOT DISTINCT FROM {other} \
         OR abs(extract(epoch FROM {one}) - extract(epoch FROM {other})) < {SAME_VERSION_SECONDS}, false)"
    )
}

/// Some records of a table, as the function gets them.
fn records<R: Stored>(table: &str) -> String {
    let (id, own) = (R::id_column(), R::COLUMNS.iter().map(IdenStatic::as_str));
    let columns = ["merchant_id", id].into_iter().chain(own).chain(["salla_updated_at", "deleted_at", "payload"]);
    let pairs: Vec<String> = columns.map(|column| format!("'{column}', o.{column}")).collect();
    // One record after the other: see `look_up`.
    format!(
        "SELECT one.record FROM unnest($2) AS wanted JOIN LATERAL (SELECT jsonb_build_object({}) AS record \
         FROM {table} AS o WHERE o.merchant_id = $1 AND o.{id} = wanted OFFSET 0) AS one ON TRUE",
        pairs.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_schema() {
        let sql = |text| ObjectName::parse(text).map(|name| name.sql());
        assert_eq!(sql("salla.platform_orders").as_deref(), Some(r#""salla"."platform_orders""#));
        assert_eq!(sql("Orders").as_deref(), Some(r#""Orders""#));
        for wrong in ["", ".", "a.b.c", "a.", "orders; drop table x", "\"a\"", "a b"] {
            assert_eq!(sql(wrong), None, "{wrong}");
        }
    }
}
