//! The schema of salla-reconciler, for PostgreSQL and SQLite, one file per group of tables.
//!
//! A released migration is never edited. A later one expands or contracts the schema, so that two versions of the
//! daemon can run side by side during a deploy.

use sea_orm_migration::sea_orm::DbBackend;
pub use sea_orm_migration::{migrator::MigrationStatus, prelude::*};

mod description;
mod m20261130_000001_merchants;
mod m20261130_000002_records;
mod m20261130_000003_runs;
mod m20261130_000004_events;
mod m20261130_000005_access;

pub use description::{Dialect, Table, quoted};

/// The table that says which migrations are applied. Its name differs from that of the library, which a platform may use
/// too.
pub const MIGRATION_TABLE: &str = "salla_reconciler_migrations";

/// The groups of tables, in the order in which they are created.
const GROUPS: [Group; 5] = [
    Group { name: "m20261130_000001_merchants", tables: m20261130_000001_merchants::tables },
    Group { name: "m20261130_000002_records", tables: m20261130_000002_records::tables },
    Group { name: "m20261130_000003_runs", tables: m20261130_000003_runs::tables },
    Group { name: "m20261130_000004_events", tables: m20261130_000004_events::tables },
    Group { name: "m20261130_000005_access", tables: m20261130_000005_access::tables },
];

/// A migration that creates tables.
#[derive(Debug, Clone, Copy)]
struct Group {
    name: &'static str,
    tables: fn() -> Vec<Table>,
}

impl MigrationName for Group {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Group {
    /// All tables of a group, or none.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let dialect = dialect(manager);
        for sql in (self.tables)().iter().flat_map(|table| table.create(dialect)) {
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let dialect = dialect(manager);
        for sql in (self.tables)().iter().rev().flat_map(|table| table.drop(dialect)) {
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}

/// Applies and reverts the migrations, in their order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        GROUPS.iter().map(|group| Box::new(*group) as Box<dyn MigrationTrait>).collect()
    }

    fn migration_table_name() -> DynIden {
        MIGRATION_TABLE.into_iden()
    }
}

/// Every table, and the rights that the program needs on it.
#[must_use]
pub fn tables() -> Vec<Table> {
    GROUPS.iter().flat_map(|group| (group.tables)()).collect()
}

/// The SQL that applies the migrations of these names, in one transaction. `schema`: where PostgreSQL's tables are, and
/// whether it exists.
#[must_use]
pub fn sql(dialect: Dialect, (schema, exists): (&str, bool), pending: &[String]) -> String {
    let groups = GROUPS.iter().filter(|group| pending.iter().any(|name| name == group.name));
    let migrations = groups.flat_map(|group| {
        let now = match dialect {
            Dialect::Postgres => "CAST(extract(epoch FROM now()) AS bigint)",
            Dialect::Sqlite => "unixepoch()",
        };
        let record = format!("INSERT INTO {MIGRATION_TABLE} (version, applied_at) VALUES ('{}', {now})", group.name);
        let comment = format!("\n-- {}", group.name);
        let statements = (group.tables)().iter().flat_map(|table| table.create(dialect)).collect::<Vec<_>>();
        std::iter::once(comment).chain(statements.into_iter().chain([record]).map(|sql| format!("{sql};")))
    });
    let schema = quoted(schema);
    // A role without the right to create schemas may use one that exists.
    let create = (!exists).then(|| format!("CREATE SCHEMA {schema};"));
    let in_schema = create.into_iter().chain([format!("SET LOCAL search_path TO {schema};")]);
    let of_dialect = in_schema.filter(|_| dialect == Dialect::Postgres);
    let record = format!(
        "CREATE TABLE IF NOT EXISTS {MIGRATION_TABLE} (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);"
    );
    let head = std::iter::once("BEGIN;".to_owned()).chain(of_dialect).chain([record]);
    head.chain(migrations).chain(["\nCOMMIT;".to_owned()]).collect::<Vec<_>>().join("\n")
}

/// The SQL that gives a role the least rights that the daemon needs.
#[must_use]
pub fn grants(schema: &str, role: &str) -> String {
    let (schema, role) = (quoted(schema), quoted(role));
    let on_tables = tables()
        .into_iter()
        .map(|table| format!("GRANT {} ON {schema}.{} TO {role};", table.rights().join(", "), quoted(table.name())));
    let head = [
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
        format!("GRANT SELECT ON {schema}.{MIGRATION_TABLE} TO {role};"),
    ];
    head.into_iter().chain(on_tables).collect::<Vec<_>>().join("\n")
}

fn dialect(manager: &SchemaManager<'_>) -> Dialect {
    if manager.get_database_backend() == DbBackend::Sqlite { Dialect::Sqlite } else { Dialect::Postgres }
}
