//! The composition: the only place, beside the command line, that knows every adapter.

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError},
    http::{self, Access, Api, Onboarding, RequestRate, WebhookSecret},
    reconcile::{Leases, Metrics, OnStop, ProgressSender, Pulse, Runner, Worker},
    salla::{self, SallaClient, WhenOpen},
    schedule::Schedule,
    store::Store,
    vault::{KeyRing, Vault},
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
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The key ring, which everything that reads or stores tokens needs.
///
/// # Errors
/// When `vault.keys` is missing or cannot be read.
pub fn key_ring(config: &Config) -> Result<KeyRing, ConfigError> {
    KeyRing::parse(&config.vault.keys).map_err(|error| {
        ConfigError::needed("vault.keys", &error.to_string(), "`salla-reconciler keys generate` prints a key")
    })
}

/// Connects to the database, and brings its schema up to date or insists that somebody did.
///
/// # Errors
/// When it does not answer, or its schema cannot be used.
pub async fn open_store(config: &Config) -> anyhow::Result<Store> {
    // Merchants wait for Salla most of the time, so a few connections serve many; some are for people.
    let connections = config.reconcile.concurrency.div_ceil(2).clamp(4, 32) + 4;
    let store = Store::connect(&config.database.url, connections, config.reconcile.lease).await?;
    if config.database.migrate {
        store.migrate().await?;
    } else {
        store.require_schema().await?;
    }
    Ok(store)
}

impl Services {
    /// Connects and composes. `when_open`: what runs do while Salla does not answer.
    ///
    /// # Errors
    /// When a setting is missing, or the database cannot be used.
    pub async fn build(config: &Config, when_open: WhenOpen) -> anyhow::Result<Self> {
        let ring = Arc::new(key_ring(config)?);
        let store = open_store(config).await?;
        let metrics = Arc::new(Metrics::new()?);
        let vault = Vault::new(ring, store.clone());
        let salla = Arc::new(SallaClient::new(
            &config.salla,
            config.reconcile.page_size,
            when_open,
            (Arc::new(vault.clone()), store.clone()),
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
            policy: config.reconcile.policy(),
            max_disappeared: config.reconcile.max_disappeared,
            metrics: Arc::clone(&self.metrics),
            progress,
            leases: Leases::default(),
            longest_pause: config.salla.max_retry_after,
            on_stop,
        }
    }
}

/// Takes the address.
///
/// # Errors
/// When another program has it, or it is not this machine's.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    TcpListener::bind(address).await.with_context(|| {
        format!("http.listen: {address} cannot be bound; end the program that has it, or set another (port 0 takes a free one)")
    })
}

/// The daemon: schedule, worker and HTTP server, until `stop` resolves; then an orderly end within the
/// grace.
///
/// # Errors
/// When the HTTP server or the schedule fails.
pub async fn serve(
    config: &Config,
    services: Services,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let (wake, pulse) = (Arc::new(Notify::new()), Pulse::default());
    let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
    let access = Access::new(&config.http, address.ip())?;
    if access.is_closed() {
        tracing::warn!(http.listen = %address, "no token is set and others than this machine might connect: runs, merchants and reports answer 403; set http.api_tokens");
    }
    let api = Arc::new(Api {
        ledger: services.store.clone(),
        metrics: Arc::clone(&services.metrics),
        access,
        rate: RequestRate::new(config.http.requests_per_second),
        wake: Arc::clone(&wake),
        pulse: pulse.clone(),
        draining: draining.clone(),
    });
    let onboarding = Arc::new(Onboarding {
        register: services.vault.clone(),
        metrics: Arc::clone(&services.metrics),
        webhook_secret: WebhookSecret::new([&config.salla.webhook_secret, &config.salla.client_secret]),
        read_event: salla::read_event,
    });
    let runner = services.runner(config, ProgressSender::default(), OnStop::GiveBack);
    let (leases, ledger, pause) = (runner.leases.clone(), services.store.clone(), config.reconcile.lease / 4);
    let heart = closing.clone();
    let heartbeat = tokio::spawn(async move { leases.keep(&ledger, pause, &heart).await });
    let worker = Worker { runner, concurrency: config.reconcile.concurrency as usize, wake: Arc::clone(&wake), pulse };
    let schedule = Schedule::new(&config.schedule, services.store.clone(), config.retention.runs);

    let (salla, stop_keeping) = (Arc::clone(&services.salla), draining.clone());
    // Without the app's own name no token can be renewed.
    let keeper = (!config.salla.client_id.is_empty())
        .then(|| tokio::spawn(async move { salla.keep_tokens(&stop_keeping).await }));
    let mut server = tokio::spawn(http::serve(listener, api, onboarding, closing.clone()));
    let worker = tokio::spawn(worker.work(draining.clone()));
    let mut schedule = tokio::spawn(schedule.keep(draining.clone(), move || wake.notify_one()));
    tracing::info!(http.listen = %address, database = services.store.engine(), version = env!("CARGO_PKG_VERSION"), "serving");

    let failed = tokio::select! {
        () = stop => None,
        ended = &mut server => Some(format!("the HTTP server ended: {ended:?}")),
        ended = &mut schedule => Some(format!("the schedule ended: {ended:?}")),
    };
    tracing::info!(grace = %humantime::format_duration(config.shutdown.grace), "shutting down");
    draining.cancel();
    let deadline = Instant::now() + config.shutdown.grace;
    let in_time = timeout_at(deadline, async {
        // Beside each other: a refresh that is under way need not wait for the runs.
        let (worker, ()) = tokio::join!(worker, services.salla.drain());
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
        // A run that was on its way out may have begun one since.
        services.salla.drain().await;
        worker
    })
    .await;
    closing.cancel();
    match in_time {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = %error, "the worker died"),
        Err(_) => tracing::warn!("the grace is over; what still runs will be taken up again when its lease lapses"),
    }
    end(server, deadline).await;
    heartbeat.abort();
    if timeout_at(deadline, services.store.close()).await.is_err() {
        tracing::warn!("the database connections could not be closed in time");
    }
    tracing::info!("ended");
    failed.map_or(Ok(()), |what| Err(anyhow::anyhow!(what)))
}

/// Lets the server answer what it was asked, as long as there is time.
async fn end<T>(server: JoinHandle<T>, deadline: Instant) {
    if server.is_finished() {
        return;
    }
    let abort = server.abort_handle();
    if timeout_at(deadline, server).await.is_err() {
        abort.abort();
    }
}
