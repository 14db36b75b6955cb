//! Merchants whose runs of a sweep could not be made at once, and those that had a scheduled run in the queue.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            ColumnDef::new("deferred").text().to_owned(),
            ColumnDef::new("already_queued").big_integer().not_null().default(0).to_owned(),
        ] {
            manager.alter_table(Table::alter().table("firings").add_column(column).to_owned()).await?;
        }
        let sql = "CREATE INDEX firings_deferred ON firings (slot) WHERE deferred IS NOT NULL";
        manager.get_connection().execute_unprepared(sql).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for sql in [
            "DROP INDEX firings_deferred",
            "ALTER TABLE firings DROP COLUMN deferred",
            "ALTER TABLE firings DROP COLUMN already_queued",
        ] {
            manager.get_connection().execute_unprepared(sql).await?;
        }
        Ok(())
    }
}
