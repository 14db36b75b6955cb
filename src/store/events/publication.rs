//! The PostgreSQL publication of the business tables for CDC pipelines.

use migration::{MIGRATION_TABLE, quoted};
use sea_orm::{ConnectionTrait, DbErr};

use crate::{
    domain::{Customer, Order, OrderStatus, Product, Resource},
    reconcile::ports::DatabaseError,
    store::{
        Store,
        connection::{dialect::Dialect, setup_error::StoreError},
        records::{order_items, stored::Stored},
    },
};

/// The tables that feed a platform's warehouse: the records of every kind, and the items of orders.
#[must_use]
pub fn published() -> Vec<&'static str> {
    let of_resource = |resource: &Resource| match resource {
        Resource::Orders => Order::table(),
        Resource::Products => Product::table(),
        Resource::Customers => Customer::table(),
        Resource::OrderStatuses => OrderStatus::table(),
    };
    Resource::ALL.iter().map(of_resource).chain([order_items::TABLE]).collect()
}

/// Tokens, the merchants, and this program's own affairs.
#[must_use]
pub fn unpublished() -> Vec<&'static str> {
    let all = migration::tables().into_iter().map(|table| table.name());
    all.chain([MIGRATION_TABLE]).filter(|table| !published().contains(table)).collect()
}

impl Store {
    /// The publications that publish sealed tokens, such as those of all tables.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn publications_of_tokens(&self) -> Result<Vec<String>, DatabaseError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(Vec::new());
        }
        let sql = "SELECT DISTINCT CAST(pubname AS text) AS name FROM pg_publication_tables \
                   WHERE schemaname = current_schema() AND tablename = 'credentials' ORDER BY 1";
        self.call(|| async {
            let rows = self.db.query_all_raw(self.statement(sql, [])).await?;
            rows.iter().map(|row| row.try_get("", "name")).collect()
        })
        .await
    }

    /// Creates the publication if it is missing, and adds missing tables. Another process may do the same at the same
    /// time. Tables of other programs stay as they are.
    ///
    /// # Errors
    /// When the role may not, or the publication shows tables that must stay private.
    pub async fn keep_publication(&self, name: &str) -> Result<(), StoreError> {
        let mut tries = 3;
        loop {
            let Some(lacking) = self.lacking(name).await? else {
                return Ok(());
            };
            let tables = lacking.tables.join(", ");
            let sql = lacking.sql(name, None);
            tries -= 1;
            match self.db.execute_unprepared(&sql).await {
                Ok(_) => {}
                Err(error) if tries == 0 => {
                    return Err(StoreError::Publication(format!(
                        "{name:?} cannot be made to hold {tables}: {error}; the role of `migrate up` must own the tables, and the publication or else the right to CREATE in the database"
                    )));
                }
                Err(error) => tracing::debug!(error = %error, "the publication is checked again"),
            }
        }
    }

    /// The SQL that makes the publication, or adds the tables that it lacks; `None`: it has them.
    ///
    /// # Errors
    /// When the database does not answer, or the publication shows tables that must stay private.
    pub async fn publication_sql(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.lacking(name).await?.map(|lacking| lacking.sql(name, Some(&self.schema))))
    }

    /// Refuses to work without it.
    ///
    /// # Errors
    /// When it is missing, lacks a table, or shows tables that must stay private.
    pub async fn require_publication(&self, name: &str) -> Result<(), StoreError> {
        match self.lacking(name).await? {
            None => Ok(()),
            Some(lacking) => Err(StoreError::Publication(format!(
                "{name:?} lacks {}; run `salla-reconciler migrate up`",
                lacking.tables.join(", ")
            ))),
        }
    }

    async fn lacking(&self, name: &str) -> Result<Option<Lacking>, StoreError> {
        let look = || async {
            let exists = "SELECT 1 AS found FROM pg_publication WHERE pubname = $1";
            let tables = "SELECT CAST(tablename AS text) AS name FROM pg_publication_tables \
                          WHERE pubname = $1 AND schemaname = current_schema()";
            let exists = self.db.query_one_raw(self.statement(exists, [name.into()])).await?.is_some();
            let rows = self.db.query_all_raw(self.statement(tables, [name.into()])).await?;
            let held = rows.iter().map(|row| row.try_get("", "name")).collect::<Result<Vec<String>, DbErr>>()?;
            Ok((exists, held))
        };
        let (exists, held) = self.call(look).await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        if let Some(shown) = unpublished().into_iter().find(|table| held.iter().any(|held| held == table)) {
            return Err(StoreError::Publication(format!(
                "{name:?} publishes {shown}, which must stay private; take it out (ALTER PUBLICATION … DROP TABLE), or make a publication that is not FOR ALL TABLES"
            )));
        }
        let tables: Vec<&str> =
            published().into_iter().filter(|table| !held.iter().any(|held| held == table)).collect();
        Ok((!tables.is_empty()).then_some(Lacking { exists, tables }))
    }
}

/// The missing tables of a publication.
struct Lacking {
    exists: bool,
    tables: Vec<&'static str>,
}

impl Lacking {
    /// The statement that adds them. `schema`: where the tables are, if the session does not say.
    fn sql(&self, name: &str, schema: Option<&str>) -> String {
        let schema = schema.map_or_else(String::new, |schema| format!("{}.", quoted(schema)));
        let tables = self.tables.iter().map(|table| format!("{schema}{table}")).collect::<Vec<_>>().join(", ");
        let name = quoted(name);
        if self.exists {
            format!("ALTER PUBLICATION {name} ADD TABLE {tables}")
        } else {
            format!("CREATE PUBLICATION {name} FOR TABLE {tables}")
        }
    }
}
