//! The register: stores, their sealed tokens, and how far each is covered.

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
                    .table("merchants")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null().primary_key())
                    .col(ColumnDef::new("name").text())
                    .col(ColumnDef::new("state").text().not_null().default("active"))
                    .col(columns.instant("created_at").not_null().default(columns.now()))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("credentials")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null().primary_key())
                    .col(ColumnDef::new("access_token").text().not_null())
                    .col(ColumnDef::new("refresh_token").text())
                    .col(columns.instant("expires_at"))
                    .col(columns.instant("obtained_at").not_null().default(columns.now()))
                    .col(ColumnDef::new("version").big_integer().not_null().default(1))
                    .col(columns.instant("refresh_started_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("credentials", "merchant_id")
                            .to("merchants", "merchant_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("watermarks")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("resource").text().not_null())
                    .col(columns.instant("watermark").not_null())
                    .primary_key(Index::create().col("merchant_id").col("resource"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("watermarks", "merchant_id")
                            .to("merchants", "merchant_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["watermarks", "credentials", "merchants"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
