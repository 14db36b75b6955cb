//! Column types that the two databases spell differently.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// Which words a database uses.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    sqlite: bool,
}

impl Columns {
    pub fn of(manager: &SchemaManager<'_>) -> Self {
        Self { sqlite: manager.get_database_backend() == DbBackend::Sqlite }
    }

    pub fn is_sqlite(self) -> bool {
        self.sqlite
    }

    fn pick(self, postgres: &'static str, sqlite: &'static str) -> Alias {
        Alias::new(if self.sqlite { sqlite } else { postgres })
    }

    /// An exact decimal. SQLite's `NUMERIC` turns text into floats, so there it is text.
    pub fn exact(self, column: &str) -> ColumnDef {
        self.custom(column, "numeric", "decimal_text")
    }

    /// A UTC instant; in SQLite, text in RFC 3339.
    pub fn instant(self, column: &str) -> ColumnDef {
        self.custom(column, "timestamptz", "timestamp_text")
    }

    /// A JSON document.
    pub fn json(self, column: &str) -> ColumnDef {
        self.custom(column, "jsonb", "jsonb_text")
    }

    /// A position in PostgreSQL's log of changes.
    pub fn lsn(self, column: &str) -> ColumnDef {
        self.custom(column, "pg_lsn", "text")
    }

    /// The database's clock, as the default of an instant.
    pub fn now(self) -> Expr {
        if self.sqlite { Expr::cust("(strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))") } else { Expr::cust("now()") }
    }

    fn custom(self, column: &str, postgres: &'static str, sqlite: &'static str) -> ColumnDef {
        let mut definition = ColumnDef::new(Alias::new(column));
        definition.custom(self.pick(postgres, sqlite));
        definition
    }
}
