//! Events of runs that ended, until they are delivered.

pub mod outbox;
pub mod publication;
