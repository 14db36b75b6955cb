//! The schema of salla-reconciler, for PostgreSQL and SQLite, one file a migration.
//!
//! A migration that has been released is never edited: the next one expands or contracts the schema, so
//! that two versions of the daemon can run side by side during a deploy.

pub use sea_orm_migration::{migrator::MigrationStatus, prelude::*};

mod columns;
mod m20261124_000001_merchants;
mod m20261124_000002_orders;
mod m20261124_000003_runs;
mod m20261125_000004_checks;
mod m20261125_000005_pauses;
mod m20261125_000006_onboarding;
mod m20261125_000007_access;
mod m20261125_000008_order;
mod m20261125_000009_setbacks;
mod m20261126_000010_standstill;
mod m20261127_000011_nights;
mod m20261127_000012_queue;
mod m20261127_000013_outbox;
mod m20261128_000014_resources;
mod m20261128_000015_products;
mod m20261128_000016_turns;
mod m20261128_000017_spent;
mod m20261128_000018_customers;
mod m20261128_000019_budget;
mod m20261128_000020_erasures;
mod m20261128_000021_order_statuses;
mod m20261128_000022_order_items;
mod m20261128_000023_turns_of_history;
mod m20261128_000024_digests;
mod m20261128_000025_compression;
mod m20261129_000026_waiting;
mod m20261129_000027_deferred_runs;
mod m20261129_000028_ended_sessions;
mod m20261129_000029_token_owner;
mod m20261129_000030_instants;
mod records;

/// Applies and reverts the migrations, in their order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_merchants::Migration),
            Box::new(m20261124_000002_orders::Migration),
            Box::new(m20261124_000003_runs::Migration),
            Box::new(m20261125_000004_checks::Migration),
            Box::new(m20261125_000005_pauses::Migration),
            Box::new(m20261125_000006_onboarding::Migration),
            Box::new(m20261125_000007_access::Migration),
            Box::new(m20261125_000008_order::Migration),
            Box::new(m20261125_000009_setbacks::Migration),
            Box::new(m20261126_000010_standstill::Migration),
            Box::new(m20261127_000011_nights::Migration),
            Box::new(m20261127_000012_queue::Migration),
            Box::new(m20261127_000013_outbox::Migration),
            Box::new(m20261128_000014_resources::Migration),
            Box::new(m20261128_000015_products::Migration),
            Box::new(m20261128_000016_turns::Migration),
            Box::new(m20261128_000017_spent::Migration),
            Box::new(m20261128_000018_customers::Migration),
            Box::new(m20261128_000019_budget::Migration),
            Box::new(m20261128_000020_erasures::Migration),
            Box::new(m20261128_000021_order_statuses::Migration),
            Box::new(m20261128_000022_order_items::Migration),
            Box::new(m20261128_000023_turns_of_history::Migration),
            Box::new(m20261128_000024_digests::Migration),
            Box::new(m20261128_000025_compression::Migration),
            Box::new(m20261129_000026_waiting::Migration),
            Box::new(m20261129_000027_deferred_runs::Migration),
            Box::new(m20261129_000028_ended_sessions::Migration),
            Box::new(m20261129_000029_token_owner::Migration),
            Box::new(m20261129_000030_instants::Migration),
        ]
    }
}
