//! Who did what: one entry for each change that a person or another program asked for, in the transaction that makes
//! the change.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::{MerchantId, RunId};

/// Who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The bearer of the API token of this name.
    Token(String),
    /// A program of this machine, where the API needs no token.
    Local,
    /// The operating system user of a command.
    Cli(String),
    /// Salla, by a webhook.
    Salla,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Local => f.write_str("local"),
            Self::Cli(user) => write!(f, "cli:{user}"),
            Self::Salla => f.write_str("salla"),
        }
    }
}

/// What.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A run was asked for.
    RunTrigger,
    /// A run was stopped.
    RunCancel,
    /// A merchant was registered, or its tokens were replaced.
    MerchantRegister,
    /// Only the tokens of a merchant were replaced.
    MerchantTokens,
    /// The access token of a merchant was shown to another program.
    MerchantTokenRead,
    /// A merchant was left out of sweeps.
    MerchantPause,
    /// A merchant was taken into sweeps again.
    MerchantResume,
    /// A merchant was taken out of the register.
    MerchantRemove,
    /// All merchants were paused.
    AllPause,
    /// The global pause ended.
    AllResume,
    /// An app event was applied.
    WebhookApply,
    /// A customer was erased.
    CustomerErase,
    /// The privacy setting was applied to all stored records.
    CustomersRedact,
    /// Tokens were re-encrypted.
    KeysRotate,
}

impl Action {
    /// The word that the database, the log and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunTrigger => "run.trigger",
            Self::RunCancel => "run.cancel",
            Self::MerchantRegister => "merchant.register",
            Self::MerchantTokens => "merchant.tokens",
            Self::MerchantTokenRead => "merchant.token_read",
            Self::MerchantPause => "merchant.pause",
            Self::MerchantResume => "merchant.resume",
            Self::MerchantRemove => "merchant.remove",
            Self::AllPause => "all.pause",
            Self::AllResume => "all.resume",
            Self::WebhookApply => "webhook.apply",
            Self::CustomerErase => "customer.erase",
            Self::CustomersRedact => "customers.redact",
            Self::KeysRotate => "keys.rotate",
        }
    }
}

/// An entry to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// Merchant of the action.
    pub merchant: Option<MerchantId>,
    /// Run of the action.
    pub run: Option<RunId>,
    /// An object with details, without secrets.
    pub detail: Value,
}

impl Audit {
    /// An entry about a merchant.
    #[must_use]
    pub fn of_merchant(actor: &Actor, action: Action, merchant: MerchantId, detail: Value) -> Self {
        Self { actor: actor.clone(), action, merchant: Some(merchant), run: None, detail }
    }

    /// Logs the entry, after its transaction is committed.
    pub fn tell(&self) {
        tracing::info!(
            target: "audit",
            actor = %self.actor,
            action = self.action.as_str(),
            merchant.id = self.merchant.map(|merchant| merchant.0),
            run.id = self.run.map(|run| run.to_string()),
            detail = %self.detail,
            "audit"
        );
    }
}

/// An audit entry. Other versions of the program may use other actions.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Audited {
    /// Entry id. It rises with each entry.
    pub id: i64,
    /// Time by the clock of the database.
    pub at: DateTime<Utc>,
    /// Actor: `token:NAME`, `local`, `cli:USER` or `salla`.
    pub actor: String,
    /// Action, such as `run.trigger`.
    pub action: String,
    /// Merchant of the action.
    pub merchant_id: Option<MerchantId>,
    /// Run of the action.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub run_id: Option<RunId>,
    /// Parameters of the action.
    #[schema(value_type = Object)]
    pub detail: Value,
}
