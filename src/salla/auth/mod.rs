//! Tokens: which one a request carries, how it is refreshed, and whose it is.

pub mod app_events;
pub mod backoff;
pub mod refresh;
pub mod refresh_loop;
pub mod salvage;
pub mod save_tokens;
pub mod token_endpoint;
mod usable_tokens;
pub mod user_info;
