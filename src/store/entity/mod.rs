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
