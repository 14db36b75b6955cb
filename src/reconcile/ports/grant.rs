//! What counts as a token, and as a name, wherever they come from: Salla's answers, its app events, and people. No error
//! quotes what was given.

use chrono::{DateTime, Datelike as _, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::{Registration, Tokens};
use crate::domain::MerchantId;

/// Servers refuse headers that are longer.
const LONGEST_TOKEN: usize = 8 << 10;

/// Characters.
const LONGEST_NAME: usize = 200;

/// Why given tokens or a given name cannot be stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A token that no header could carry.
    #[error("access_token or refresh_token is empty, or contains an invalid character")]
    Token,
    /// An end that no calendar of the database's has.
    #[error("expires_at is before 1970 or after 9999")]
    End,
    /// An unreadable name.
    #[error("name is empty, longer than {LONGEST_NAME} characters, or contains control characters")]
    Name,
}

impl Tokens {
    /// Tokens that can be sent.
    ///
    /// # Errors
    /// When a token is empty, not visible ASCII, or longer than 8 KiB, or the expiry is out of range.
    pub fn new(
        access: SecretString,
        refresh: Option<SecretString>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<Self, Unusable> {
        let sendable = |token: &SecretString| {
            let text = token.expose_secret();
            (1..=LONGEST_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !sendable(&access) || !refresh.as_ref().is_none_or(sendable) {
            return Err(Unusable::Token);
        }
        if expires_at.is_some_and(|end| !(1970..=9999).contains(&end.year())) {
            return Err(Unusable::End);
        }
        Ok(Self { access, refresh, expires_at, owner_confirmed: false })
    }
}

impl Registration {
    /// A registration as a person gives it.
    ///
    /// # Errors
    /// When the name cannot be shown.
    pub fn new(merchant_id: MerchantId, name: Option<String>, tokens: Tokens) -> Result<Self, Unusable> {
        let showable = |name: &String| {
            !name.trim().is_empty() && name.chars().count() <= LONGEST_NAME && !name.contains(char::is_control)
        };
        if !name.as_ref().is_none_or(showable) {
            return Err(Unusable::Name);
        }
        Ok(Self { merchant_id, name, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_tokens_are_refused() {
        let longest = "a".repeat(LONGEST_TOKEN);
        for (token, fine) in [
            ("ory_at_1.x-y", true),
            (longest.as_str(), true),
            (&format!("{longest}a"), false),
            ("", false),
            ("two lines", false),
            ("two\nlines", false),
            ("ünïcode", false),
        ] {
            assert_eq!(Tokens::new(token.into(), None, None).is_ok(), fine, "{token}");
            assert_eq!(Tokens::new("a".into(), Some(token.into()), None).is_ok(), fine, "{token}");
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        for (name, fine) in [("متجر", true), (" ", false), ("two\nlines", false), ("nul\0", false)] {
            let tokens = Tokens::new("a".into(), None, None).unwrap();
            assert_eq!(Registration::new(MerchantId(1), Some(name.to_owned()), tokens).is_ok(), fine, "{name:?}");
        }
    }
}
