//! What a process has spent of a store's limit within its last minute, for whoever has the store next: a server that does
//! not announce its limit tells nobody.

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
        for column in [ColumnDef::new("spent").big_integer().take(), columns.instant("spent_at")] {
            manager.alter_table(Table::alter().table("pauses").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["spent", "spent_at"] {
            let sql = format!("ALTER TABLE pauses DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
