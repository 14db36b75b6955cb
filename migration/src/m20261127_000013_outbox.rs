//! What is handed over: the runs that ended well and have not been told of yet, and whose turn it is.

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
        let db = manager.get_connection();
        manager
            .create_table(
                Table::create()
                    .table("outbox")
                    .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
                    // No foreign keys: what ended well is told of, whatever becomes of the merchant and the run.
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("run_id").uuid().not_null().unique_key())
                    // As text: it is sent as it was written.
                    .col(ColumnDef::new("run").text().not_null())
                    .col(columns.instant("created_at").not_null().default(columns.now()))
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create().name("outbox_merchant").table("outbox").col("merchant_id").col("id").to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("outbox_turns")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null().primary_key())
                    .col(columns.instant("due_at").not_null().default(columns.now()))
                    .col(ColumnDef::new("attempts").integer().not_null().default(0))
                    .col(ColumnDef::new("epoch").big_integer().not_null().default(0))
                    // A position behind the commit of the first that waits; absent until somebody asks for it.
                    .col(columns.lsn("lsn"))
                    .to_owned(),
            )
            .await?;
        if !columns.is_sqlite() {
            // A sweep passes through both; what it leaves behind would be stepped over by whoever looks for what is due.
            for table in ["outbox", "outbox_turns"] {
                let often = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000";
                db.execute_unprepared(&format!("ALTER TABLE {table} SET ({often})")).await?;
            }
        }
        db.execute_unprepared("CREATE INDEX outbox_turns_due ON outbox_turns (due_at)").await?;
        db.execute_unprepared("CREATE INDEX outbox_turns_lsn ON outbox_turns (lsn)").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["outbox_turns", "outbox"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
