//! The queue under load: whose lease has lapsed is found in the order of the leases, and what claims leave behind is
//! cleaned up once or twice a sweep. By PostgreSQL's own measure, a fifth of the table, that would be every few weeks,
//! and each claim would step over what all nights since have left.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("CREATE INDEX runs_leases ON runs (lease_until) WHERE status = 'running'").await?;
        if !Columns::of(manager).is_sqlite() {
            let often = "ALTER TABLE runs SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000, \
                         autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 10000)";
            db.execute_unprepared(often).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        if !Columns::of(manager).is_sqlite() {
            let seldom = "ALTER TABLE runs RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, \
                          autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)";
            db.execute_unprepared(seldom).await?;
        }
        db.execute_unprepared("DROP INDEX runs_leases").await?;
        Ok(())
    }
}
