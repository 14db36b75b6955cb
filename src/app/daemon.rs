//! `serve`: what runs side by side, and its orderly end.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Services, supervisor::Supervisor};
use crate::{
    config::Config,
    dashboard::{self, DashboardState},
    http::{self, Access, Api, LogLimit, Onboarding, ReadToken, RequestRate, WebhookSecret},
    outbox::{Relay, Webhook},
    reconcile::{
        Liveness, OnStop, ProgressSender, Worker,
        ports::{Action, Audit, CredentialError},
    },
    salla::{self, UserInfo},
    schedule::Schedule,
    store::Store,
    vault::{OwnerCheckedRegister, Vault},
};

/// The channels between the parts of the daemon.
#[derive(Debug, Clone, Default)]
struct Signals {
    /// There are runs in the queue.
    wake: Arc<Notify>,
    /// The background tasks make progress.
    liveness: Liveness,
    /// Begin nothing new.
    draining: CancellationToken,
    /// Nothing is left to be done.
    closing: CancellationToken,
}

/// The API's document.
#[must_use]
pub fn openapi() -> String {
    http::document::<Store, Vault<Store>>()
}

/// Takes the address.
///
/// # Errors
/// When another program has it, or it is not this machine's.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    TcpListener::bind(address).await.with_context(|| {
        format!("http.listen: {address} cannot be bound; stop the program that uses it, or set another address (`http.listen`; `--listen` for the demo; port 0 selects a free port)")
    })
}

/// The daemon: schedule, worker and HTTP server, until `stop` resolves; then an orderly end within the
/// grace.
///
/// # Errors
/// When the HTTP server or a background task ends.
pub async fn serve(
    config: &Config,
    services: Services,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let signals = Signals::default();
    let (api, onboarding) = (api(config, &services, address, &signals)?, onboarding(config, &services)?);
    let mut tasks = Supervisor::new(signals.liveness.clone());
    let mut renewal = Supervisor::new(signals.liveness.clone());
    work(config, &services, &signals, &mut tasks, &mut renewal);
    keep_tokens(config, &services, &signals, &mut tasks);
    relay(config, &services, &signals, &mut tasks)?;
    keep_schedule(config, &services, &signals, &mut tasks);
    let pages = dashboard::router(DashboardState {
        api: Arc::clone(&api),
        onboarding: Arc::clone(&onboarding),
        zone: config.schedule.timezone,
    });
    let mut server = tokio::spawn(http::serve(listener, api, onboarding, pages, signals.closing.clone()));
    tracing::info!(http.listen = %address, database = services.store.engine(), version = env!("CARGO_PKG_VERSION"), "serving");

    let failed = tokio::select! {
        () = stop => None,
        ended = &mut server => Some(format!("the HTTP server ended: {ended:?}")),
        what = tasks.failed() => Some(what),
        what = renewal.failed() => Some(what),
    };
    if let Some(what) = &failed {
        tracing::error!(task = what, "a background task ended; the process ends");
    }
    tracing::info!(grace = %humantime::format_duration(config.shutdown.grace), "shutting down");
    signals.draining.cancel();
    let deadline = Instant::now() + config.shutdown.grace;
    let in_time = timeout_at(deadline, async {
        // Concurrently: a running refresh need not wait for the runs.
        let (drained, ()) = tokio::join!(tasks.drained(), services.salla.drain());
        // A run that was on its way out may have begun one since.
        services.salla.drain().await;
        drained
    })
    .await;
    signals.closing.cancel();
    match in_time {
        Ok(Ok(())) => {}
        Ok(Err(what)) => tracing::error!(task = what, "a background task failed during the shutdown"),
        Err(_) => tracing::warn!("shutdown.grace is over; remaining runs continue elsewhere when their leases expire"),
    }
    let cut_short = services.salla.refreshes_under_way();
    if cut_short > 0 {
        tracing::error!(
            refreshes = cut_short,
            "shutdown.grace is over; new tokens are not stored, and their merchants may have to install the app again"
        );
    }
    end(server, deadline).await;
    drop(renewal);
    if timeout_at(deadline, services.store.close()).await.is_err() {
        tracing::warn!("the database connections could not be closed in time");
    }
    tracing::info!("ended");
    failed.map_or(Ok(()), |what| Err(anyhow::anyhow!(what)))
}

