//! The tables as SeaORM entities, private to the store.

pub mod credential;
pub mod customer;
pub mod discrepancy;
pub mod merchant;
pub mod order;
pub mod order_status;
pub mod product;
pub mod run;
pub mod watermark;

use sea_orm::DbErr;

use crate::domain::UnknownValue;

/// A row in the application's terms.
pub fn read<Row, Shown>(row: Row) -> Result<Shown, DbErr>
where
    Shown: TryFrom<Row, Error = UnknownValue>,
{
    row.try_into().map_err(|error: UnknownValue| DbErr::Type(error.to_string()))
}
