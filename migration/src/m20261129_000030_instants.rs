//! Bounds for every column of instants in our own tables: years 1 to 9999. PostgreSQL stores instants that no program can
//! compute with, such as `infinity`, and SQLite stores any text. The tables of records have no such bounds: a platform's
//! programs write them too, and must not be refused.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

/// The tables, and their columns of instants.
const INSTANTS: [(&str, &[&str]); 18] = [
    ("merchants", &["created_at"]),
    ("credentials", &["expires_at", "obtained_at", "refresh_started_at", "refused_at"]),
    ("watermarks", &["watermark", "rotated_to"]),
    (
        "runs",
        &[
            "firing",
            "since_requested",
            "until_requested",
            "run_at",
            "lease_until",
            "window_since",
            "window_until",
            "queued_at",
            "started_at",
            "finished_at",
            "covered_until",
            "waiting_until",
        ],
    ),
    ("firings", &["slot", "fired_at", "ended_at"]),
    ("discrepancies", &["found_at"]),
    ("order_checks", &["checked_at"]),
    ("unwell", &["since", "tried_at"]),
    ("pauses", &["ends_at", "spent_at"]),
    ("installations", &["app_event_at", "subscription_event_at", "trial_event_at"]),
    ("webhook_events", &["received_at"]),
    ("audit", &["at"]),
    ("idempotency_keys", &["created_at"]),
    ("standstill", &["since"]),
    ("outbox", &["created_at"]),
    ("outbox_turns", &["due_at"]),
    ("ended_sessions", &["ends_at"]),
    ("erasures", &["erased_at"]),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_sqlite = Columns::of(manager).is_sqlite();
        for (table, columns) in INSTANTS {
            for sql in if is_sqlite { triggers(table, columns) } else { vec![constraint(table, columns)] } {
                manager.get_connection().execute_unprepared(&sql).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_sqlite = Columns::of(manager).is_sqlite();
        for (table, _) in INSTANTS {
            let drop = if is_sqlite {
                ["insert", "update"].map(|on| format!("DROP TRIGGER {table}_instants_{on}")).to_vec()
            } else {
                vec![format!("ALTER TABLE {table} DROP CONSTRAINT {table}_instants")]
            };
            for sql in drop {
                manager.get_connection().execute_unprepared(&sql).await?;
            }
        }
        Ok(())
    }
}

fn constraint(table: &str, columns: &[&str]) -> String {
    let bounds = columns
        .iter()
        .map(|column| format!("{column} >= '0001-01-01 00:00:00+00' AND {column} < '10000-01-01 00:00:00+00'"));
    let bounds = bounds.collect::<Vec<_>>().join(" AND ");
    // Existing rows are not checked: the statements that read them have the same bounds.
    format!("ALTER TABLE {table} ADD CONSTRAINT {table}_instants CHECK ({bounds}) NOT VALID")
}

/// SQLite adds no constraint to a table that is there.
fn triggers(table: &str, columns: &[&str]) -> Vec<String> {
    let odd = columns.iter().map(|column| {
        format!(
            "(NEW.{column} IS NOT NULL AND (NEW.{column} NOT GLOB '[0-9][0-9][0-9][0-9]-*' OR julianday(NEW.{column}) IS NULL))"
        )
    });
    let odd = odd.collect::<Vec<_>>().join(" OR ");
    let trigger = |on: &str| {
        format!(
            "CREATE TRIGGER {table}_instants_{on} BEFORE {on} ON {table} WHEN {odd} \
             BEGIN SELECT RAISE(ABORT, '{table}: a column of instants holds no instant'); END"
        )
    };
    vec![trigger("insert"), trigger("update")]
}
