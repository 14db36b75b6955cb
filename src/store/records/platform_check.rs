//! Whether the view and the function of a table of the platform can be used.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, IdenStatic, Value};

use super::{
    platform::{ObjectName, PlatformTable},
    stored::Stored,
};
use crate::{
    domain::{Customer, MerchantId, Order, Outcome, Product, Resource},
    reconcile::ports::DatabaseError,
    store::{
        Store,
        connection::{error::is_held, setup_error::StoreError},
    },
};

/// The settings of the platform's tables, by kind: the names of the view and the function.
pub type PlatformNames = Vec<(Resource, ObjectName, ObjectName)>;

/// What the trial of a table of the platform showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// Both can be used.
    Usable(String),
    /// Both can be used, and perhaps each night writes rows that are right.
    Suspicious(String),
    /// The database refused the trial, which used one record. Other records may be accepted.
    Refused(String),
    /// No record can be written, or records would be written twice.
    Failed(String),
}

/// Which rights the role lacks on the views ($1) and the functions ($2) of the platform.
const PLATFORM_ACCESS: &str = "SELECT string_agg(lacking, ', ' ORDER BY lacking) AS lacking FROM (\
    SELECT 'SELECT on ' || name AS lacking FROM unnest($1::text[]) AS views(name) \
    WHERE NOT COALESCE(has_any_column_privilege(CAST(to_regclass(name) AS oid), 'SELECT'), false) \
    UNION ALL SELECT 'EXECUTE on ' || name FROM unnest($2::text[]) AS functions(name) \
    WHERE NOT COALESCE(has_function_privilege(CAST(to_regprocedure(name) AS oid), 'EXECUTE'), false)) AS rights";

impl Store {
    /// Reconciles these tables of the platform instead of our own ones.
    ///
    /// # Errors
    /// When a view or a function cannot be used; the text says why, and what to do.
    pub async fn with_platform_tables(self, names: PlatformNames) -> Result<Self, StoreError> {
        let mut platform = HashMap::new();
        for (resource, view, function) in names {
            let table = self.read_platform_table(resource, view, function).await?;
            platform.insert(resource, table);
        }
        Ok(Self { platform: platform.into(), ..self })
    }

    /// Tries each table of the platform in a transaction that is rolled back. It tries the look-up,
    /// an empty page, and a page of one record that exists.
    pub async fn try_platform_tables(&self) -> Vec<(Resource, Trial)> {
        let mut trials = Vec::new();
        for (resource, table) in &*self.platform {
            let tried = match resource {
                Resource::Orders => self.try_platform_table::<Order>(table).await,
                Resource::Products => self.try_platform_table::<Product>(table).await,
                Resource::Customers => self.try_platform_table::<Customer>(table).await,
                Resource::OrderStatuses => continue,
            };
            trials.push((*resource, tried));
        }
        trials
    }

    async fn read_platform_table(
        &self,
        resource: Resource,
        view: ObjectName,
        function: ObjectName,
    ) -> Result<PlatformTable, StoreError> {
        let required = match resource {
            Resource::Orders => required::<Order>(),
            Resource::Products => required::<Product>(),
            Resource::Customers => required::<Customer>(),
            Resource::OrderStatuses => return Err(target_error_of(resource, "the kind has no such setting")),
        };
        let refused = |problem: String| target_error_of(resource, &problem);
        let found = self.view_columns(&view).await.map_err(|error| refused(error.to_string()))?;
        if found.is_empty() {
            let problem = format!(
                "the view {} does not exist, or this role may not use its schema; create it (`salla-reconciler target template plain` prints an example), and GRANT USAGE on the schema and SELECT on the view",
                view.sql()
            );
            return Err(refused(problem));
        }
        let mut columns = Vec::new();
        for (column, own_type, is_needed) in required {
            let Some(view_type) = found.get(column) else {
                if is_needed {
                    return Err(refused(format!(
                        "the view {} lacks the column {column} {own_type}; add it to the SELECT of the view",
                        view.sql()
                    )));
                }
                continue;
            };
            if !fits(column, own_type, view_type) {
                let problem = format!(
                    "the column {column} of the view {} has the type {view_type}, and {own_type} is needed; {}",
                    view.sql(),
                    advice(column, own_type, view_type)
                );
                return Err(refused(problem));
            }
            columns.push(column.to_owned());
        }
        let table = PlatformTable { view, function, columns };
        self.require_usable(resource, &table).await?;
        Ok(table)
    }

    /// The columns of a view with their types; empty: this role sees no such view.
    async fn view_columns(&self, view: &ObjectName) -> Result<HashMap<String, String>, DatabaseError> {
        let sql = "SELECT CAST(attname AS text) AS name, CAST(format_type(atttypid, NULL) AS text) AS type \
                   FROM pg_attribute WHERE attrelid = CAST(to_regclass($1) AS oid) AND attnum > 0 AND NOT attisdropped";
        self.call(|| async {
            let rows = self.db.query_all_raw(self.statement(sql, [view.sql().into()])).await?;
            rows.iter().map(|row| Ok((row.try_get("", "name")?, row.try_get("", "type")?))).collect()
        })
        .await
    }

