//! `keys`: what tokens are encrypted under.

use secrecy::ExposeSecret;

use super::Exit;
use crate::{
    app::{key_ring, open_store},
    config::Config,
    vault::{self, Vault},
};

/// What `keys` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prints a new key, `ID:BASE64`.
    #[command(after_help = "Environment: none.")]
    Generate {
        /// What the key is called; letters, digits, `-` and `_`. Without it: the date.
        #[arg(long, default_value_t = today())]
        id: String,
    },
    /// Encrypts every stored token anew, under the first key.
    #[command(after_help = "Put the new key first and keep the old one until this has ended:\n  \
                            SALLA_RECONCILER__VAULT__KEYS=new:…,old:… salla-reconciler keys rotate\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__KEYS")]
    Rotate,
}

/// Rows at a time.
const BATCH: u64 = 500;

fn today() -> String {
    format!("k{}", chrono::Utc::now().format("%Y%m%d"))
}

/// Prints a new key.
pub fn generate(id: &str) -> anyhow::Result<Exit> {
    let key = vault::generate(id);
    vault::KeyRing::parse(&key)?;
    say!("{}", key.expose_secret());
    Ok(Exit::Success)
}

/// Walks over all tokens. May be stopped and begun again at any time, beside running daemons.
pub async fn rotate(config: &Config) -> anyhow::Result<Exit> {
    let ring = std::sync::Arc::new(key_ring(config)?);
    let store = open_store(config).await?;
    let vault = Vault::new(ring, store.clone());
    let (mut resealed, mut current, mut unreadable) = (0u64, 0u64, 0u64);
    let mut after = None;
    loop {
        let batch = store.stored_tokens(after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = Some(last.merchant);
        for stored in batch {
            if vault.is_current(&stored.tokens) {
                current += 1;
                continue;
            }
            match vault.open(stored.merchant, &stored.tokens) {
                Ok(tokens) => {
                    store.reseal(&stored, &vault.seal(stored.merchant, &tokens)).await?;
                    resealed += 1;
                }
                Err(error) => {
                    eprintln!("{error}");
                    unreadable += 1;
                }
            }
        }
    }
    say!("{resealed} encrypted anew under {:?}, {current} were already, {unreadable} cannot be read", vault.key_id());
    store.close().await?;
    Ok(if unreadable == 0 { Exit::Success } else { Exit::Failure })
}
