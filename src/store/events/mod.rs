//! Events of ended runs and written records, until they are delivered; the publication for CDC pipelines; and the audit.

mod add_events;
mod audit;
pub mod outbox;
pub mod publication;
