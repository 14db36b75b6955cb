//! One kind of record: from what Salla lists to what the database holds.

pub mod details;
pub mod list_reader;
pub mod missing;
pub mod order_items;
pub mod pending_commit;
pub mod run_context;
pub mod time_slice;
