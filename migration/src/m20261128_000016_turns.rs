//! Events that were not tried yet are found beside those that a receiver refuses again and again.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        for (name, column, which) in [
            ("fresh", "lsn", "attempts = 0"),
            ("fresh_due", "due_at", "attempts = 0"),
            ("again", "due_at", "attempts > 0"),
        ] {
            let index = format!("CREATE INDEX outbox_turns_{name} ON outbox_turns ({column}) WHERE {which}");
            db.execute_unprepared(&index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for name in ["fresh", "fresh_due", "again"] {
            manager.get_connection().execute_unprepared(&format!("DROP INDEX outbox_turns_{name}")).await?;
        }
        Ok(())
    }
}
