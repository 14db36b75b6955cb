//! `keys`: what tokens are encrypted under.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde_json::json;

use super::{Exit, actor::actor};
use crate::{
    app::{key_ring, open_store},
    config::Config,
    reconcile::ports::{Action, Audit, CredentialError, TargetError},
    store::Store,
    vault::{self, KeyRing, Vault},
};

/// What `keys` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prints a new key, `ID:BASE64`.
    #[command(
        after_help = "Examples:\n\x20 salla-reconciler keys generate\n\x20 export SALLA_RECONCILER__VAULT__KEYS=$(salla-reconciler keys generate --id first)\n\nEnvironment: none."
    )]
    Generate {
        /// What the key is called; letters, digits, `-` and `_`. Without it: the date.
        #[arg(long, default_value_t = today())]
        id: String,
    },
    /// Encrypts every stored token anew, under the first key.
    #[command(after_help = "Put the new key first and keep the old one until this has ended.\n\nExamples:\n  \
                            SALLA_RECONCILER__VAULT__KEYS=new:…,old:… salla-reconciler keys rotate\n\n\
                            It may run beside daemons that have both keys, be killed, and be begun again.\n\nEnvironment: SALLA_RECONCILER__DATABASE__URL, SALLA_RECONCILER__VAULT__KEYS")]
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
    // An entry at the beginning and one at the end: what lies between is many transactions, and may be cut short.
    let audit = |detail| Audit { actor: actor(), action: Action::KeysRotate, merchant: None, run: None, detail };
    store.note(&audit(json!({"key": vault.key_id(), "begun": true}))).await?;
    let mut done = Walk::default();
    // A daemon that renews a token in between may not have the new key first yet.
    while done.walk(&vault, &store).await? {}
    store.note(&audit(json!({"key": vault.key_id(), "merchants": done.resealed}))).await?;
    let census = Census::take(&vault, &store).await?;
    for error in &census.unreadable {
        eprintln!("{error}");
    }
    say!(
        "{} encrypted anew under {:?}, {} were already, {} cannot be read",
        done.resealed,
        vault.key_id(),
        census.merchants.saturating_sub(done.resealed + census.unreadable.len()),
        census.unreadable.len()
    );
    say!("Tokens: {}", census.by_key(&vault));
    store.close().await?;
    Ok(if census.unreadable.is_empty() { Exit::Success } else { Exit::Failure })
}

/// What was done so far.
#[derive(Default)]
struct Walk {
    resealed: usize,
}

impl Walk {
    /// Goes over all tokens once. True when some changed under its hands, and are to be looked at again.
    async fn walk(&mut self, vault: &Vault<Store>, store: &Store) -> anyhow::Result<bool> {
        let (mut after, mut changed) = (None, false);
        loop {
            let batch = store.stored_tokens(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(changed) };
            after = Some(last.merchant);
            for stored in batch.iter().filter(|stored| !vault.is_current(&stored.tokens)) {
                let Ok(tokens) = vault.open(stored.merchant, &stored.tokens) else { continue };
                if store.reseal(stored, &vault.seal(stored.merchant, &tokens)).await? {
                    self.resealed += 1;
                } else {
                    changed = true;
                }
            }
        }
    }
}

/// Which keys are still needed.
#[derive(Default)]
pub struct Census {
    /// How many merchants have tokens.
    pub merchants: usize,
    /// Tokens under each key, by its id.
    under: BTreeMap<String, u64>,
    /// One error for each merchant whose tokens cannot be read.
    pub unreadable: Vec<CredentialError>,
}

impl Census {
    /// Reads all tokens.
    pub async fn take(vault: &Vault<Store>, store: &Store) -> Result<Self, TargetError> {
        let (mut census, mut after) = (Self::default(), None);
        loop {
            let batch = store.stored_tokens(after, BATCH).await?;
            let Some(last) = batch.last() else { return Ok(census) };
            after = Some(last.merchant);
            for stored in batch {
                census.merchants += 1;
                for token in [Some(&stored.tokens.access), stored.tokens.refresh.as_ref()].into_iter().flatten() {
                    let id = KeyRing::id_of(token).unwrap_or("no key").to_owned();
                    *census.under.entry(id).or_default() += 1;
                }
                census.unreadable.extend(vault.open(stored.merchant, &stored.tokens).err());
            }
        }
    }

    /// For people: the first key, then the others, those that nothing is under any more included.
    pub fn by_key(&self, vault: &Vault<Store>) -> String {
        let known = vault.key_ids().map(|id| (id, self.under.get(id).copied().unwrap_or(0)));
        let strange = self.under.iter().filter(|(id, _)| vault.key_ids().all(|known| known != id.as_str()));
        let all = known.chain(strange.map(|(id, tokens)| (id.as_str(), *tokens)));
        let told: Vec<String> = all
            .map(|(id, tokens)| match tokens {
                0 if id != vault.key_id() => format!("none under {id:?}, which may go unless it is to be the next"),
                _ => format!("{tokens} under {id:?}"),
            })
            .collect();
        told.join(", ")
    }
}
