//! `migrate`: the schema.

use std::io::IsTerminal as _;

use secrecy::ExposeSecret as _;

use super::{Exit, database_place::database_place, table::table};
use crate::{app, config::Config, store::Store};

/// What `migrate` takes.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Apply the pending migrations.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate up\n\x20 salla-reconciler migrate up --sql | psql platform\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__DATABASE__SCHEMA, SALLA_RECONCILER__CDC__PUBLICATION"
    )]
    Up {
        /// Print the SQL of the pending migrations, and apply nothing.
        #[arg(long)]
        sql: bool,
    },
    /// Remove every table of this program with all its contents.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate down\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Down,
    /// Print the SQL of the least rights that the role of a daemon needs with database.migrate = false.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate grants reconciler | psql platform\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__DATABASE__SCHEMA"
    )]
    Grants {
        /// The role of the daemon.
        role: String,
    },
    /// List the migrations, and whether they are applied.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate status\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Status,
}

/// Asks a person at a terminal. A script is not asked.
fn confirmed() -> std::io::Result<bool> {
    eprint!("This removes every table of this program, with all orders, runs and tokens in them. Type yes to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Does what was asked of the schema.
pub async fn migrate(config: &Config, command: Command) -> anyhow::Result<Exit> {
    if let Command::Grants { role } = &command {
        if config.database.url.expose_secret().starts_with("sqlite:") {
            anyhow::bail!("SQLite has no roles: the mode of the file limits access");
        }
        say!("{}", migration::grants(&config.database.schema, role));
        return Ok(Exit::Success);
    }
    let store = Store::connect(&config.database.url, &config.database.schema, 2, config.reconcile.lease).await?;
    // Not on stdout, which has SQL or a table.
    eprintln!("{}: {}", store.engine(), database_place(config, &store).await);
    match command {
        Command::Up { sql: true } => {
            let sql = app::migration_sql(config, &store).await?;
            say!("{}", if sql.is_empty() { "-- no pending migrations" } else { &sql });
            store.close().await?;
            return Ok(Exit::Success);
        }
        Command::Up { sql: false } => app::migrate(config, &store).await?,
        Command::Down => {
            if std::io::stdin().is_terminal() && !confirmed()? {
                say!("Nothing was removed.");
                return Ok(Exit::Failure);
            }
            store.revert().await?;
        }
        Command::Status | Command::Grants { .. } => {}
    }
    let migrations = store.migrations().await?;
    let is_pending = migrations.iter().any(|(_, applied)| !applied);
    let rows = migrations.into_iter().map(|(name, applied)| {
        let state = if applied { "applied" } else { "pending" };
        vec![name, state.to_owned()]
    });
    say!("{}", table(&["migration", "state"], rows));
    if is_pending {
        // Not on stdout, which lists the migrations only.
        eprintln!("To apply the pending migrations: salla-reconciler migrate up");
    }
    store.close().await?;
    Ok(Exit::Success)
}
