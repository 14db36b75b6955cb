//! The tables as SeaORM entities, private to the store.

use sea_orm::{EntityTrait, IdenStatic, Iterable};

pub mod credential;
pub mod customer;
pub mod discrepancy;
pub mod merchant;
pub mod order;
pub mod order_status;
pub mod product;
pub mod run;
pub mod watermark;

/// Each table that has an entity, with its columns.
pub fn columns() -> Vec<(&'static str, Vec<&'static str>)> {
    fn of<E: EntityTrait>() -> (&'static str, Vec<&'static str>) {
        let columns = E::Column::iter().map(|column| IdenStatic::as_str(&column)).collect();
        (IdenStatic::as_str(&E::default()), columns)
    }
    vec![
        of::<credential::Entity>(),
        of::<customer::Entity>(),
        of::<discrepancy::Entity>(),
        of::<merchant::Entity>(),
        of::<order::Entity>(),
        of::<order_status::Entity>(),
        of::<product::Entity>(),
        of::<run::Entity>(),
        of::<watermark::Entity>(),
    ]
}
