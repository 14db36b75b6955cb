//! The database itself: the pool, calls with patience, errors, migrations, and whether all of it can be used.

pub mod address;
pub mod calls;
pub mod config;
pub mod dialect;
pub mod disk_failure;
pub mod error;
pub mod lock_wait;
pub mod migrations;
pub mod pool;
pub mod probe;
pub mod schema_check;
pub mod setup_error;
pub mod stale_plans;
pub mod stamp;
