//! How often in a row a run was taken up from a lapsed lease without getting on.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

/// Partial, for few runs ever have a setback.
const INDEX: &str = "CREATE INDEX runs_suspect ON runs (setbacks) WHERE setbacks > 0";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let setbacks = ColumnDef::new("setbacks").big_integer().not_null().default(0).to_owned();
        manager.alter_table(Table::alter().table("runs").add_column(setbacks).to_owned()).await?;
        manager.get_connection().execute_unprepared(INDEX).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite drops no column that an index knows.
        for sql in ["DROP INDEX runs_suspect", "ALTER TABLE runs DROP COLUMN setbacks"] {
            manager.get_connection().execute_unprepared(sql).await?;
        }
        Ok(())
    }
}
