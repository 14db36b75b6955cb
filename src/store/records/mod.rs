//! The records of Salla as they are stored: read, written, and what is remembered of each.

pub mod customers;
pub mod detail_checks;
pub mod discrepancies;
pub mod lookup;
pub mod order_items;
pub mod order_statuses;
pub mod orders;
pub mod platform;
pub mod platform_check;
pub mod platform_columns;
pub mod platform_deletions;
pub mod products;
pub mod rotation;
pub mod sorted_list;
pub mod stored;
pub mod write;
