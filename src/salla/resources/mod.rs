//! The kinds of record: where each is, and how its rows become ours.

pub mod api_resource;
pub mod customers;
pub mod money;
pub mod order_items;
pub mod order_statuses;
pub mod orders;
pub mod privacy;
pub mod products;
pub mod row;
pub mod transform;
