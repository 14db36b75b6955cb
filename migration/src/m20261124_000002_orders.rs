//! The orders. Another program writes them too and knows only the columns without a mark; every column
//! of ours has a default.
//!
//! `fingerprint` is a hash of the very content beside it. A writer that does not maintain it must not
//! leave an old one standing, so a trigger takes it away from a row that changed without it.

use sea_orm_migration::prelude::*;

use crate::columns::Columns;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

const POSTGRES_TRIGGER: &str = r"
CREATE FUNCTION orders_distrust_fingerprint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.fingerprint := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER orders_distrust_fingerprint BEFORE UPDATE ON orders FOR EACH ROW
    WHEN (NEW.fingerprint IS NOT NULL AND NEW.revision = OLD.revision)
    EXECUTE FUNCTION orders_distrust_fingerprint();
";

const SQLITE_TRIGGER: &str = r"
CREATE TRIGGER orders_distrust_fingerprint AFTER UPDATE ON orders FOR EACH ROW
    WHEN NEW.fingerprint IS NOT NULL AND NEW.revision = OLD.revision
BEGIN
    UPDATE orders SET fingerprint = NULL WHERE id = NEW.id;
END;
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    /// All of it or nothing, on SQLite too.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = Columns::of(manager);
        manager
            .create_table(
                Table::create()
                    .table("orders")
                    .col(ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key())
                    .col(ColumnDef::new("merchant_id").big_integer().not_null())
                    .col(ColumnDef::new("salla_order_id").big_integer().not_null())
                    .col(ColumnDef::new("reference_id").big_integer())
                    .col(ColumnDef::new("status").text())
                    .col(ColumnDef::new("currency").text())
                    .col(columns.exact("total_amount"))
                    .col(columns.instant("salla_created_at"))
                    .col(columns.instant("salla_updated_at"))
                    .col(columns.json("payload"))
                    .col(columns.instant("deleted_at"))
                    // Ours: the content's hash, how often we wrote the row, and when it came and changed.
                    .col(ColumnDef::new("fingerprint").text())
                    .col(ColumnDef::new("revision").big_integer().not_null().default(0))
                    .col(columns.instant("created_at").not_null().default(columns.now()))
                    .col(columns.instant("updated_at").not_null().default(columns.now()))
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .unique()
                    .name("orders_merchant_id_salla_order_id_key")
                    .table("orders")
                    .col("merchant_id")
                    .col("salla_order_id")
                    .to_owned(),
            )
            .await?;
        let trigger = if columns.is_sqlite() { SQLITE_TRIGGER } else { POSTGRES_TRIGGER };
        manager.get_connection().execute_unprepared(trigger).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("orders").to_owned()).await?;
        if !Columns::of(manager).is_sqlite() {
            manager.get_connection().execute_unprepared("DROP FUNCTION orders_distrust_fingerprint()").await?;
        }
        Ok(())
    }
}
