//! `migrate`: the schema.

use std::io::IsTerminal as _;

use super::{Exit, table::table};
use crate::{app, config::Config, store::Store};

/// What `migrate` takes.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Command {
    /// Brings the schema up to date.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate up\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__CDC__PUBLICATION"
    )]
    Up,
    /// Removes every table of this program, with all that is in them.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate down\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Down,
    /// Tells which migrations are applied.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler migrate status\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Status,
}

/// Whoever sits at a terminal is asked; a script knows what it does.
fn confirmed() -> std::io::Result<bool> {
    eprint!("This removes every table of this program, with all orders, runs and tokens in them. Type yes to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Does what was asked of the schema.
pub async fn migrate(config: &Config, command: Command) -> anyhow::Result<Exit> {
    let store = Store::connect(&config.database.url, 2, config.reconcile.lease).await?;
    match command {
        Command::Up => app::migrate(config, &store).await?,
        Command::Down => {
            if std::io::stdin().is_terminal() && !confirmed()? {
                say!("Nothing was removed.");
                return Ok(Exit::Failure);
            }
            store.revert().await?;
        }
        Command::Status => {}
    }
    let rows = store.migrations().await?.into_iter().map(|(name, applied)| {
        let state = if applied { "applied" } else { "pending" };
        vec![name, state.to_owned()]
    });
    say!("{}", table(&["migration", "state"], rows));
    store.close().await?;
    Ok(Exit::Success)
}
