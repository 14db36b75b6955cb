//! The products, which another program may write too, as it may the orders.

use sea_orm_migration::prelude::*;

use crate::{columns::Columns, records};

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
        let own = [
            ColumnDef::new("name").text().take(),
            ColumnDef::new("sku").text().take(),
            ColumnDef::new("product_type").text().take(),
            ColumnDef::new("status").text().take(),
            ColumnDef::new("currency").text().take(),
            columns.exact("price_amount"),
            columns.exact("sale_price_amount"),
            columns.exact("cost_amount"),
            ColumnDef::new("quantity").big_integer().take(),
            ColumnDef::new("is_available").boolean().take(),
        ];
        records::create(manager, "products", "salla_product_id", own).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        records::drop(manager, "products").await
    }
}
