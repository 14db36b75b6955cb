//! The database: SeaORM on PostgreSQL or SQLite, one set of code. Sealed tokens are kept here, never
//! plain ones.

mod audit;
mod budget;
mod checks;
mod claims;
mod commit;
mod config;
mod connect;
mod credentials;
mod customers;
mod dialect;
mod discrepancies;
mod drift;
mod entity;
mod erasures;
mod error;
mod fence;
mod finish;
mod frontier;
mod idempotency;
mod ledger;
mod lines;
mod merchants;
mod order_statuses;
mod orders;
mod outbox;
mod overview;
mod pauses;
mod pool;
mod products;
mod publication;
mod queries;
mod queue;
mod records;
mod renewal;
mod schedule;
mod slices;
mod standing;
mod standstill;
mod take;

pub use config::Config;
pub use connect::{Store, StoreError};
pub use erasures::Which;
pub use merchants::StoredTokens;
pub use publication::{UNPUBLISHED, published};
pub use records::Stored;
