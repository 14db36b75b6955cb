//! How long Salla wants a store left alone, so that a restart and other processes do; whether it has refused a
//! merchant's tokens for good, as against tokens whose renewal has an unknown outcome and which still work; and which
//! attempt at a renewal has marked them, so that it can take its mark away although its answer was lost.

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
                    .table("pauses")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null().primary_key())
                    .col(columns.instant("ends_at").not_null())
                    .foreign_key(
                        ForeignKey::create()
                            .from("pauses", "merchant_id")
                            .to("merchants", "merchant_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        for column in [columns.instant("refused_at"), ColumnDef::new("refresh_attempt").uuid().to_owned()] {
            manager.alter_table(Table::alter().table("credentials").add_column(column).to_owned()).await?;
        }
        // Until now only refused tokens led to this state.
        let refused = "UPDATE credentials SET refused_at = obtained_at WHERE merchant_id IN \
                       (SELECT merchant_id FROM merchants WHERE state = 'needs_reauthorization')";
        manager.get_connection().execute_unprepared(refused).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["refused_at", "refresh_attempt"] {
            let sql = format!("ALTER TABLE credentials DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        manager.drop_table(Table::drop().table("pauses").to_owned()).await
    }
}
