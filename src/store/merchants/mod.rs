//! The registered merchants, their tokens, and what changes with their state.

pub mod credentials;
pub mod erased_customers;
pub mod global_pause;
pub mod registry;
pub mod status;
pub mod token_refresh;
pub mod tokens;
