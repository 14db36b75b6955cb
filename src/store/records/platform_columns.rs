//! The columns of a table of the platform, from PostgreSQL's catalogue.

use sea_orm::{ConnectionTrait, DbErr};

use crate::{
    reconcile::ports::DatabaseError,
    store::{Store, connection::dialect::Dialect},
};

/// A column of a table of the platform.
#[derive(Debug, Clone)]
pub struct PlatformColumn {
    /// Without quotation marks.
    pub name: String,
    /// As PostgreSQL writes it, without a precision.
    pub data_type: String,
    /// It is NOT NULL.
    pub is_required: bool,
    /// The database gives it a value.
    pub has_default: bool,
    /// The labels of an enum.
    pub labels: Vec<String>,
    /// The database computes it, and no statement may set it.
    pub is_generated: bool,
}

/// A foreign key of one column.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The column that refers.
    pub column: String,
    /// The other table, as SQL writes it.
    pub table: String,
    /// The column that is referred to.
    pub key: String,
    /// All columns of the other table.
    pub columns: Vec<String>,
}

/// The columns and foreign keys of a table of the platform.
#[derive(Debug, Clone)]
pub struct PlatformColumns {
    /// The table with its schema, as SQL writes it.
    pub table: String,
    /// In their order.
    pub columns: Vec<PlatformColumn>,
    /// Of one column each.
    pub references: Vec<Reference>,
}

const COLUMNS: &str = "SELECT CAST(a.attname AS text) AS name, CAST(format_type(a.atttypid, NULL) AS text) AS data_type, \
    a.attnotnull AS is_required, (a.atthasdef OR a.attidentity <> '') AS has_default, (a.attgenerated <> '' OR a.attidentity = 'a') AS is_generated, \
    COALESCE((SELECT string_agg(e.enumlabel, chr(10) ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = a.atttypid), '') AS labels \
    FROM pg_attribute a WHERE a.attrelid = CAST(to_regclass($1) AS oid) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const TABLE: &str = "SELECT format('%I.%I', n.nspname, t.relname) AS name FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace \
    WHERE t.oid = CAST(to_regclass($1) AS oid)";

const REFERENCES: &str = "SELECT CAST(a.attname AS text) AS name, (SELECT format('%I.%I', n.nspname, t.relname) FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = c.confrelid) AS other, \
    CAST(k.attname AS text) AS key, \
    (SELECT string_agg(CAST(o.attname AS text), chr(10) ORDER BY o.attnum) FROM pg_attribute o \
     WHERE o.attrelid = c.confrelid AND o.attnum > 0 AND NOT o.attisdropped) AS columns \
    FROM pg_constraint c \
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] \
    JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = c.confkey[1] \
    WHERE c.conrelid = CAST(to_regclass($1) AS oid) AND c.contype = 'f' AND cardinality(c.conkey) = 1";

impl Store {
    /// The columns of a table, named as SQL writes it.
    ///
    /// # Errors
    /// When the database is not PostgreSQL, does not answer, or has no such table.
    pub async fn platform_columns(&self, table: &str) -> Result<PlatformColumns, DatabaseError> {
        if self.dialect != Dialect::Postgres {
            return Err(DatabaseError::Refused(
                "--table needs the PostgreSQL database of the platform in database.url".into(),
            ));
        }
        // The session only looks into the schema of this program.
        let is_qualified = table.split('"').step_by(2).any(|outside| outside.contains('.'));
        let qualified = if is_qualified { table.to_owned() } else { format!("public.{table}") };
        let table = qualified.as_str();
        let (name, columns, references) = self
            .call(|| async {
                let name = self.db.query_one_raw(self.statement(TABLE, [table.into()])).await?;
                let name: Option<String> = name.map(|row| row.try_get("", "name")).transpose()?;
                let columns = self.db.query_all_raw(self.statement(COLUMNS, [table.into()])).await?;
                let references = self.db.query_all_raw(self.statement(REFERENCES, [table.into()])).await?;
                let columns = columns.iter().map(|row| {
                    let labels: String = row.try_get("", "labels")?;
                    Ok(PlatformColumn {
                        name: row.try_get("", "name")?,
                        data_type: row.try_get("", "data_type")?,
                        is_required: row.try_get("", "is_required")?,
                        has_default: row.try_get("", "has_default")?,
                        is_generated: row.try_get("", "is_generated")?,
                        labels: labels.lines().map(str::to_owned).collect(),
                    })
                });
                let references = references.iter().map(|row| {
                    let columns: String = row.try_get("", "columns")?;
                    Ok(Reference {
                        column: row.try_get("", "name")?,
                        table: row.try_get("", "other")?,
                        key: row.try_get("", "key")?,
                        columns: columns.lines().map(str::to_owned).collect(),
                    })
                });
                Ok((name, columns.collect::<Result<Vec<_>, DbErr>>()?, references.collect::<Result<Vec<_>, DbErr>>()?))
            })
            .await?;
        let Some(name) = name else {
            let problem = format!("no table {table} is visible; write it as SQL does, such as public.\"Order\"");
            return Err(DatabaseError::Refused(problem.into()));
        };
        Ok(PlatformColumns { table: name, columns, references })
    }
}
