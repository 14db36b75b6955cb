//! Tokens: where they are kept, and how they are renewed once.

use std::{future::Future, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::DatabaseError;
use crate::domain::MerchantId;

/// A merchant's tokens, in the clear or, as `Tokens<Sealed>`, encrypted.
#[derive(Debug, Clone)]
pub struct Tokens<T = SecretString> {
    /// Sent as the bearer.
    pub access: T,
    /// Good for one refresh only.
    pub refresh: Option<T>,
    /// When the access token ends, if that is known.
    pub expires_at: Option<DateTime<Utc>>,
    /// Salla has said that they are the merchant's.
    pub owner_confirmed: bool,
}

impl<T> Tokens<T> {
    /// The same tokens with other texts, as when they are sealed or opened.
    pub fn with_texts<U>(&self, access: U, refresh: Option<U>) -> Tokens<U> {
        Tokens { access, refresh, expires_at: self.expires_at, owner_confirmed: self.owner_confirmed }
    }
}

/// A sealed token, as the database keeps it: encrypted, or the name under which another keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub String);

/// A merchant's tokens as stored.
#[derive(Debug, Clone)]
pub struct Credentials<T = SecretString> {
    /// The tokens.
    pub tokens: Tokens<T>,
    /// Since when they are stored.
    pub issued_at: DateTime<Utc>,
    /// Raised by each change.
    pub version: i64,
    /// The start of a running refresh, by the clock of the database.
    pub refreshing_for: Option<Duration>,
    /// Salla has refused the tokens for good.
    pub refused: bool,
}

/// A mark older than this was left by a process that died, or by a request whose answer was lost. The
/// refresh token may be used up, so it is not used again.
pub const REFRESH_TAKES_AT_MOST: Duration = Duration::from_secs(120);

/// Why tokens could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The stored text cannot be decrypted.
    #[error("the stored token of merchant {merchant} cannot be read: {reason}")]
    Unreadable {
        /// The merchant.
        merchant: MerchantId,
        /// Which key, and what is wrong.
        reason: String,
    },
    /// The token backend does not answer.
    #[error("{reason}")]
    Unavailable {
        /// The service that does not answer, and the reason.
        reason: String,
    },
    /// Salla says whose the token is.
    #[error(
        "the access token belongs to merchant {owner}, not to merchant {merchant}; use the tokens of merchant {merchant}"
    )]
    OtherMerchant {
        /// For whom it was to be stored.
        merchant: MerchantId,
        /// The merchant that the token belongs to.
        owner: MerchantId,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// Where tokens are kept. The database keeps sealed ones (`CredentialStore<Sealed>`); the vault opens and
/// decrypts them for callers that need plain tokens.
///
/// Salla revokes both tokens if a refresh token is used twice. So only the process that wins
/// [`begin_refresh`](Self::begin_refresh) refreshes. It sends the refresh once, and saves the
/// result at once.
pub trait CredentialStore<T = SecretString>: Send + Sync + 'static {
    /// The tokens of the merchant; `None` without tokens.
    fn load(
        &self,
        merchant: MerchantId,
    ) -> impl Future<Output = Result<Option<Credentials<T>>, CredentialError>> + Send;

    /// Marks that the refresh token of `version` is about to be used by `attempt`; false when it is being used, or
    /// was replaced.
    fn begin_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        attempt: Uuid,
    ) -> impl Future<Output = Result<bool, CredentialError>> + Send;

    /// Saves both new tokens and clears the mark, in one transaction; the tokens are no longer in doubt. Their owner is
    /// not confirmed: the old pair may have mixed the tokens of two merchants.
    fn complete_refresh(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens<T>,
    ) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Saves that Salla confirmed the owner of the tokens of `version`.
    fn confirm_owner(
        &self,
        merchant: MerchantId,
        version: i64,
    ) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Clears the mark of `attempt`, if there is one: the refresh token was certainly not used.
    fn abandon_refresh(
        &self,
        merchant: MerchantId,
        attempt: Uuid,
    ) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Salla refuses the tokens of `version` for good: the merchant must install the app again, and nothing is sent on
    /// its behalf until then.
    fn revoked(&self, merchant: MerchantId, version: i64) -> impl Future<Output = Result<(), CredentialError>> + Send;

    /// Marks the merchants whose refresh has an unknown outcome: they need a reauthorization. An
    /// unfinished refresh has an unknown outcome if it takes too long, or if it belongs to
    /// `merchant`. Returns the merchants whose state this call changed. Their access tokens are
    /// used while they last.
    fn doubt(
        &self,
        merchant: Option<MerchantId>,
    ) -> impl Future<Output = Result<Vec<MerchantId>, CredentialError>> + Send;

    /// Returns up to `limit` merchants whose access tokens end within `span` and can be refreshed,
    /// with the time of this end. The earliest end comes first. With `after`, only merchants behind
    /// this place count.
    fn ending_within(
        &self,
        span: Duration,
        after: Option<(DateTime<Utc>, MerchantId)>,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<(DateTime<Utc>, MerchantId)>, CredentialError>> + Send;
}
