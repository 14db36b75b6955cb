//! Logs to stderr, and traces to wherever they are wanted.

mod terminal;
mod trace;

use std::{io::IsTerminal, path::PathBuf};

use opentelemetry_sdk::trace::SdkTracerProvider;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{domain::words, reconcile::span::TARGET};

pub use terminal::{Shown, show};

/// The section `telemetry`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub log_format: LogFormat,
    /// It may name a user and a password.
    #[serde(deserialize_with = "crate::config::trimmed")]
    pub otlp_endpoint: SecretString,
    pub otlp_endpoint_file: PathBuf,
}

words! {
    /// How a log line looks.
    LogFormat ("format of log lines") {
        /// Text where stderr is a terminal, else JSON.
        Auto = "auto",
        /// Print one JSON object per line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

/// Flushes what is pending when the program ends.
#[derive(Debug)]
#[must_use = "dropped without `shutdown`, it loses the last spans"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Our steps, and warnings of libraries. Retries are not logged, because the last failure is.
pub const STEPS: &str = "warn,reqwest_retry=error,salla_reconciler=info,audit=info";

/// Nothing: for the demo, in which things go wrong on purpose.
pub const NOTHING: &str = "off";

/// Sets up logs and traces, for the rest of the process's life. `filter` is what is logged where `RUST_LOG`
/// says nothing.
///
/// # Errors
/// When the exporter cannot be built, or it was set up before.
pub fn init(config: &Config, filter: &str) -> anyhow::Result<Telemetry> {
    let filter = match EnvFilter::try_from_default_env() {
        // The audit is logged whatever RUST_LOG says.
        Ok(filter) => filter.add_directive("audit=info".parse()?),
        Err(_) => EnvFilter::try_new(filter)?,
    };
    // The context of a line is its run.
    let filter = filter.add_directive(format!("{TARGET}=off").parse()?);
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(terminal::Stderr).with_ansi(terminal::has_colours());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed()
    } else {
        lines.with_target(false).with_filter(filter).boxed()
    };
    let endpoint = config.otlp_endpoint.expose_secret();
    let traces = (!endpoint.is_empty()).then(|| trace::provider(endpoint)).transpose()?;
    let spans = traces.as_ref().map(trace::layer);
    tracing_subscriber::registry().with(lines).with(spans).with(filter_fn(is_discreet)).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Telemetry { traces })
}

/// A panic is a line of the log like any other. Its message may quote a value, and is not shown.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    tracing::error!(panic.location = panic.location().map(tracing::field::display), "the program panicked");
}

/// Refuses events and spans that may show secrets, whatever `RUST_LOG` and `LOG_SENSITIVE_BODIES`
/// ask for. Below these levels, the spans of sea-orm contain the address of the database with its
/// password. The AWS SDK may show bodies.
fn is_discreet(what: &Metadata<'_>) -> bool {
    match what.target() {
        // They show parameters of the database's address, and lines of .pgpass.
        target if target.starts_with("sqlx_postgres::options") || target.starts_with("sqlx_sqlite::options") => false,
        target if target.starts_with("sea_orm::") => *what.level() <= Level::INFO,
        target if target.starts_with("aws_") => *what.level() <= Level::DEBUG,
        _ => true,
    }
}

impl Telemetry {
    /// Sends what is pending. Blocks for at most a few seconds.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // The exporter blocks its thread, which must not be one of the runtime's.
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(error = %error, "the last traces could not be sent");
        }
    }
}