    /// The rights that the role lacks on the views and functions of the platform. An object that does not exist counts.
    pub(in crate::store) async fn lacking_platform_rights(
        &self,
        tables: impl Iterator<Item = &PlatformTable> + Send,
    ) -> Result<Option<String>, DbErr> {
        let (views, functions): (Vec<String>, Vec<String>) =
            tables.map(|table| (table.view.sql(), table.signature())).unzip();
        if views.is_empty() {
            return Ok(None);
        }
        let values: [Value; 2] = [views.into(), functions.into()];
        let row = self.db.query_one_raw(self.statement(PLATFORM_ACCESS, values)).await?;
        row.map_or(Ok(None), |row| row.try_get("", "lacking"))
    }

    async fn require_usable(&self, resource: Resource, table: &PlatformTable) -> Result<(), StoreError> {
        let signature = table.signature();
        let refused = |problem: &str| target_error_of(resource, problem);
        let read = self.call(|| async {
            let sql = "SELECT to_regprocedure($1) IS NOT NULL AS there";
            let row = self.db.query_one_raw(self.statement(sql, [signature.clone().into()])).await?;
            let there: bool = row.map_or(Ok(false), |row| row.try_get("", "there"))?;
            Ok((there, self.lacking_platform_rights([table].into_iter()).await?))
        });
        match read.await.map_err(|error| refused(&error.to_string()))? {
            (false, _) => Err(refused(&format!(
                "the function {signature} does not exist; `salla-reconciler target template plain` prints an example"
            ))),
            (true, Some(lacking)) => Err(refused(&format!("this role lacks {lacking}; GRANT it"))),
            (true, None) => Ok(()),
        }
    }

    async fn try_platform_table<R: Stored>(&self, table: &PlatformTable) -> Trial {
        let tried = async {
            let txn = self.begin_write().await?;
            let tried = try_in::<R>(&txn, table).await;
            // Nothing stays of the trial.
            txn.rollback().await?;
            tried
        };
        tried.await.unwrap_or_else(|error| Trial::Refused(format!("the trial failed: {error}")))
    }
}

async fn try_in<R: Stored>(txn: &DatabaseTransaction, table: &PlatformTable) -> Result<Trial, DbErr> {
    if let Err(error) = table.write::<R>(txn, MerchantId(0), &[]).await
        && !is_held(&error)
    {
        let names = table.function.sql();
        return Ok(Trial::Failed(format!(
            "{names} fails for an empty page: {error}; correct it, and run `check` again"
        )));
    }
    let names = format!("{} and {}", table.view.sql(), table.function.sql());
    let compared = table.columns.join(", ");
    Ok(match table.write_back::<R>(txn).await? {
        Some((Outcome::Failed, reason)) => Trial::Refused(reason.unwrap_or_default()),
        Some((Outcome::Created, _)) => Trial::Failed(
            "the function created a record that the view shows already: they use different rows; compare how both find the merchant and the order".to_owned(),
        ),
        Some((Outcome::Updated, Some(_))) => Trial::Suspicious(format!(
            "{} changed a record that {} shows as it was given: if that holds for all records, each night writes them all",
            table.function.sql(),
            table.view.sql()
        )),
        Some(_) => Trial::Usable(format!("{names} can be used; compared: {compared}")),
        None => Trial::Usable(format!("{names} can be used; the view shows no record yet; compared: {compared}")),
    })
}

/// The columns of a view, with their types, and whether they must be there.
fn required<R: Stored>() -> Vec<(&'static str, &'static str, bool)> {
    let own = R::COLUMNS.iter().map(|column| (column.as_str(), type_of(column.as_str()), false));
    let fixed = [
        ("merchant_id", "bigint", true),
        (R::id_column(), "bigint", true),
        ("salla_updated_at", "timestamp with time zone", true),
    ];
    let free = [("deleted_at", "timestamp with time zone", false), ("payload", "jsonb", false)];
    fixed.into_iter().chain(own).chain(free).collect()
}

/// The types of the contract, by the names that our columns have.
fn type_of(column: &str) -> &'static str {
    match column {
        "quantity" => "bigint",
        "is_available" => "boolean",
        _ if column.ends_with("_amount") => "numeric",
        _ if column.ends_with("_at") => "timestamp with time zone",
        _ => "text",
    }
}

fn fits(column: &str, needed: &str, found: &str) -> bool {
    found == needed || column == "reference_id" && found == "bigint"
}

fn advice(column: &str, needed: &str, found: &str) -> String {
    match (needed, found) {
        ("timestamp with time zone", "timestamp without time zone") => {
            format!("if the platform stores UTC, write (\"column\" AT TIME ZONE 'UTC') AS {column}")
        }
        _ => format!("write CAST(… AS {needed}) AS {column}"),
    }
}

fn target_error_of(resource: Resource, problem: &str) -> StoreError {
    StoreError::Target(resource, problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_have_the_types_of_the_contract() {
        let orders = required::<Order>();
        let of = |name| orders.iter().find(|(column, ..)| *column == name).map(|(_, kind, needed)| (*kind, *needed));
        assert_eq!(of("salla_order_id"), Some(("bigint", true)));
        assert_eq!(of("total_amount"), Some(("numeric", false)));
        assert_eq!(of("reference_id"), Some(("text", false)));
        assert_eq!(of("salla_created_at"), Some(("timestamp with time zone", false)));
        assert!(fits("reference_id", "text", "bigint") && !fits("status", "text", "order_status"));
    }
}
