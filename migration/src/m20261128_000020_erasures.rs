//! Customers of whom nothing is to be kept. What is known of them here is their id, without which they would come back.

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
                    .table("erasures")
                    // Also of a store that is not registered any more: it may come back.
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("customer_id").big_integer().not_null())
                    .col(columns.instant("erased_at").not_null().default(columns.now()))
                    .primary_key(Index::create().col("merchant_id").col("customer_id"))
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("erasures").to_owned()).await
    }
}
