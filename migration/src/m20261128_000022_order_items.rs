//! The lines of orders, and of which version of its order they are: an order that was changed since, by whomever, has none
//! that hold.

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
        let of = Table::alter().table("orders").add_column(columns.instant("items_of")).to_owned();
        manager.alter_table(of).await?;
        manager
            .create_table(
                Table::create()
                    .table("order_items")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("salla_order_id").big_integer().not_null())
                    // As Salla lists them, from 0.
                    .col(ColumnDef::new("position").big_integer().not_null())
                    .col(ColumnDef::new("salla_item_id").big_integer().not_null())
                    .col(ColumnDef::new("product_id").big_integer())
                    .col(ColumnDef::new("sku").text())
                    .col(ColumnDef::new("name").text())
                    .col(columns.exact("quantity"))
                    .col(ColumnDef::new("currency").text())
                    .col(columns.exact("price_amount"))
                    .col(columns.exact("total_amount"))
                    .primary_key(Index::create().col("merchant_id").col("salla_order_id").col("position"))
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("order_items").to_owned()).await?;
        manager.get_connection().execute_unprepared("ALTER TABLE orders DROP COLUMN items_of").await?;
        Ok(())
    }
}
