//! What Salla's app events need: what a pause covers, the stamps of the newest events of each store, registered or
//! not, and the bodies that were taken before.

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
        db.execute_unprepared("ALTER TABLE merchants ADD COLUMN paused_from text").await?;
        manager
            .create_table(
                Table::create()
                    .table("installations")
                    .col(ColumnDef::new("merchant_id").big_integer().not_null().primary_key())
                    .col(columns.instant("app_event_at"))
                    .col(columns.instant("subscription_event_at"))
                    .col(columns.instant("trial_event_at"))
                    .col(ColumnDef::new("subscribed").boolean().not_null().default(false))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("webhook_events")
                    .col(ColumnDef::new("hash").text().not_null().primary_key())
                    .col(ColumnDef::new("event").text().not_null())
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(columns.instant("received_at").not_null().default(columns.now()))
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create().name("webhook_events_received").table("webhook_events").col("received_at").to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["webhook_events", "installations"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        let db = manager.get_connection();
        // An earlier version does not know these words.
        db.execute_unprepared("UPDATE merchants SET state = 'paused' WHERE state IN ('retired', 'unsubscribed')")
            .await?;
        db.execute_unprepared("ALTER TABLE merchants DROP COLUMN paused_from").await?;
        Ok(())
    }
}
