//! `merchants`: the register.

use std::{io::BufRead, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::error::Category;
use zeroize::Zeroizing;

use super::{Exit, actor::actor, table::table};
use crate::{
    app::{backends, backends_at_hand, open_store},
    config::Config,
    domain::{MerchantId, MerchantState, Transition, plain},
    json_object::Object,
    reconcile::ports::{Changed, MerchantRegistry, Registration, RunHistory, Sealed, Tokens},
    salla::UserInfo,
    store::Store,
    vault::{OwnerCheckedRegister, Vault},
};

/// What `merchants` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register merchants, or replace their tokens: one JSON object per line.
    #[command(
        after_help = "A line: {\"merchant_id\":1001,\"name\":\"…\",\"access_token\":\"…\",\"refresh_token\":\"…\",\"expires_at\":\"2026-12-01T00:00:00Z\"}\n\n\
                            Examples:\n  salla-reconciler merchants import merchants.jsonl\n  \
                            salla-reconciler merchants import - < merchants.jsonl\n\n\
                            Environment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__*"
    )]
    Import {
        /// The file, or `-` for stdin.
        file: PathBuf,
    },
    /// List the merchants, without their tokens.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler merchants list\n\x20 salla-reconciler merchants list --json | jq .watermark\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    List {
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Pause a merchant, or all with `--all`.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler merchants pause 1001\n\x20 salla-reconciler merchants pause --all\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Pause(Whom),
    /// Resume a merchant that is paused, waits for a rate limit, or has no subscription.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler merchants resume 1001\n\x20 salla-reconciler merchants resume --all\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Resume(Whom),
    /// Remove a merchant and destroy its tokens. Its orders and runs stay.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler merchants remove 1001\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__*"
    )]
    Remove {
        /// The merchant id.
        id: MerchantId,
    },
}

/// One merchant, or all.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// The merchant id.
    id: Option<MerchantId>,
    /// All merchants (the global pause). Their states stay.
    #[arg(long)]
    all: bool,
}

/// A line of the import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    merchant_id: Option<MerchantId>,
    name: Option<String>,
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    expires_at: Option<DateTime<Utc>>,
}

/// The fields of a line, which an error may name, and their forms.
const FIELDS: [(&str, &str); 5] = [
    ("merchant_id", "a number such as 1001"),
    ("name", "a text"),
    ("access_token", "a text"),
    ("refresh_token", "a text"),
    ("expires_at", "an RFC 3339 time such as 2026-12-01T00:00:00Z"),
];

/// Does what was asked of the register.
pub async fn merchants(config: &Config, command: Command) -> anyhow::Result<Exit> {
    if let Command::Import { file } = command {
        return import(config, file).await;
    }
    let store = open_store(config).await?;
    match command {
        Command::Import { .. } => {}
        Command::List { json } => list(&store, json).await?,
        Command::Pause(whom) => change(&store, whom, Transition::Pause).await?,
        Command::Resume(whom) => change(&store, whom, Transition::Resume).await?,
        Command::Remove { id } => remove(config, &store, id).await?,
    }
    store.close().await?;
    Ok(Exit::Success)
}

async fn import(config: &Config, file: PathBuf) -> anyhow::Result<Exit> {
    let backends = backends(config)?;
    let store = open_store(config).await?;
    let owner = Arc::new(UserInfo::new(&config.salla)?);
    let register = OwnerCheckedRegister::new(Vault::new(backends, store.clone()), owner);
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(&file).with_context(|| format!("{} cannot be opened", file.display()))?;
        Box::new(std::io::BufReader::new(opened))
    };
    let mut imported = 0u64;
    for (number, line) in input.lines().enumerate() {
        let line = line.map(Zeroizing::new).with_context(|| format!("{} cannot be read", file.display()))?;
        // Windows puts a byte order mark before the first line.
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.trim().is_empty() {
            continue;
        }
        let context = || format!("line {} is not imported; the {imported} line(s) before it are", number + 1);
        let registration = registration(line).with_context(context)?;
        register.register(&registration, &actor()).await.with_context(context)?;
        imported += 1;
    }
    say!("{imported} merchant(s) imported");
    store.close().await?;
    Ok(Exit::Success)
}

