//! The customers, which another program may write too, as it may the orders.

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
        let text = |name| ColumnDef::new(name).text().take();
        let own = [
            text("first_name"),
            text("last_name"),
            text("email"),
            text("mobile"),
            text("mobile_code"),
            text("gender"),
            text("birthday"),
            text("city"),
            text("country"),
            text("country_code"),
            text("currency"),
            text("language"),
            Columns::of(manager).instant("salla_created_at"),
        ];
        records::create(manager, "customers", "salla_customer_id", own).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        records::drop(manager, "customers").await
    }
}
