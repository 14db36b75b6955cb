//! `check`: one line per part of the installation, with the next step if it fails.

mod integrations;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use secrecy::ExposeSecret;

use self::report::Report;
use super::{Exit, database_place::database_place, keys::KeyUsage};
use crate::{
    app::{self, Services, backends},
    config::{Config, ConfigError},
    domain::{MerchantId, MerchantState},
    error_text::causes,
    reconcile::ports::{DatabaseError, GlobalPause, RunHistory, RunQueue, ScheduleStore},
    salla::{OnOpenCircuit, ProbeSettings, Recording, plain_client},
    schedule::Calendar,
    store::Store,
    vault::Vault,
};

/// More than this between the clocks of Salla and of the database is worth a word.
const SKEW: TimeDelta = TimeDelta::seconds(30);

/// What to check, and how to show it.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Also probe the live store of this merchant, read-only, with at most 25 requests.
    #[arg(long, value_name = "ID")]
    merchant: Option<i64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Write the answers of the probe to this file, without personal values, tokens and free text: for a bug report.
    #[arg(long, value_name = "FILE", requires = "merchant")]
    record: Option<PathBuf>,
}

/// Looks at everything; 78 when the configuration itself is wrong.
pub async fn check(config: Result<Config, ConfigError>, args: &Args) -> anyhow::Result<Exit> {
    let mut config = config?;
    let mut report = Report::new(args.json);
    report.line("configuration", Ok("every key is known and every value can be used".to_owned()));
    modes(&mut config, &mut report);
    let backends = backends(&config);
    let key_problem = backends.as_ref().err().cloned();
    let mut database_clock = None;
    let mut services = None;
    let mut needs_refresh = false;
    match Store::connect(&config.database.url, &config.database.schema, 2, config.reconcile.lease).await {
        Err(error) => report.line("database", Err(error.to_string())),
        Ok(store) => {
            let schema_fits = report_database(&config, &store, &mut report).await;
            database_clock = store.now().await.ok();
            needs_refresh = schema_fits && store.has_refresh_tokens().await.unwrap_or(true);
            match backends {
                Ok(_) if !schema_fits => {
                    report.line("vault", Err("not checked: the schema cannot be used".to_owned()));
                }
                Ok(backends) => {
                    report.line("vault", tokens(&Vault::new(backends, store.clone()), &store).await);
                    report.line("merchants", register(&store).await);
                    report.line("schedule", schedule(&config, &store).await);
                    integrations::check(&config, &store, &mut report).await;
                }
                Err(error) => report.line("vault", Err(error.to_string())),
            }
            if schema_fits && args.merchant.is_some() && key_problem.is_none() {
                let backends = app::backends(&config)?;
                services = Some(Services::with_store(&config, backends, store.clone(), OnOpenCircuit::Fail)?);
            }
            if services.is_none() {
                store.close().await?;
            }
        }
    }
    report_token_refresh(&config, needs_refresh, &mut report);
    salla(&config, database_clock, &mut report).await;
    if let Some(id) = args.merchant {
        match &services {
            Some(services) => probe(&config, services, MerchantId(id), args, &mut report).await?,
            None => report.line("probe", Err("not asked: the database or the vault cannot be used".to_owned())),
        }
    }
    if let Some(services) = services {
        services.store.close().await?;
    }
    report.end(key_problem.is_none());
    Ok(match (key_problem, report.bad) {
        (Some(_), _) => Exit::Configuration,
        (None, true) => Exit::Failure,
        (None, false) => Exit::Success,
    })
}