fn registration(line: &str) -> anyhow::Result<Registration> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let Object(line): Object<Line> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        // The error may quote the value, which may be a token; only the names of known fields are shown.
        let path = error.path().to_string();
        let column = error.inner().column();
        let known = FIELDS.iter().find(|(field, _)| *field == path);
        match (error.inner().classify(), known) {
            (Category::Data, Some((field, form))) => {
                anyhow::anyhow!("`{field}` cannot be read (column {column}); write {form}")
            }
            (Category::Data, None) if path != "." => {
                let allowed = FIELDS.map(|(field, _)| field).join(", ");
                anyhow::anyhow!("the line has an unknown field (column {column}); allowed: {allowed}")
            }
            (Category::Data, _) => anyhow::anyhow!(
                "the line is not a JSON object with each field at most once; see `merchants import --help`"
            ),
            _ => anyhow::anyhow!("the line is not valid JSON (column {column})"),
        }
    })?;
    if reader.end().is_err() {
        bail!("the line contains more than one JSON object");
    }
    let merchant_id = line.merchant_id.context("`merchant_id` is missing")?;
    let access_token = line.access_token.context("`access_token` is missing")?;
    let tokens = Tokens::new(access_token, line.refresh_token, line.expires_at)?;
    Ok(Registration::new(merchant_id, line.name, tokens)?)
}

async fn list(store: &Store, json: bool) -> anyhow::Result<()> {
    let merchants = store.merchants().await?;
    if json {
        for merchant in &merchants {
            say!("{}", serde_json::to_string(merchant)?);
        }
        return Ok(());
    }
    let inactive = MerchantState::ALL
        .into_iter()
        .filter(|state| *state != MerchantState::Active && merchants.iter().any(|merchant| merchant.state == *state));
    let legend: Vec<String> = inactive.map(|state| format!("\n{}: {}", state.as_str(), state.advice())).collect();
    let rows = merchants.into_iter().map(|merchant| {
        vec![
            merchant.merchant_id.to_string(),
            merchant.name.as_deref().map(plain).unwrap_or_default(),
            merchant.state.as_str().to_owned(),
            merchant
                .watermark
                .map_or_else(|| "never".to_owned(), |mark| mark.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        ]
    });
    say!("{}{}", table(&["merchant", "name", "state", "watermark"], rows), legend.concat());
    Ok(())
}

async fn change(register: &impl MerchantRegistry<Sealed>, whom: Whom, change: Transition) -> anyhow::Result<()> {
    let Some(id) = whom.id else {
        let pause = change == Transition::Pause;
        say!(
            "{}",
            match (pause, register.set_global_pause(pause, &actor()).await?) {
                (true, true) => "all merchants are paused until `merchants resume --all`",
                (true, false) => "all merchants were paused already",
                (false, true) => "the global pause has ended",
                (false, false) => "the global pause was not active",
            }
        );
        return Ok(());
    };
    match register.change(id, change, &actor()).await? {
        Changed::Now(_) => Ok(()),
        Changed::Impossible(obstacle) => bail!("merchant {id}: {obstacle}"),
        Changed::Unknown => Err(unknown(id)),
    }
}

async fn remove(config: &Config, store: &Store, id: MerchantId) -> anyhow::Result<()> {
    // The tokens may be outside of the database. Their removal needs no key of the key ring.
    let vault = Vault::new(backends_at_hand(config)?, store.clone());
    if vault.remove(id, &actor()).await? { Ok(()) } else { Err(unknown(id)) }
}

fn unknown(id: MerchantId) -> anyhow::Error {
    anyhow::anyhow!("merchant {id} is not registered; `merchants list` shows the registered ones")
}
