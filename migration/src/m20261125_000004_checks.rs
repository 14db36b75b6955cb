//! What a store without a filter needs: the summaries that its lists showed when each order's details were last
//! read, beside the orders and not in them, so that a check that finds nothing changes no order. What could not be
//! read or written, until it is well. And how each run found its records.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = Columns::of(manager);
        manager
            .create_table(
                Table::create()
                    .table("order_checks")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("salla_order_id").big_integer().not_null())
                    .col(ColumnDef::new("summary").text().not_null())
                    .col(ColumnDef::new("held").text().not_null())
                    .col(columns.instant("checked_at").not_null().default(columns.now()))
                    .primary_key(Index::create().col("merchant_id").col("salla_order_id"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("unwell")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("resource").text().not_null())
                    .col(ColumnDef::new("salla_id").big_integer().not_null())
                    .col(ColumnDef::new("reason").text())
                    .col(columns.instant("since").not_null().default(columns.now()))
                    .col(columns.instant("tried_at").not_null().default(columns.now()))
                    .primary_key(Index::create().col("merchant_id").col("resource").col("salla_id"))
                    .to_owned(),
            )
            .await?;
        let db = manager.get_connection();
        db.execute_unprepared("ALTER TABLE runs ADD COLUMN listing text").await?;
        // A night asks which orders changed within its window, and must not read a store's whole history for it.
        let changed = if columns.is_sqlite() { "julianday(salla_updated_at)" } else { "salla_updated_at" };
        let index = format!("CREATE INDEX orders_changed ON orders (merchant_id, {changed}) WHERE deleted_at IS NULL");
        db.execute_unprepared(&index).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("DROP INDEX orders_changed").await?;
        db.execute_unprepared("ALTER TABLE runs DROP COLUMN listing").await?;
        manager.drop_table(Table::drop().table("unwell").to_owned()).await?;
        manager.drop_table(Table::drop().table("order_checks").to_owned()).await
    }
}
