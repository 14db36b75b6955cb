//! Payloads are compressed by lz4, where the server was built with it: by PostgreSQL's own method that is what a first load
//! costs most. A value that is there stays as it is, and both can be read.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

const TABLES: [&str; 4] = ["orders", "products", "customers", "order_statuses"];

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// A table after the other: each has to wait for those who read it, and nobody who reads another is to wait with it. What
    /// was begun and not recorded is done again, to no effect.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if Columns::of(manager).is_sqlite() {
            return Ok(());
        }
        let knows_lz4 = Query::select()
            .column("name")
            .from("pg_settings")
            .and_where(Expr::col("name").eq("default_toast_compression"))
            .and_where(Expr::cust("'lz4' = ANY(enumvals)"))
            .to_owned();
        match manager.get_connection().query_one(&knows_lz4).await? {
            Some(_) => compress(manager, "lz4").await,
            None => Ok(()),
        }
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if Columns::of(manager).is_sqlite() { Ok(()) } else { compress(manager, "default").await }
    }
}

async fn compress(manager: &SchemaManager<'_>, method: &str) -> Result<(), DbErr> {
    for table in TABLES {
        let sql = format!("ALTER TABLE {table} ALTER COLUMN payload SET COMPRESSION {method}");
        manager.get_connection().execute_unprepared(&sql).await?;
    }
    Ok(())
}
