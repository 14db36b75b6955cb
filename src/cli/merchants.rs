//! `merchants`: the register.

use std::{io::BufRead, path::PathBuf};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Exit, table::table};
use crate::{
    app::{key_ring, open_store},
    config::Config,
    domain::{MerchantId, MerchantState},
    reconcile::ports::{Ledger, Tokens},
    store::{Registration, Store},
    vault::Vault,
};

/// What `merchants` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Registers stores, or replaces them: a JSON object a line.
    #[command(
        after_help = "A line: {\"merchant_id\":1001,\"name\":\"…\",\"access_token\":\"…\",\"refresh_token\":\"…\",\"expires_at\":\"2026-12-01T00:00:00Z\"}\n\
                            Environment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__KEYS"
    )]
    Import {
        /// The file; `-` is stdin.
        file: PathBuf,
    },
    /// Shows the register; tokens are never shown.
    #[command(after_help = "Environment: SALLA_RECONCILER__DATABASE__URL")]
    List {
        /// A JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Leaves a store out of sweeps.
    #[command(after_help = "Environment: SALLA_RECONCILER__DATABASE__URL")]
    Pause {
        /// Its id.
        id: MerchantId,
    },
    /// Takes a paused store into sweeps again.
    #[command(after_help = "Environment: SALLA_RECONCILER__DATABASE__URL")]
    Resume {
        /// Its id.
        id: MerchantId,
    },
    /// Takes a store out of the register and destroys its tokens; its orders and runs stay.
    #[command(after_help = "Environment: SALLA_RECONCILER__DATABASE__URL")]
    Remove {
        /// Its id.
        id: MerchantId,
    },
}

/// A line of the import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    merchant_id: MerchantId,
    name: Option<String>,
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expires_at: Option<DateTime<Utc>>,
}

/// Does what was asked of the register.
pub async fn merchants(config: &Config, command: Command) -> anyhow::Result<Exit> {
    if let Command::Import { file } = command {
        return import(config, file).await;
    }
    let store = open_store(config).await?;
    match command {
        Command::Import { .. } => {}
        Command::List { json } => list(&store, json).await?,
        Command::Pause { id } => set_state(&store, id, MerchantState::Paused).await?,
        Command::Resume { id } => resume(&store, id).await?,
        Command::Remove { id } => known(id, store.remove(id).await?)?,
    }
    store.close().await?;
    Ok(Exit::Success)
}

async fn import(config: &Config, file: PathBuf) -> anyhow::Result<Exit> {
    let ring = std::sync::Arc::new(key_ring(config)?);
    let store = open_store(config).await?;
    let vault = Vault::new(ring, store.clone());
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(&file).with_context(|| format!("{} cannot be opened", file.display()))?;
        Box::new(std::io::BufReader::new(opened))
    };
    let mut imported = 0u64;
    for (number, line) in input.lines().enumerate() {
        let line = line.with_context(|| format!("{} cannot be read", file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let registration = registration(&vault, &line)
            .with_context(|| format!("line {} is not imported; the {imported} before it are", number + 1))?;
        store.register(&registration).await?;
        imported += 1;
    }
    say!("{imported} merchant(s) imported");
    store.close().await?;
    Ok(Exit::Success)
}

fn registration(vault: &Vault<Store>, line: &str) -> anyhow::Result<Registration> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        // The error may quote what stands there, which may be a token.
        anyhow::anyhow!("it is not a merchant as `merchants import --help` shows (column {})", error.column())
    })?;
    let sendable = |token: &SecretString| {
        let text = token.expose_secret();
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !sendable(&line.access_token) || !line.refresh_token.as_ref().is_none_or(sendable) {
        bail!("its access_token or refresh_token is empty, or holds what no token holds");
    }
    let tokens = Tokens { access: line.access_token, refresh: line.refresh_token, expires_at: line.expires_at };
    Ok(Registration { merchant_id: line.merchant_id, name: line.name, tokens: vault.seal(line.merchant_id, &tokens) })
}

async fn list(store: &Store, json: bool) -> anyhow::Result<()> {
    let merchants = store.merchants().await?;
    if json {
        for merchant in &merchants {
            say!("{}", serde_json::to_string(merchant)?);
        }
        return Ok(());
    }
    let rows = merchants.into_iter().map(|merchant| {
        vec![
            merchant.merchant_id.to_string(),
            merchant.name.unwrap_or_default(),
            merchant.state.as_str().to_owned(),
            merchant
                .watermark
                .map_or_else(|| "never".to_owned(), |mark| mark.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        ]
    });
    say!("{}", table(&["merchant", "name", "state", "covered up to"], rows));
    Ok(())
}

async fn set_state(store: &Store, id: MerchantId, state: MerchantState) -> anyhow::Result<()> {
    known(id, store.set_state(id, state).await?)
}

/// Only a new import brings tokens to a store whose own are refused.
async fn resume(store: &Store, id: MerchantId) -> anyhow::Result<()> {
    let merchants = store.merchants().await?;
    let merchant = merchants.iter().find(|merchant| merchant.merchant_id == id);
    if merchant.is_some_and(|merchant| merchant.state == MerchantState::NeedsReauthorization) {
        bail!("merchant {id} must install the app again; `merchants import` with its new tokens resumes it");
    }
    set_state(store, id, MerchantState::Active).await
}

fn known(id: MerchantId, found: bool) -> anyhow::Result<()> {
    if !found {
        bail!("merchant {id} is not registered; `merchants list` tells who is");
    }
    Ok(())
}
