//! Compares the tables that are there with those that the migrations made. Other programs and people alter them.

use std::collections::{HashMap, HashSet};

use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::dialect::Dialect;
use crate::store::Store;

/// Columns with their types, and whether a type is one of texts.
const POSTGRES_COLUMNS: &str = "SELECT CAST(c.relname AS text) AS table_name, CAST(a.attname AS text) AS column_name, \
    CAST(t.typname AS text) AS type, t.typcategory = 'S' AS is_text \
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_type t ON t.oid = a.atttypid \
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p')";
const SQLITE_COLUMNS: &str = "SELECT t.name AS table_name, c.name AS column_name, '' AS type, TRUE AS is_text \
    FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'";

/// Triggers that fire for every writer, and indexes that can be used.
const POSTGRES_OBJECTS: &str = "SELECT CAST(t.tgname AS text) AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND t.tgenabled = 'A' \
    UNION ALL SELECT CAST(c.relname AS text) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND i.indisvalid AND i.indisunique";
const SQLITE_OBJECTS: &str = "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'index')";

/// The tables and objects of the database.
#[derive(Debug, Default)]
struct Found {
    /// The type of each column of each table, and whether it is one of texts.
    tables: HashMap<String, HashMap<String, (String, bool)>>,
    objects: HashSet<String>,
}

impl Store {
    /// The parts of the schema that are missing or different, in words.
    pub(in crate::store) async fn damage(&self) -> Result<Vec<String>, DbErr> {
        let (columns, objects) = match self.dialect {
            Dialect::Postgres => (POSTGRES_COLUMNS, POSTGRES_OBJECTS),
            Dialect::Sqlite => (SQLITE_COLUMNS, SQLITE_OBJECTS),
        };
        let text = |row: &QueryResult, column: &str| row.try_get::<String>("", column);
        let mut found = Found::default();
        for row in &self.db.query_all_raw(self.statement(columns, [])).await? {
            let column = (text(row, "type")?, row.try_get("", "is_text")?);
            found.tables.entry(text(row, "table_name")?).or_default().insert(text(row, "column_name")?, column);
        }
        for row in &self.db.query_all_raw(self.statement(objects, [])).await? {
            found.objects.insert(text(row, "name")?);
        }
        Ok(migration::tables().iter().flat_map(|table| found.compare(table, self.dialect)).collect())
    }
}

impl Found {
    fn compare(&self, table: &migration::Table, dialect: Dialect) -> Vec<String> {
        let name = table.name();
        let Some(columns) = self.tables.get(name) else {
            return vec![format!("table {name} is missing")];
        };
        let of_columns = table.columns().filter_map(|(column, made_as)| match columns.get(column) {
            None => Some(format!("column {name}.{column} is missing")),
            Some((found, is_text)) if dialect == Dialect::Postgres && !fits(made_as, found, *is_text) => {
                Some(format!("column {name}.{column} has the type {found}, not {made_as}"))
            }
            Some(_) => None,
        });
        let trigger = table.trigger().map(|trigger| (trigger, "trigger", "is missing, or does not fire always"));
        let indexes = table.unique_indexes().map(|index| (index.to_owned(), "unique index", "is missing or invalid"));
        let is_missing = |(object, ..): &(String, &str, &str)| !self.objects.contains(object);
        let of_objects = trigger.into_iter().chain(indexes).filter(is_missing);
        of_columns.chain(of_objects.map(|(object, kind, state)| format!("{kind} {object} {state}"))).collect()
    }
}

/// Whether a column can be read and written as the one that was made. A platform may give a text another length.
fn fits(made_as: &str, found: &str, is_text: bool) -> bool {
    match made_as {
        "text" => is_text,
        "bigint" => found == "int8",
        "integer" => found == "int4",
        "smallint" => found == "int2",
        "boolean" => found == "bool",
        other => found == other,
    }
}
