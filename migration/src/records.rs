//! What the tables of records have in common. Another program writes them too and knows only Salla's columns; every
//! column of ours has a default.
//!
//! `fingerprint` is a hash of the very content beside it. A writer that does not maintain it must not leave an old one
//! standing, so a trigger takes it away from a row that changed without it.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

/// Makes the table of a kind of record, with columns of its `own`; Salla's id of one stands in `id`, unique within a
/// merchant.
pub async fn create(
    manager: &SchemaManager<'_>,
    table: &'static str,
    id: &'static str,
    own: impl IntoIterator<Item = ColumnDef>,
) -> Result<(), DbErr> {
    let columns = Columns::of(manager);
    let mut create = Table::create();
    create
        .table(table)
        .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
        .col(ColumnDef::new("merchant_id").big_integer().not_null())
        .col(ColumnDef::new(id).big_integer().not_null());
    for column in own {
        create.col(column);
    }
    create
        .col(columns.instant("salla_updated_at"))
        .col(columns.json("payload"))
        .col(columns.instant("deleted_at"))
        // Ours: the content's hash, how often we wrote the row, and when it came and changed.
        .col(ColumnDef::new("fingerprint").text())
        .col(ColumnDef::new("revision").big_integer().not_null().default(0))
        .col(columns.instant("created_at").not_null().default(columns.now()))
        .col(columns.instant("updated_at").not_null().default(columns.now()));
    manager.create_table(create).await?;
    let mut unique = Index::create();
    unique.unique().name(format!("{table}_merchant_id_{id}_key")).table(table).col("merchant_id").col(id);
    manager.create_index(unique).await?;
    manager.get_connection().execute_unprepared(&distrust(columns, table)).await?;
    Ok(())
}

/// Drops it.
pub async fn drop(manager: &SchemaManager<'_>, table: &'static str) -> Result<(), DbErr> {
    manager.drop_table(Table::drop().table(table).to_owned()).await?;
    if !Columns::of(manager).is_sqlite() {
        let function = format!("DROP FUNCTION {table}_distrust_fingerprint()");
        manager.get_connection().execute_unprepared(&function).await?;
    }
    Ok(())
}

fn distrust(columns: Columns, table: &str) -> String {
    let name = format!("{table}_distrust_fingerprint");
    if columns.is_sqlite() {
        return format!(
            "CREATE TRIGGER {name} AFTER UPDATE ON {table} FOR EACH ROW
                 WHEN NEW.fingerprint IS NOT NULL AND NEW.revision = OLD.revision
             BEGIN
                 UPDATE {table} SET fingerprint = NULL WHERE id = NEW.id;
             END;"
        );
    }
    format!(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             NEW.fingerprint := NULL;
             RETURN NEW;
         END
         $$;
         CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW
             WHEN (NEW.fingerprint IS NOT NULL AND NEW.revision = OLD.revision)
             EXECUTE FUNCTION {name}();"
    )
}
