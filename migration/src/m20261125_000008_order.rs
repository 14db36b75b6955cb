//! The order of the queue as an index gives it, so that a claim reads no more of it than it takes; and how far back a
//! run's merchant was covered when the run was made: of the runs due at one instant, those that waited longest go first.
//! And the runs of one status among millions.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

/// None has the leases' ends: each page of a run moves its own, which is cheap as long as no index has to follow.
const DUE: &str = "CREATE INDEX runs_due ON runs (priority DESC, run_at, covered_until, id) WHERE status = 'queued'";

/// Not on SQLite, which would ask this index what else of one merchant is queued, and read the whole queue for it.
const OF_STATUS: &str = "CREATE INDEX runs_of_status ON runs (status, id)";

/// How many runs wait is never what it was when PostgreSQL analysed the table: most of the time none do, and then a
/// sweep's. A planner that believes in none looks through the whole queue for each run that it takes. Without
/// statistics it reckons with some. A new type, although it is the old one, lets go of those that there are.
const UNKNOWN_STATUS: &str = "ALTER TABLE runs ALTER COLUMN status TYPE text, ALTER COLUMN status SET STATISTICS 0";
const KNOWN_STATUS: &str = "ALTER TABLE runs ALTER COLUMN status SET STATISTICS -1";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // What an older version of the daemon queues beside this one counts as never covered.
        let columns = Columns::of(manager);
        let mut covered_until = columns.instant("covered_until");
        covered_until.not_null().default("1970-01-01T00:00:00+00:00");
        manager.alter_table(Table::alter().table("runs").add_column(covered_until).to_owned()).await?;
        let db = manager.get_connection();
        if !columns.is_sqlite() {
            db.execute_unprepared(UNKNOWN_STATUS).await?;
            db.execute_unprepared(OF_STATUS).await?;
        }
        db.execute_unprepared(DUE).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("DROP INDEX runs_due").await?;
        if !Columns::of(manager).is_sqlite() {
            db.execute_unprepared("DROP INDEX runs_of_status").await?;
            db.execute_unprepared(KNOWN_STATUS).await?;
        }
        db.execute_unprepared("ALTER TABLE runs DROP COLUMN covered_until").await.map(drop)
    }
}