/// Reports on the database and its schema, and returns whether the schema can be used.
async fn report_database(config: &Config, store: &Store, report: &mut Report) -> bool {
    let place = database_place(config, store).await;
    report.line("database", Ok(format!("{} answers: {place}", store.engine())));
    let schema = match store.require_schema().await {
        Ok(()) => store.ready().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let fits = schema.is_ok();
    report.line("schema", schema.map(|()| "is this version's".to_owned()));
    fits
}

/// Reports whether tokens can be refreshed. `is_needed`: a merchant has a refresh token.
fn report_token_refresh(config: &Config, is_needed: bool, report: &mut Report) {
    let is_set = !config.salla.client_id.is_empty() && !config.salla.client_secret.expose_secret().is_empty();
    let missing = "salla.client_id and salla.client_secret are not set";
    if is_set {
        report.line("token refresh", Ok("salla.client_id and salla.client_secret are set".to_owned()));
    } else if is_needed {
        report.line("token refresh", Err(format!("{missing}; without them no token is refreshed")));
    } else {
        report.warn(
            "token refresh",
            &format!("{missing}; no merchant has a refresh token, so these settings are not needed yet"),
        );
    }
}

/// Probes the store of a merchant. The installation can be right although a store differs from what is expected.
async fn probe(
    config: &Config,
    services: &Services,
    merchant: MerchantId,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut recording = args.record.as_ref().map(|_| Recording::default());
    let settings = ProbeSettings {
        resources: config.reconcile.resources,
        requests_per_minute: config.salla.requests_per_minute,
        detail_checks: config.reconcile.detail_check_nights,
    };
    match services.salla.probe(merchant, settings, recording.as_mut()).await {
        Ok(found) => {
            let requests = found.requests;
            report.probe(found);
            report.line(
                "probe",
                Ok(format!("Salla answered {requests} requests about merchant {merchant}; none changed the store")),
            );
        }
        Err(error) => report.line("probe", Err(format!("merchant {merchant}: {error}"))),
    }
    if let (Some(file), Some(recording)) = (&args.record, recording) {
        let text = serde_json::to_string_pretty(&recording.anonymous())?;
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
        report.line("recording", Ok(format!("written to {}", file.display())));
    }
    Ok(())
}

/// Checks whether others may read or change the files that hold secrets and data.
fn modes(config: &mut Config, report: &mut Report) {
    let loose = config.loose_files();
    if loose.is_empty() {
        report.line("file modes", Ok("only their owner reads the files of secrets and of the database".to_owned()));
    }
    for (key, mode) in loose {
        let problem = format!("{key}: a file has the mode {mode}; others can read or change it: chmod 600");
        report.warn("file modes", &problem);
    }
}

async fn tokens(vault: &Vault<Store>, store: &Store) -> Result<String, String> {
    let census = KeyUsage::take(vault, store).await.map_err(|error| error.to_string())?;
    let by_key = census.by_key();
    match census.unreadable.first() {
        None => Ok(format!("the tokens of all {} merchant(s) can be read; tokens by key: {by_key}", census.merchants)),
        Some(first) => Err(format!(
            "the tokens of {} of {} cannot be read ({by_key}), the first: {first}; put the key back into vault.keys, or import the merchant again",
            census.unreadable.len(),
            census.merchants
        )),
    }
}

/// When it fires next, or why it does not.
async fn schedule(config: &Config, store: &Store) -> Result<String, String> {
    let told = async {
        if let Some(GlobalPause { since, by }) = store.global_pause().await? {
            let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
            return Ok(format!(
                "all merchants are paused since {since} (by {by}); `merchants resume --all` ends the pause"
            ));
        }
        let calendar = Calendar::new(config.schedule.cron.clone(), config.schedule.timezone);
        let next = calendar.next_after(store.now().await?);
        Ok(next.map_or_else(
            || format!("{} never matches", calendar.cron()),
            |next| format!("next sweep of {} at {}", calendar.cron(), next.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ))
    };
    told.await.map_err(|error: DatabaseError| error.to_string())
}

/// Lists merchants that sweeps do not cover, and fails for those that need attention.
async fn register(store: &Store) -> Result<String, String> {
    let merchants = store.merchants().await.map_err(|error| error.to_string())?;
    let of = |state| merchants.iter().filter(|merchant| merchant.state == state).count();
    let told = MerchantState::ALL.into_iter().filter(|state| of(*state) > 0);
    let told: Vec<String> =
        told.map(|state| format!("{} {} ({})", of(state), state.as_str(), state.advice())).collect();
    let lost = merchants.iter().filter(|merchant| merchant.state == MerchantState::NeedsReauthorization);
    let lost: Vec<String> = lost.map(|merchant| merchant.merchant_id.to_string()).collect();
    if !lost.is_empty() {
        return Err(format!("{}: {}", told.join(", "), lost.join(", ")));
    }
    Ok(if told.is_empty() { "no merchant is registered; see `merchants import`".to_owned() } else { told.join(", ") })
}

/// Any answer at all will do: without a token Salla refuses, and shows its clock.
async fn salla(config: &Config, database_clock: Option<DateTime<Utc>>, report: &mut Report) {
    let patience = config.salla.request_timeout.min(Duration::from_secs(10));
    let url = format!("{}/v2/orders", config.salla.api_url.as_str().trim_end_matches('/'));
    let answer = match plain_client(&config.salla) {
        Ok(client) => client.get(&url).timeout(patience).send().await,
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let problem =
                format!("{url} does not answer ({}); check salla.api_url, the network and the proxy", causes(&error));
            report.line("salla", Err(problem));
            report.line("clocks", Ok("not compared: the clock of Salla is unknown".to_owned()));
            return;
        }
    };
    report.line("salla", Ok(format!("{url} answers ({} without a token)", answer.status())));
    let date = answer.headers().get("date").and_then(|value| value.to_str().ok());
    let theirs = date.and_then(|text| httpdate::parse_http_date(text).ok()).map(DateTime::<Utc>::from);
    let (Some(theirs), Some(ours)) = (theirs, database_clock) else {
        report.line("clocks", Ok("not compared: one of them is not known".to_owned()));
        return;
    };
    let skew = theirs - ours;
    let shown = format!("Salla's clock is {} s ahead of the database's", skew.num_seconds());
    report.line(
        "clocks",
        if skew.abs() > SKEW {
            Err(format!("{shown}; synchronize the clock of the database host by NTP"))
        } else {
            Ok(shown)
        },
    );
}
