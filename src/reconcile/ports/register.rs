//! The port of merchants: registration and state changes.

use std::future::Future;

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::{Actor, CredentialError, DatabaseError, Tokens};
use crate::domain::{AppEventKind, Merchant, MerchantId, MerchantState, Transition, TransitionError};

/// A merchant to be put into the register by a person, or to be replaced there.
#[derive(Debug, Clone)]
pub struct Registration<T = SecretString> {
    /// Salla's id.
    pub merchant_id: MerchantId,
    /// For people; an absent name leaves the present one.
    pub name: Option<String>,
    /// Replace what was there.
    pub tokens: Tokens<T>,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// As it is now.
    pub merchant: Merchant,
    /// It was not in the register before.
    pub new: bool,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The merchant as it is now; that may be what it was.
    Now(Merchant),
    /// It would not help.
    Impossible(TransitionError),
    /// No merchant of that id is registered.
    Unknown,
}

/// Which merchants to list.
#[derive(Debug, Clone, Copy)]
pub struct MerchantFilter {
    /// In this state.
    pub state: Option<MerchantState>,
    /// With a larger id than this.
    pub after: Option<MerchantId>,
    /// The maximum number of entries.
    pub limit: u64,
}

/// An app event that changes a merchant.
#[derive(Debug, Clone)]
pub struct AppEvent<T = SecretString> {
    /// SHA-256 of the body as it came, in hex: the events carry no number.
    pub hash: String,
    /// Salla's name for it.
    pub name: &'static str,
    /// The merchant.
    pub merchant: MerchantId,
    /// The stamp of the event, to be compared with other stamps of Salla only.
    pub made: Option<DateTime<Utc>>,
    /// The content of the event.
    pub kind: AppEventKind,
    /// With [`AppEventKind::Authorized`], and with no other.
    pub tokens: Option<Tokens<T>>,
}

/// The content of a webhook.
#[derive(Debug)]
pub enum ParsedWebhook {
    /// Something that changes the register.
    AppEvent(AppEvent),
    /// Nothing for this program.
    Ignored {
        /// Salla's name for it, or `other`.
        name: &'static str,
        /// The merchant, if that can be read.
        merchant: Option<MerchantId>,
    },
}

/// The body of a webhook cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct UnreadableEvent {
    /// Salla's name for the event, or `other`.
    pub name: &'static str,
    /// The missing or wrong part; quotes nothing.
    pub reason: &'static str,
}

/// Reads the body of a webhook, at a time by our clock. Its shape is Salla's, which few know.
pub type ReadEvent = fn(&[u8], DateTime<Utc>) -> Result<ParsedWebhook, UnreadableEvent>;

/// What became of an app event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It counts, and this is the merchant's state now.
    Done(MerchantState),
    /// The same body was taken before.
    Replayed,
    /// A later event contradicts it.
    Outdated,
    /// An authorization more than a day old: its tokens may have been used since.
    Stale,
    /// No merchant of that id is registered.
    UnknownMerchant,
}

impl Applied {
    /// The word for it, in answers, metrics and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done(_) => "applied",
            Self::Replayed => "replayed",
            Self::Outdated => "outdated",
            Self::Stale => "stale",
            Self::UnknownMerchant => "unknown_merchant",
        }
    }
}

/// The register.
///
/// The database keeps sealed tokens (`MerchantRegistry<Sealed>`); the vault encrypts them for callers with plain tokens. Where a merchant stands afterwards is [`MerchantStatus`](crate::domain::MerchantStatus)'s to say, and each call is
/// one transaction that holds the merchant's row.
///
/// New tokens always win over a refresh that is under way: their version is one that no refresh leads to. A merchant
/// whose app is uninstalled loses its tokens, and its runs are cancelled, in any process. A pause, or the end of a
/// subscription, cancels the runs that the schedule has queued. Each change has its entry in the audit, in the same transaction.
pub trait MerchantRegistry<T = SecretString>: Clone + Send + Sync + 'static {
    /// Registers a merchant, or replaces its name and tokens; it is active afterwards.
    fn register(
        &self,
        registration: &Registration<T>,
        by: &Actor,
    ) -> impl Future<Output = Result<Registered, CredentialError>> + Send;

    /// Replaces only the tokens of a merchant, as a platform does that refreshes them itself. A pause and an ended subscription
    /// stay; a merchant that needed authorization is active afterwards.
    fn replace_tokens(
        &self,
        id: MerchantId,
        tokens: &Tokens<T>,
        by: &Actor,
    ) -> impl Future<Output = Result<Changed, CredentialError>> + Send;

    /// Changes where a merchant stands.
    fn change(
        &self,
        id: MerchantId,
        change: Transition,
        by: &Actor,
    ) -> impl Future<Output = Result<Changed, CredentialError>> + Send;

    /// Remove a merchant and destroy its tokens. Its orders and runs stay. False when it is not
    /// registered.
    fn remove(&self, id: MerchantId, by: &Actor) -> impl Future<Output = Result<bool, CredentialError>> + Send;

    /// One merchant.
    fn merchant(&self, id: MerchantId) -> impl Future<Output = Result<Option<Merchant>, DatabaseError>> + Send;

    /// The merchants that match, by their ids.
    fn list(&self, filter: MerchantFilter) -> impl Future<Output = Result<Vec<Merchant>, DatabaseError>> + Send;

    /// Pauses all merchants, or lets them go on, each as it stood. Meanwhile no process claims a run or fires the
    /// schedule, and running runs are released; a run in the foreground goes on. False when it was so already.
    fn set_global_pause(&self, still: bool, by: &Actor) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    /// Applies an app event. The same body has no effect a second time, also in another process.
    fn apply(&self, event: &AppEvent<T>) -> impl Future<Output = Result<Applied, CredentialError>> + Send;
}
