//! The composition: the only place, beside the command line, that knows every adapter.

mod daemon;
mod erasure;
mod supervisor;

use std::sync::Arc;

pub use daemon::{bind, openapi, serve};
pub use erasure::{Rewritten, erase, redact};
use secrecy::ExposeSecret;

use crate::{
    config::{Config, ConfigError},
    outbox,
    reconcile::{Leases, Metrics, OnStop, ProgressSender, Runner},
    salla::{OnOpenCircuit, Privacy, ReadOptions, SallaClient},
    store::{EventSettings, Store, StoreError, Trial},
    vault::{Choice, KeyRing, KeyRingError, TokenBackends, Vault},
};

/// Salla as this program sees it.
pub type Salla = SallaClient<Vault<Store>>;

/// Everything that a command needs of the outside.
#[derive(Debug, Clone)]
pub struct Services {
    /// The database.
    pub store: Store,
    /// Its tokens.
    pub vault: Vault<Store>,
    /// Salla.
    pub salla: Arc<Salla>,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
}

/// Who seals and opens tokens, which everything needs that reads or stores some.
///
/// # Errors
/// When keys seal and `vault.keys` is missing, or when it cannot be read.
pub fn backends(config: &Config) -> Result<TokenBackends, ConfigError> {
    if config.vault.backend == Choice::Local {
        KeyRing::parse(&config.vault.keys).map_err(|error| about_keys(&error))?;
    }
    backends_at_hand(config)
}

/// The same for what may do without: nothing is sealed or opened under keys that are not given.
///
/// # Errors
/// When `vault.keys` cannot be read.
pub fn backends_at_hand(config: &Config) -> Result<TokenBackends, ConfigError> {
    TokenBackends::new(&config.vault).map_err(|error| about_keys(&error))
}

fn about_keys(error: &KeyRingError) -> ConfigError {
    ConfigError::needed("vault.keys", &error.to_string(), "`salla-reconciler keys generate --id NAME` prints a key")
}

/// Connects to the database, and brings its schema up to date or insists that somebody did.
///
/// # Errors
/// When it does not answer, or its schema cannot be used.
pub async fn open_store(config: &Config) -> anyhow::Result<Store> {
    // Merchants wait for Salla most of the time, so a few connections serve many; some are for people.
    let connections = config.reconcile.concurrency.div_ceil(2).clamp(4, 32) + 4;
    let store =
        Store::connect(&config.database.url, &config.database.schema, connections, config.reconcile.lease).await?;
    let store = store.with_resources_and_targets(config.reconcile.resources, config.platform_names());
    if config.database.migrate {
        migrate(config, &store).await?;
    } else {
        store.require_schema().await?;
        if let Some(publication) = named(&config.cdc.publication) {
            store.require_publication(publication).await?;
        }
    }
    if config.cdc.webhook_url.expose_secret().is_empty() {
        return Ok(store);
    }
    Ok(store.with_events(event_settings(&config.cdc)))
}

/// Which events are sent, and what each waits for.
#[must_use]
pub fn event_settings(cdc: &outbox::Config) -> EventSettings {
    let slot = named(&cdc.slot).map(str::to_owned);
    EventSettings { scope: cdc.events, skip_unchanged: cdc.skip_unchanged, slot }
}

/// Brings the schema up to date, and what is published of it.
///
/// # Errors
/// When the database refuses.
pub async fn migrate(config: &Config, store: &Store) -> Result<(), StoreError> {
    store.migrate().await?;
    match named(&config.cdc.publication) {
        Some(publication) => store.keep_publication(publication).await,
        None => Ok(()),
    }
}

/// The SQL of what [`migrate`] would do.
///
/// # Errors
/// When the database does not answer, or the publication shows tables that must stay private.
pub async fn migration_sql(config: &Config, store: &Store) -> Result<String, StoreError> {
    let mut sql = store.pending_sql().await?;
    if let Some(name) = named(&config.cdc.publication)
        && let Some(publication) = store.publication_sql(name).await?
    {
        let separator = if sql.is_empty() { "" } else { "\n" };
        sql = format!("{sql}{separator}{publication};");
    }
    Ok(sql)
}

fn named(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

impl Services {
    /// Connects the services. `when_open`: the behaviour of runs while Salla does not answer.
    ///
    /// # Errors
    /// When a setting is missing, or the database cannot be used.
    pub async fn build(config: &Config, when_open: OnOpenCircuit) -> anyhow::Result<Self> {
        let backends = backends(config)?;
        let store = open_store(config).await?.with_platform_tables(config.platform_names()).await?;
        for (resource, trial) in store.try_platform_tables().await {
            match trial {
                Trial::Usable(found) => tracing::info!("target.{resource}: {found}"),
                Trial::Suspicious(found) => tracing::warn!("target.{resource}: {found}"),
                // One record says little about the others: each run shows which ones fail.
                Trial::Refused(problem) => tracing::error!("target.{resource}: {problem}"),
                Trial::Failed(problem) => return Err(StoreError::Target(resource, problem).into()),
            }
        }
        Self::with_store(config, backends, store, when_open)
    }

    /// The same with a store that is connected already.
    ///
    /// # Errors
    /// When the TLS of this machine cannot be set up.
    pub fn with_store(
        config: &Config,
        backends: TokenBackends,
        store: Store,
        when_open: OnOpenCircuit,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let vault = Vault::new(backends, store.clone());
        let salla = Arc::new(SallaClient::new(
            &config.salla,
            ReadOptions {
                page_size: config.reconcile.page_size,
                privacy: Privacy::new(&config.privacy),
                order_items: config.reconcile.order_items,
            },
            when_open,
            Arc::new(vault.clone()),
            Arc::new(store.clone()),
            Arc::clone(&metrics),
        )?);
        Ok(Self { store, vault, salla, metrics })
    }

    /// What executes runs.
    #[must_use]
    pub fn runner(&self, config: &Config, progress: ProgressSender, on_stop: OnStop) -> Runner<Salla, Store> {
        Runner {
            source: Arc::clone(&self.salla),
            store: self.store.clone(),
            resources: config.reconcile.resources,
            policy: config.reconcile.policy(),
            max_deletion_ratio: config.reconcile.max_deletion_ratio,
            detail_checks: config.reconcile.detail_check_nights,
            metrics: Arc::clone(&self.metrics),
            progress,
            leases: Leases::default(),
            longest_pause: config.salla.max_retry_after,
            slice: config.reconcile.time_slice,
            on_stop,
        }
    }
}
