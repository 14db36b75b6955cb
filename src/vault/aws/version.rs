//! A version of a secret: its content, its name, and which version is current.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, Sealed, Tokens},
};

/// What its references begin with.
pub const SCHEME: &str = "sm1";

pub const PENDING: &str = "AWSPENDING";
pub const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// Refusals of what was put, by which it is known that it may be: no such secret, one that is deleted, another text.
pub const NOT_FOR_US: [&str; 3] = ["ResourceNotFoundException", "InvalidRequestException", "ResourceExistsException"];

/// A version of a secret.
pub struct Version {
    pub id: String,
    pub tokens: Tokens,
    pub is_to_be_current: bool,
}

/// What came of a request for a version.
pub enum Read {
    Found(Version),
    /// The secret, or this version of it, does not exist.
    None(String),
}

/// What a secret reads: a line of an import.
#[derive(Serialize, Deserialize)]
pub struct Content {
    pub merchant_id: MerchantId,
    #[serde(serialize_with = "shown")]
    pub access_token: SecretString,
    #[serde(serialize_with = "shown_if_any")]
    pub refresh_token: Option<SecretString>,
    pub expires_at: Option<DateTime<Utc>>,
}

fn shown<S: Serializer>(token: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    token.expose_secret().serialize(to)
}

fn shown_if_any<S: Serializer>(token: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(ExposeSecret::expose_secret).serialize(to)
}

/// The version that a sealed text names.
pub fn id_of(sealed: &Sealed) -> Option<&str> {
    sealed.0.strip_prefix(SCHEME)?.strip_prefix('.').filter(|id| !id.is_empty())
}

/// The name of the version that succeeds `id`.
pub fn successor_of(id: &str) -> String {
    hex::encode(Sha256::digest(format!("salla-reconciler/successor/{id}")))
}

/// Whether a version that the database names is to be made the current one. It was so before if it is the previous one, and
/// the database has moved on since it was read.
pub fn is_to_be_current(stages: &[String]) -> bool {
    let has = |stage: &str| stages.iter().any(|label| label == stage);
    !has(CURRENT) && (has(PENDING) || !has(PREVIOUS))
}

impl From<Content> for Tokens {
    fn from(content: Content) -> Self {
        Self {
            access: content.access_token,
            refresh: content.refresh_token,
            expires_at: content.expires_at,
            owner_confirmed: false,
        }
    }
}

/// What the database keeps of a version.
pub fn reference(id: &str, tokens: &Tokens) -> Tokens<Sealed> {
    let text = || Sealed(format!("{SCHEME}.{id}"));
    tokens.with_texts(text(), tokens.refresh.as_ref().map(|_| text()))
}

/// What a secret reads.
pub fn text_of(merchant: MerchantId, tokens: &Tokens) -> Result<Zeroizing<String>, CredentialError> {
    let content = Content {
        merchant_id: merchant,
        access_token: tokens.access.clone(),
        refresh_token: tokens.refresh.clone(),
        expires_at: tokens.expires_at,
    };
    let text = serde_json::to_string(&content).map(Zeroizing::new);
    text.map_err(|_| unreadable(merchant, "the tokens cannot be written as JSON"))
}

/// A token that cannot be had, and why.
pub fn unreadable(merchant: MerchantId, reason: impl Into<String>) -> CredentialError {
    CredentialError::Unreadable { merchant, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_version_follows_from_the_one_before() {
        let first = successor_of("a");
        assert_eq!(first, successor_of("a"));
        assert_ne!(first, successor_of("b"));
        // Between 32 and 64 characters are taken.
        assert_eq!(first.len(), 64);
    }

    #[test]
    fn a_secret_reads_like_a_line_of_an_import() {
        let content =
            Content { merchant_id: MerchantId(1001), access_token: "a".into(), refresh_token: None, expires_at: None };
        let text = serde_json::to_string(&content).unwrap();
        assert_eq!(text, r#"{"merchant_id":1001,"access_token":"a","refresh_token":null,"expires_at":null}"#);
    }

    #[test]
    fn an_old_version_does_not_become_current_again() {
        let of = |stages: &[&str]| is_to_be_current(&stages.iter().map(|&stage| stage.to_owned()).collect::<Vec<_>>());
        assert!(of(&[PENDING]));
        assert!(of(&[]), "another was put since, and took the label");
        assert!(of(&[PENDING, PREVIOUS]), "a reader that came late has moved the label back");
        assert!(!of(&[PREVIOUS]));
        assert!(!of(&[CURRENT]));
        assert!(!of(&[CURRENT, PENDING]));
    }

    #[test]
    fn a_reference_names_a_version() {
        assert_eq!(id_of(&Sealed("sm1.abc".to_owned())), Some("abc"));
        for none in ["", "sm1", "sm1.", "sm2.abc", "v1.k.n.c"] {
            assert_eq!(id_of(&Sealed(none.to_owned())), None);
        }
    }
}
