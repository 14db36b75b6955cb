//! `keys`: the keys that encrypt tokens.

use std::{collections::BTreeMap, iter, time::Duration};

use futures::{StreamExt, stream};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{Exit, actor::actor};
use crate::{
    app::{backends, open_store},
    config::Config,
    reconcile::ports::{Action, Audit, CredentialError},
    store::{Store, StoredTokens},
    vault::{self, Vault},
};

/// What `keys` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a new key, `ID:BASE64`.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler keys generate\n\x20 export SALLA_RECONCILER__VAULT__KEYS=$(salla-reconciler keys generate --id first)\n\nEnvironment: none."
    )]
    Generate {
        /// Id of the key: letters, digits, `-` and `_`. Default: the date.
        #[arg(long, default_value_t = today(), value_parser = key_id)]
        id: String,
    },
    /// Encrypt every stored token again, with `vault.backend` or the first key of `vault.keys`.
    #[command(
        after_help = "Put the new key first, and keep the old one until the command has ended. The command can run\n\
                            beside daemons that have both keys. If it is killed, start it again.\n\nExamples:\n  \
                            SALLA_RECONCILER__VAULT__KEYS=new:…,old:… salla-reconciler keys rotate\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__*"
    )]
    Rotate,
}

fn key_id(text: &str) -> Result<String, String> {
    if vault::is_key_id(text) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-` and `_`, up to 32 of them".to_owned())
    }
}

/// The numbers of rows and of merchants that are handled at once. They are high, because the token store may be far
/// away.
const BATCH: u64 = 500;
const AT_ONCE: usize = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    let backends = backends(config)?;
    let store = open_store(config).await?;
    let vault = Vault::new(backends, store.clone());
    let key = vault.key().await?;
    // An entry at the beginning and one at the end: the rotation takes many transactions, and may be interrupted.
    let audit = |detail| Audit { actor: actor(), action: Action::KeysRotate, merchant: None, run: None, detail };
    store.note(&audit(json!({"key": key, "begun": true}))).await?;
    let mut done = Reencryption { vault: &vault, store: &store, key: &key, resealed: 0 };
    // A daemon that renews a token in between may not have the new key first yet.
    // One whose token is being renewed is looked at again.
    while done.walk().await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    store.note(&audit(json!({"key": key, "merchants": done.resealed}))).await?;
    let census = KeyUsage::take(&vault, &store).await?;
    for error in &census.unreadable {
        eprintln!("{error}");
    }
    say!(
        "{} re-encrypted under {key:?}, {} were already, {} cannot be read",
        done.resealed,
        census.merchants.saturating_sub(done.resealed + census.unreadable.len()),
        census.unreadable.len()
    );
    say!("Tokens: {}", census.by_key());
    store.close().await?;
    Ok(if census.unreadable.is_empty() { Exit::Success } else { Exit::Failure })
}

/// A way over all tokens.
struct Reencryption<'a> {
    vault: &'a Vault<Store>,
    store: &'a Store,
    /// The key that seals.
    key: &'a str,
    /// The number of merchants whose tokens were encrypted again so far.
    resealed: usize,
}

impl Reencryption<'_> {
    /// Visits all tokens once. True if some changed meanwhile and must be visited again.
    async fn walk(&mut self) -> anyhow::Result<bool> {
        let (mut after, mut changed) = (None, false);
        loop {
            let batch = self.store.stored_tokens(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(changed) };
            after = Some(last.merchant);
            let old = batch.iter().filter(|stored| !self.vault.is_encrypted_with(self.key, &stored.tokens));
            let old: Vec<_> = old.map(|stored| reseal(self.vault, self.store, stored)).collect();
            let mut resealed = stream::iter(old).buffer_unordered(AT_ONCE);
            while let Some(outcome) = resealed.next().await {
                match outcome? {
                    Resealed::Done => self.resealed += 1,
                    Resealed::Changed => changed = true,
                    Resealed::Unreadable => {}
                }
            }
        }
    }
}

async fn reseal(vault: &Vault<Store>, store: &Store, stored: &StoredTokens) -> Result<Resealed, CredentialError> {
    if vault.find_lost(stored.merchant).await? {
        return Ok(Resealed::Changed);
    }
    let tokens = match vault.open(stored.merchant, &stored.tokens).await {
        Ok(tokens) => tokens,
        // The census reports it.
        Err(CredentialError::Unreadable { .. }) => return Ok(Resealed::Unreadable),
        Err(error) => return Err(error),
    };
    let sealed = vault.seal(stored.merchant, &tokens).await?;
    let done = store.reseal(stored, &sealed).await?;
    vault.settle(stored.merchant, Some(&stored.tokens)).await?;
    Ok(if done { Resealed::Done } else { Resealed::Changed })
}

/// What became of a merchant's tokens.
enum Resealed {
    Done,
    /// They were replaced meanwhile.
    Changed,
    Unreadable,
}

/// Which keys are still needed.
#[derive(Default)]
pub struct KeyUsage {
    /// The key that seals.
    key: String,
    /// More available keys.
    others: Vec<String>,
    /// How many merchants have tokens.
    pub merchants: usize,
    /// Tokens under each key, by its id.
    under: BTreeMap<String, u64>,
    /// One error for each merchant whose tokens cannot be read.
    pub unreadable: Vec<CredentialError>,
}

impl KeyUsage {
    /// Reads all tokens.
    ///
    /// # Errors
    /// When the database cannot be read, or who has the keys does not answer.
    pub async fn take(vault: &Vault<Store>, store: &Store) -> Result<Self, CredentialError> {
        let mut census = Self { key: vault.key().await?, others: vault.other_keys(), ..Self::default() };
        let mut after = None;
        loop {
            let batch = store.stored_tokens(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(census) };
            after = Some(last.merchant);
            for stored in &batch {
                census.merchants += 1;
                for token in [Some(&stored.tokens.access), stored.tokens.refresh.as_ref()].into_iter().flatten() {
                    let id = vault.key_of(token).unwrap_or_else(|| "no key".to_owned());
                    *census.under.entry(id).or_default() += 1;
                }
            }
            let opened: Vec<_> = batch.iter().map(|stored| vault.open(stored.merchant, &stored.tokens)).collect();
            let mut opened = stream::iter(opened).buffered(AT_ONCE);
            while let Some(opened) = opened.next().await {
                match opened {
                    Ok(_) => {}
                    Err(error @ CredentialError::Unreadable { .. }) => census.unreadable.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// For people: the first key, then the others, those that nothing is under any more included.
    pub fn by_key(&self) -> String {
        let known = || iter::once(&self.key).chain(self.others.iter().filter(|id| **id != self.key));
        let strange = self.under.iter().filter(|(id, _)| known().all(|known| known != *id));
        let known = known().map(|id| (id.as_str(), self.under.get(id).copied().unwrap_or(0)));
        let all = known.chain(strange.map(|(id, tokens)| (id.as_str(), *tokens)));
        let told: Vec<String> = all
            .map(|(id, tokens)| match tokens {
                0 if id != self.key => format!("none under {id:?}, which can be removed"),
                _ => format!("{tokens} under {id:?}"),
            })
            .collect();
        told.join(", ")
    }
}
