//! The command line: commands, options and exit codes.

/// Prints a line on stdout. A closed reader (`| head`) does not cause an error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

mod actor;
mod check;
mod customers;
mod database_place;
#[cfg(feature = "demo")]
mod demo;
mod healthcheck;
mod keys;
mod merchants;
mod migrate;
mod progress;
mod report;
mod run;
mod signal;
#[cfg(feature = "demo")]
mod simulate;
mod table;
mod template;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    app,
    config::{Config, ConfigError},
    salla::OnOpenCircuit,
    telemetry,
};

/// Reads an instant of the command line.
fn instant(text: &str) -> Result<DateTime<Utc>, &'static str> {
    DateTime::parse_from_rfc3339(text)
        .map(|instant| instant.to_utc())
        .map_err(|_| "not an RFC 3339 time, such as 2026-11-20T00:00:00Z")
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything succeeded.
    Success = 0,
    /// A run, or the command itself, failed.
    Failure = 1,
    /// All runs ended, and some records were skipped or failed.
    Partial = 3,
    /// Bad configuration.
    Configuration = 78,
}

/// Finds and repairs the orders that a platform missed because a Salla webhook was lost.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes:\n  \
                  0   everything succeeded\n  \
                  1   a run, or the command itself, failed or was stopped\n  \
                  2   wrong usage\n  \
                  3   some records, or a whole kind of record, were skipped or failed\n  \
                  78  wrong configuration\n\n\
                  Each setting has an environment variable SALLA_RECONCILER__SECTION__KEY, such as SALLA_RECONCILER__DATABASE__URL."
)]
pub struct Cli {
    /// A TOML file with settings. It overrides the defaults; environment variables override it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: schedule, workers and HTTP server.
    #[command(after_help = "Examples:\n  salla-reconciler serve\n  \
                            SALLA_RECONCILER__HTTP__LISTEN=0.0.0.0:8080 salla-reconciler --config production.toml serve\n\n\
                            Environment: SALLA_RECONCILER__DATABASE__*, __TARGET__*, __SALLA__*, __SCHEDULE__*, __RECONCILE__*,\n\
                            __HTTP__*, __VAULT__*, __PRIVACY__*, __SHUTDOWN__GRACE, __CDC__*, __TELEMETRY__*, __RETENTION__RUNS")]
    Serve,
    /// Reconcile the named merchants, or all active ones, in the foreground.
    Run(run::Args),
    /// Show which webhooks were lost over a period, and how late their changes were corrected.
    Report(report::Args),
    /// Show a sweep with a simulated Salla, offline and without configuration.
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Serve only the simulated Salla, to test a database and a webhook consumer.
    #[cfg(feature = "demo")]
    Simulate(simulate::Args),
    /// Manage merchants and their tokens.
    #[command(subcommand)]
    Merchants(merchants::Command),
    /// Manage the personal data of customers.
    #[command(subcommand)]
    Customers(customers::Command),
    /// Manage the database schema.
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Reconcile the tables of a platform that exists already.
    #[command(subcommand)]
    Target(template::Command),
    /// Manage the keys that encrypt tokens.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Check configuration, database, schema, keys and Salla, and say what to do.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler check\n\x20 salla-reconciler --config production.toml check\n\x20 salla-reconciler check --merchant 1001 --record probe.json\n\nEnvironment: every SALLA_RECONCILER__SECTION__KEY"
    )]
    Check(check::Args),
    /// Ask the /healthz of a running daemon, for container health checks.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler healthcheck\n\nEnvironment: SALLA_RECONCILER__HTTP__LISTEN"
    )]
    Healthcheck,
    /// Print the OpenAPI 3.1 document of the HTTP API.
    #[command(after_help = "Examples:\n\x20 salla-reconciler openapi > openapi.json\n\nEnvironment: none.")]
    Openapi,
    /// Print the completion script of a shell.
    #[command(after_help = "Examples:\n  \
                            source <(salla-reconciler completions bash)\n  \
                            salla-reconciler completions fish > ~/.config/fish/completions/salla-reconciler.fish\n\n\
                            Environment: none.")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    say!("{}", String::from_utf8_lossy(&script).trim_end());
    Exit::Success
}

/// Does what was asked, says what went wrong in one line on stderr, and returns the exit code.
pub async fn main(cli: Cli) -> Exit {
    match dispatch(cli).await {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("salla-reconciler: {error:#}");
            if error.is::<ConfigError>() { Exit::Configuration } else { Exit::Failure }
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let load = || Config::load(cli.config.as_deref());
    match cli.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::demo(args).await,
        #[cfg(feature = "demo")]
        Command::Simulate(args) => simulate::simulate(args).await,
        Command::Keys(keys::Command::Generate { id }) => keys::generate(&id),
        Command::Healthcheck => healthcheck::healthcheck(&load()?).await,
        Command::Check(args) => check::check(load(), &args).await,
        Command::Openapi => Ok(openapi()),
        Command::Completions { shell } => Ok(completions(shell)),
        command => {
            let config = load()?;
            let telemetry = telemetry::init(&config.telemetry, telemetry::STEPS)?;
            let done = with_telemetry(command, &config).await;
            telemetry.shutdown().await;
            done
        }
    }
}

async fn with_telemetry(command: Command, config: &Config) -> anyhow::Result<Exit> {
    match command {
        Command::Serve => serve(config).await,
        Command::Run(args) => run::run(config, args).await,
        Command::Report(args) => report::report(config, args).await,
        Command::Merchants(command) => merchants::merchants(config, command).await,
        Command::Customers(command) => customers::customers(config, command).await,
        Command::Migrate(command) => migrate::migrate(config, command).await,
        Command::Target(command) => template::template(config, command).await,
        Command::Keys(_) => keys::rotate(config).await,
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::demo(args).await,
        #[cfg(feature = "demo")]
        Command::Simulate(args) => simulate::simulate(args).await,
        Command::Check(args) => check::check(Ok(config.clone()), &args).await,
        Command::Healthcheck => healthcheck::healthcheck(config).await,
        Command::Openapi => Ok(openapi()),
        Command::Completions { shell } => Ok(completions(shell)),
    }
}

fn openapi() -> Exit {
    say!("{}", app::openapi());
    Exit::Success
}

async fn serve(config: &Config) -> anyhow::Result<Exit> {
    // Before anything else: a signal during the migration must not kill it.
    let stop = signal::termination()?;
    let listener = app::bind(config).await?;
    let services = app::Services::build(config, OnOpenCircuit::Wait).await?;
    for (key, mode) in config.clone().loose_files() {
        tracing::warn!(key, mode, "users other than the owner can read or change a file with secrets: chmod 600");
    }
    if config.salla.client_id.is_empty() {
        tracing::warn!("salla.client_id and salla.client_secret are not set: no token will be renewed");
    }
    app::serve(config, services, listener, stop).await?;
    Ok(Exit::Success)
}
