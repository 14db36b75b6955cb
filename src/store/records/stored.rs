//! The table of a kind of record.

use sea_orm::{EntityName, EntityTrait, IdenStatic, QueryResult, sea_query::Expr};

use crate::{domain::Record, store::connection::dialect::Dialect};

/// A kind of record that has a table here.
///
/// Beside its own columns, each table has `merchant_id`, `salla_updated_at`,
/// `payload`, `deleted_at`, `content_hash`, `payload_hash`, `revision`, `created_at` and `updated_at`.
pub trait Stored: Record {
    /// Its table.
    type Entity: EntityTrait;

    /// Where Salla's id stands, unique within a merchant.
    const ID: <Self::Entity as EntityTrait>::Column;

    /// Where it stands when it was created, if that is known.
    const CREATED_AT: Option<<Self::Entity as EntityTrait>::Column>;

    /// The column with the version of the items, if the kind has items.
    const ITEMS_VERSION: Option<<Self::Entity as EntityTrait>::Column> = None;

    /// The columns of this kind only, in the order of [`Stored::values`].
    const COLUMNS: &'static [<Self::Entity as EntityTrait>::Column];

    /// The table's name.
    #[must_use]
    fn table() -> &'static str {
        Self::Entity::default().table_name()
    }

    /// The name of [`Stored::ID`].
    #[must_use]
    fn id_column() -> &'static str {
        Self::ID.as_str()
    }

    /// The columns with personal data.
    const PERSONAL: &'static [<Self::Entity as EntityTrait>::Column] = &[];

    /// The values that are written into these columns.
    fn values(&self, dialect: Dialect) -> Vec<Expr>;

    /// The expressions that are read for these columns, with their names.
    fn selected(dialect: Dialect) -> Vec<(Expr, &'static str)>;

    /// The columns of a row that was read. Other programs also write these columns. A value that the type cannot hold
    /// reads as NULL.
    fn columns_of(row: &QueryResult) -> Self::Columns;
}
