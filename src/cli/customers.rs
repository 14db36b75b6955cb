//! `customers`: the personal data in stored orders and customers.

use serde_json::json;

use super::{Exit, actor::actor};
use crate::{
    app::{self, Rewritten, open_store},
    config::Config,
    domain::MerchantId,
    reconcile::ports::{Action, Audit, MerchantRegistry},
    salla::Privacy,
};

/// What `customers` takes.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Remove the personal data of one customer of a merchant, and never store it again.
    #[command(
        after_help = "Only Salla's id and the dates of the customer stay. Backups, replicas and other programs keep their copies.\n\n\
                            Examples:\n\x20 salla-reconciler customers erase 1001 1473353380\n\n\
                            Environment: SALLA_RECONCILER__DATABASE__URL"
    )]
    Erase {
        /// The merchant id.
        merchant: MerchantId,
        /// Salla's id of the customer.
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
    /// Apply `privacy.customer_fields` to all stored customers and orders.
    #[command(
        after_help = "Examples:\n\x20 SALLA_RECONCILER__PRIVACY__CUSTOMER_FIELDS=none salla-reconciler customers redact\n\n\
                            Environment: SALLA_RECONCILER__DATABASE__URL, __PRIVACY__CUSTOMER_FIELDS, __PRIVACY__PSEUDONYM_KEY"
    )]
    Redact,
}

/// Does it.
pub async fn customers(config: &Config, command: Command) -> anyhow::Result<Exit> {
    let (store, privacy) = (open_store(config).await?, Privacy::new(&config.privacy));
    match command {
        Command::Erase { merchant, id } => {
            let rewritten = app::erase(&store, &privacy, merchant, id, &actor()).await?;
            say!("Customer {id} of merchant {merchant} is erased: {}", summary(&rewritten));
            if store.merchant(merchant).await?.is_none() {
                say!(
                    "No merchant {merchant} is registered. If the id is wrong, repeat the command with the right one."
                );
            }
        }
        Command::Redact => {
            let fields = config.privacy.customer_fields.as_str();
            let audit =
                |detail| Audit { actor: actor(), action: Action::CustomersRedact, merchant: None, run: None, detail };
            // One entry at the beginning and one at the end: the work between them takes many transactions, and may be
            // interrupted.
            store.note(&audit(json!({"customer_fields": fields, "begun": true}))).await?;
            let rewritten = app::redact(&store, &privacy).await?;
            let records: u64 = rewritten.iter().map(|(_, count)| count).sum();
            store.note(&audit(json!({"customer_fields": fields, "records": records}))).await?;
            say!("With privacy.customer_fields = {fields:?}: {}", summary(&rewritten));
            if privacy.keeps_all() {
                say!("To restore removed fields that Salla still lists: salla-reconciler run --full");
            }
        }
    }
    store.close().await?;
    Ok(Exit::Success)
}

fn summary(rewritten: &Rewritten) -> String {
    let kinds: Vec<String> = rewritten.iter().map(|(resource, count)| format!("{count} {resource}")).collect();
    format!("{} rewritten", kinds.join(" and "))
}
