//! The statuses that stores give their orders, which another program may write too, as it may the orders.

use sea_orm_migration::prelude::*;

use crate::records;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let own = [
            ColumnDef::new("name").text().take(),
            ColumnDef::new("slug").text().take(),
            ColumnDef::new("status_type").text().take(),
            ColumnDef::new("parent_id").big_integer().take(),
            ColumnDef::new("original_id").big_integer().take(),
        ];
        records::create(manager, "order_statuses", "salla_status_id", own).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        records::drop(manager, "order_statuses").await
    }
}
