//! The database: SeaORM on PostgreSQL or SQLite, one set of code. Sealed tokens are kept here, never
//! plain ones.

mod connection;
mod entity;
mod events;
mod limits;
mod merchants;
mod records;
mod reports;
mod runs;

use std::{collections::HashMap, sync::Arc, time::Duration};

use sea_orm::{Database, DatabaseConnection};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use self::{
    connection::{
        dialect::Dialect,
        disk_failure::DiskFailure,
        lock_wait::LockWait,
        pool::{self, AbortedBegins},
        probe,
        stale_plans::StalePlans,
    },
    records::platform::PlatformTable,
    runs::{queue_position::QueuePosition, unrecorded_waits::UnrecordedWaits},
};
use crate::domain::{Resource, Resources};
pub use connection::address::{PERCENT_ENCODE, is_readable, is_readable_file};
pub use connection::config::{Config, TargetConfig, TargetObjects};
pub use connection::setup_error::StoreError;
pub use events::outbox::EventSettings;
pub use events::publication::{published, unpublished};
pub use merchants::erased_customers::Which;
pub use merchants::registry::StoredTokens;
pub use records::{
    platform::ObjectName,
    platform_check::{PlatformNames, Trial},
    platform_columns::{PlatformColumn, PlatformColumns},
    stored::Stored,
};

/// The database. Cheap to clone; clones share the pool.
#[derive(Debug, Clone)]
pub struct Store {
    db: DatabaseConnection,
    dialect: Dialect,
    /// This process, by a name that no other process ever has.
    worker_id: Uuid,
    lease: Duration,
    /// Where PostgreSQL's tables are.
    schema: Arc<str>,
    /// The resources of a run that names none.
    resources: Resources,
    /// The target of each resource: the view of the platform.
    targets: Arc<HashMap<Resource, String>>,
    queue_position: QueuePosition,
    /// `None`: no events are sent.
    event_settings: Option<Arc<EventSettings>>,
    begins: AbortedBegins,
    stale_plans: StalePlans,
    disk_failure: DiskFailure,
    lock_wait: LockWait,
    unrecorded_waits: UnrecordedWaits,
    /// The tables of the platform that are reconciled instead of our own tables.
    platform: Arc<HashMap<Resource, PlatformTable>>,
}

impl Store {
    /// Connects. `schema`: where PostgreSQL's tables are. `lease`: how long a claim on a run lasts without renewal.
    ///
    /// # Errors
    /// When the URL names no database that is known, it does not answer, or a pooler before it does not keep sessions.
    pub async fn connect(
        url: &SecretString,
        schema: &str,
        connections: u32,
        lease: Duration,
    ) -> Result<Self, StoreError> {
        let (url, begins, stale_plans) = (url.expose_secret(), AbortedBegins::default(), StalePlans::default());
        let options = if url.starts_with("sqlite:") {
            pool::create_privately(url).map_err(|error| StoreError::Unreachable(error.to_string()))?;
            pool::sqlite(url)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let allowed = probe::connections(url).await?.unwrap_or(connections);
            if allowed < connections {
                tracing::warn!(allowed, wanted = connections, "the role has few connections: runs wait for each other");
            }
            pool::postgres(url, schema, connections.min(allowed), &begins, &stale_plans)
        } else {
            return Err(StoreError::Scheme);
        };
        let db = Database::connect(options).await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        Ok(Self {
            dialect: Dialect::of(db.get_database_backend()),
            db,
            schema: schema.into(),
            worker_id: Uuid::new_v4(),
            lease,
            resources: Resource::ALL.iter().copied().collect(),
            targets: Arc::default(),
            queue_position: QueuePosition::default(),
            event_settings: None,
            begins,
            stale_plans,
            disk_failure: DiskFailure::default(),
            lock_wait: LockWait::default(),
            unrecorded_waits: UnrecordedWaits::default(),
            platform: Arc::default(),
        })
    }

    /// The table of the platform that is reconciled instead of our own one.
    fn platform<R: Stored>(&self) -> Option<&PlatformTable> {
        self.platform.get(&R::RESOURCE)
    }

    /// The target that a watermark belongs to: the view of the platform, or nothing for our own table.
    fn target_of(&self, resource: Resource) -> String {
        self.targets.get(&resource).cloned().unwrap_or_default()
    }

    /// All targets, as a run stores them.
    fn targets_text(&self) -> String {
        let mut targets: Vec<String> =
            self.targets.iter().map(|(resource, view)| format!("{resource}={view}")).collect();
        targets.sort();
        targets.join(",")
    }

    /// Where the records stand that are compared, as a table of a statement.
    fn stored_source<R: Stored>(&self) -> String {
        self.platform::<R>().map_or_else(|| R::table().to_owned(), PlatformTable::source::<R>)
    }
}
