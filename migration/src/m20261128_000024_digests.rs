//! A hash of the very text that a row was written from. Salla spells what has not changed as it did the night before, and
//! such a row need not be brought into canonical form to be known again.

use sea_orm_migration::prelude::*;

const TABLES: [&str; 4] = ["orders", "products", "customers", "order_statuses"];

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            // Of 16 bytes, and of the row's `fingerprint`, too: one that stands beside another fingerprint does not hold.
            let digest = ColumnDef::new("payload_digest").binary().to_owned();
            manager.alter_table(Table::alter().table(table).add_column(digest).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            let sql = format!("ALTER TABLE {table} DROP COLUMN payload_digest");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
