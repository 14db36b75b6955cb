//! Why a run waits, until when, and how often it has waited since its last page.

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
        for column in [
            ColumnDef::new("waiting_reason").text().to_owned(),
            ColumnDef::new("waiting_message").text().to_owned(),
            columns.instant("waiting_until"),
            ColumnDef::new("waiting_attempts").big_integer().not_null().default(0).to_owned(),
        ] {
            manager.alter_table(Table::alter().table("runs").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["waiting_reason", "waiting_message", "waiting_until", "waiting_attempts"] {
            let sql = format!("ALTER TABLE runs DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