/// What the handlers of runs and reports need.
fn api(
    config: &Config,
    services: &Services,
    address: SocketAddr,
    signals: &Signals,
) -> anyhow::Result<Arc<Api<Store>>> {
    let access = Access::new(&config.http, address.ip())?;
    if access.is_closed() {
        tracing::warn!(http.listen = %address, "no API token is set and the listener is not on loopback: the API answers 403; set http.api_tokens");
    }
    Ok(Arc::new(Api {
        store: services.store.clone(),
        metrics: Arc::clone(&services.metrics),
        access,
        rate: RequestRate::new(config.http.requests_per_second),
        anonymous_rate: RequestRate::new(config.http.requests_per_second),
        wake: Arc::clone(&signals.wake),
        liveness: signals.liveness.clone(),
        draining: signals.draining.clone(),
        probing: Semaphore::new(http::PROBES_AT_ONCE),
        scraping: Semaphore::new(http::PROBES_AT_ONCE),
        not_ready: LogLimit::default(),
        not_scraped: LogLimit::default(),
    }))
}

/// The register, which refuses tokens of other merchants.
type Register = OwnerCheckedRegister<Vault<Store>, UserInfo>;

/// The state of the handlers for merchants and app events.
fn onboarding(config: &Config, services: &Services) -> anyhow::Result<Arc<Onboarding<Register>>> {
    Ok(Arc::new(Onboarding {
        register: OwnerCheckedRegister::new(services.vault.clone(), Arc::new(UserInfo::new(&config.salla)?)),
        metrics: Arc::clone(&services.metrics),
        webhook_secret: WebhookSecret::new([&config.salla.webhook_secret, &config.salla.client_secret]),
        read_event: salla::read_event,
        read_token: token_reader(services),
        unsigned: LogLimit::default(),
    }))
}

/// Shows tokens to other programs of the platform, once the audit has recorded the caller.
fn token_reader(services: &Services) -> ReadToken {
    let (salla, store) = (Arc::clone(&services.salla), services.store.clone());
    ReadToken::new(move |merchant, by| {
        let (salla, store) = (Arc::clone(&salla), store.clone());
        async move {
            let tokens = salla.tokens(merchant).await?;
            let audit = Audit::of_merchant(&by, Action::MerchantTokenRead, merchant, serde_json::json!({}));
            store.note(&audit).await.map_err(CredentialError::from)?;
            Ok(tokens)
        }
    })
}

/// The worker, and the task that renews its leases until nothing is left to be done.
fn work(config: &Config, services: &Services, signals: &Signals, tasks: &mut Supervisor, renewal: &mut Supervisor) {
    let runner = services.runner(config, ProgressSender::default(), OnStop::Release);
    let (leases, store, pause) = (runner.leases.clone(), services.store.clone(), config.reconcile.lease / 4);
    let (closing, heartbeat) = (signals.closing.clone(), signals.liveness.watch("the lease renewal"));
    renewal.spawn("the lease renewal", async move { leases.keep(&store, pause, &heartbeat, &closing).await });
    let worker = Worker {
        runner,
        concurrency: config.reconcile.concurrency as usize,
        wake: Arc::clone(&signals.wake),
        heartbeat: signals.liveness.watch("the worker"),
    };
    tasks.spawn("the worker", worker.work(signals.draining.clone()));
}

/// Makes runs of the schedule, and removes old ones.
fn keep_schedule(config: &Config, services: &Services, signals: &Signals, tasks: &mut Supervisor) {
    let schedule = Schedule::new(&config.schedule, services.store.clone(), config.retention.runs);
    let (wake, draining, heartbeat) =
        (Arc::clone(&signals.wake), signals.draining.clone(), signals.liveness.watch("the schedule"));
    tasks.spawn("the schedule", async move {
        if let Err(error) = schedule.keep(draining, heartbeat, move || wake.notify_one()).await {
            tracing::error!(error = %error, "the schedule failed");
        }
    });
}

/// Renews tokens ahead of their end; without the app's own name none can be.
fn keep_tokens(config: &Config, services: &Services, signals: &Signals, tasks: &mut Supervisor) {
    let (salla, draining) = (Arc::clone(&services.salla), signals.draining.clone());
    if !config.salla.client_id.is_empty() {
        let heartbeat = signals.liveness.watch("the token refresh loop");
        tasks.spawn("the token refresh loop", async move { salla.keep_tokens(&heartbeat, &draining).await });
    }
}

/// Delivers the events of runs that ended well, where a receiver is named.
fn relay(config: &Config, services: &Services, signals: &Signals, tasks: &mut Supervisor) -> anyhow::Result<()> {
    let (outbox, metrics) = (services.store.clone(), Arc::clone(&services.metrics));
    if let Some(webhook) = Webhook::new(&config.cdc)? {
        let heartbeat = signals.liveness.watch("the event delivery");
        let relay = Relay { outbox, webhook, metrics, heartbeat };
        tasks.spawn("the event delivery", relay.keep(signals.draining.clone()));
    }
    Ok(())
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
