//! Events of ended runs and written records, until they are delivered, and the publication for CDC pipelines.

mod add_events;
pub mod outbox;
pub mod publication;
