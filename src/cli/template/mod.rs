//! `target template`: the SQL that connects this program with the tables of a platform.

mod shape;
mod sql;

use self::shape::Shape;
use super::Exit;
use crate::{config::Config, store::Store};

/// What `target` takes.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Print a commented SQL file for target.orders: a view and a function, to adapt and to apply.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler target template prisma > target.sql\n\x20 salla-reconciler target template prisma --table '\"Order\"' > target.sql\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__DATABASE__SCHEMA. Without --table, only the schema is read."
    )]
    Template {
        /// The framework whose usual names and types the file uses.
        kind: Kind,
        /// The table of the platform's orders, as SQL writes it. Its columns are then read from database.url.
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
    },
}

/// The framework that made the tables of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Prisma: quoted camelCase names, text keys, an enum for the status, timestamp(3) in UTC.
    Prisma,
    /// Rails: bigint keys, timestamp(6) in UTC, times of creation and of the last write.
    Rails,
    /// Django: bigint keys, timestamptz, tables with the name of the app.
    Django,
    /// A table with one column for each column of the contract.
    Plain,
}

/// Prints the file.
pub async fn template(config: &Config, command: Command) -> anyhow::Result<Exit> {
    let Command::Template { kind, table } = command;
    let usual = Shape::usual(kind);
    let shape = match table {
        None => usual,
        Some(table) => {
            let store =
                Store::connect(&config.database.url, &config.database.schema, 2, config.reconcile.lease).await?;
            let found = store.platform_columns(&table).await;
            store.close().await?;
            Shape::found(usual, &found?)?
        }
    };
    say!("{}", sql::file(&shape, &config.database.schema));
    Ok(Exit::Success)
}
