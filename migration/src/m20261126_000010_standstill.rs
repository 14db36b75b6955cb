//! Whether all stores are paused: one row while they are, none otherwise.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = Columns::of(manager);
        manager
            .create_table(
                Table::create()
                    .table("standstill")
                    // There is one at a time.
                    .col(ColumnDef::new("id").small_integer().not_null().primary_key().check(Expr::cust("id = 1")))
                    .col(columns.instant("since").not_null())
                    .col(ColumnDef::new("actor").string().not_null())
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("standstill").to_owned()).await
    }
}
