//! Who did what, and which requests were answered already.

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
                    .table("audit")
                    .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
                    .col(columns.instant("at").not_null().default(columns.now()))
                    .col(ColumnDef::new("actor").text().not_null())
                    .col(ColumnDef::new("action").text().not_null())
                    // No foreign keys: an entry outlives what it tells of.
                    .col(ColumnDef::new("merchant_id").big_integer())
                    .col(ColumnDef::new("run_id").uuid())
                    .col(columns.json("detail").not_null())
                    .to_owned(),
            )
            .await?;
        manager.create_index(Index::create().name("audit_at").table("audit").col("at").to_owned()).await?;
        manager
            .create_table(
                Table::create()
                    .table("idempotency_keys")
                    .col(ColumnDef::new("caller").text().not_null())
                    .col(ColumnDef::new("key").text().not_null())
                    .col(ColumnDef::new("body").binary().not_null())
                    .col(ColumnDef::new("run_id").uuid().not_null())
                    .col(columns.instant("created_at").not_null().default(columns.now()))
                    .primary_key(Index::create().col("caller").col("key"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("idempotency_keys", "run_id")
                            .to("runs", "id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        let run = Index::create().name("idempotency_keys_run").table("idempotency_keys").col("run_id").to_owned();
        manager.create_index(run).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["idempotency_keys", "audit"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
