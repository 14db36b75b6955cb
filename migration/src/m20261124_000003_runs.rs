//! The ledger of runs, which is also their queue; what each run found; and the firings of the schedule.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

/// Partial indexes, in words that both databases understand.
const INDEXES: [&str; 7] = [
    "CREATE INDEX runs_of_firing ON runs (firing) WHERE firing IS NOT NULL",
    "CREATE UNIQUE INDEX runs_one_running_a_merchant ON runs (merchant_id) WHERE status = 'running'",
    "CREATE UNIQUE INDEX runs_one_a_firing ON runs (merchant_id, firing) WHERE firing IS NOT NULL",
    "CREATE UNIQUE INDEX runs_one_queued_by_hand ON runs (merchant_id) WHERE status = 'queued' AND firing IS NULL",
    "CREATE INDEX runs_active ON runs (merchant_id, status) WHERE status IN ('queued', 'running')",
    "CREATE INDEX runs_of_merchant ON runs (merchant_id, id)",
    "CREATE INDEX runs_ended ON runs (finished_at) WHERE finished_at IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = Columns::of(manager);
        manager.create_table(runs(columns)).await?;
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        manager.create_table(run_pages()).await?;
        manager.create_table(discrepancies(columns)).await?;
        manager
            .create_index(
                Index::create().name("discrepancies_of_run").table("discrepancies").col("run_id").col("id").to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("firings")
                    .col(columns.instant("slot").not_null())
                    .col(ColumnDef::new("pattern").text().not_null())
                    .col(ColumnDef::new("outcome").text().not_null())
                    .col(ColumnDef::new("runs").big_integer().not_null().default(0))
                    .col(columns.instant("fired_at").not_null().default(columns.now()))
                    .col(columns.instant("ended_at"))
                    .primary_key(Index::create().col("pattern").col("slot"))
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["firings", "discrepancies", "run_pages", "runs"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

fn runs(columns: Columns) -> TableCreateStatement {
    let count = |name: &str| ColumnDef::new(Alias::new(name)).big_integer().not_null().default(0).to_owned();
    let flag = |name: &str| ColumnDef::new(Alias::new(name)).boolean().not_null().default(false).to_owned();
    let mut table = Table::create();
    table
        .table("runs")
        .col(ColumnDef::new("id").uuid().not_null().primary_key())
        .col(ColumnDef::new("merchant_id").big_integer().not_null())
        .col(ColumnDef::new("trigger").text().not_null())
        .col(ColumnDef::new("status").text().not_null())
        // What was asked for.
        .col(columns.instant("firing"))
        .col(columns.instant("since_requested"))
        .col(columns.instant("until_requested"))
        .col(flag("full_history"))
        .col(flag("dry_run"))
        .col(flag("cancel_requested"))
        // The queue: by hand first, then by time.
        .col(count("priority"))
        .col(columns.instant("run_at").not_null().default(columns.now()))
        // The lease.
        .col(ColumnDef::new("owner").uuid())
        .col(columns.instant("lease_until"))
        .col(count("epoch"))
        .col(count("attempt"))
        // What it got done.
        .col(columns.instant("window_since"))
        .col(columns.instant("window_until"))
        .col(ColumnDef::new("next_page").text());
    for name in ["fetched", "created", "updated", "unchanged", "skipped", "failed", "requests"] {
        table.col(count(name));
    }
    table
        .col(ColumnDef::new("error_kind").text())
        .col(ColumnDef::new("error_message").text())
        .col(columns.instant("queued_at").not_null().default(columns.now()))
        .col(columns.instant("started_at"))
        .col(columns.instant("finished_at"))
        .to_owned()
}

/// The ids that an unfinished run has seen, eight bytes each, a row a page: what it needs to count each
/// record once after a crash.
fn run_pages() -> TableCreateStatement {
    Table::create()
        .table("run_pages")
        .col(ColumnDef::new("run_id").uuid().not_null())
        .col(ColumnDef::new("number").big_integer().not_null())
        .col(ColumnDef::new("ids").binary().not_null())
        .primary_key(Index::create().col("run_id").col("number"))
        .foreign_key(
            ForeignKey::create().from("run_pages", "run_id").to("runs", "id").on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

fn discrepancies(columns: Columns) -> TableCreateStatement {
    Table::create()
        .table("discrepancies")
        .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
        .col(ColumnDef::new("run_id").uuid().not_null())
        .col(ColumnDef::new("merchant_id").big_integer().not_null())
        .col(ColumnDef::new("resource").text().not_null())
        .col(ColumnDef::new("salla_id").big_integer())
        .col(ColumnDef::new("kind").text().not_null())
        .col(columns.instant("local_updated_at"))
        .col(columns.instant("remote_updated_at"))
        .col(ColumnDef::new("fields").text().not_null().default("[]"))
        .col(ColumnDef::new("reason").text())
        .col(columns.instant("found_at").not_null().default(columns.now()))
        .foreign_key(
            ForeignKey::create().from("discrepancies", "run_id").to("runs", "id").on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}
