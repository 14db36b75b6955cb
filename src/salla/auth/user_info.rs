//! The merchant that a token belongs to, by Salla's `oauth2/user/info`.

use std::{collections::HashMap, time::Duration};

use http::{StatusCode, header};
use parking_lot::Mutex;
use reqwest::Client;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::Url;

use super::refresh::{Auth, unauthorized};
use crate::{
    domain::MerchantId,
    error_text::causes,
    json_object::object,
    reconcile::ports::{CredentialStore, OwnerUnknown, SourceError, TokenOwner, Tokens},
    salla::{
        config::Config,
        outbound::token_client,
        wire::{
            error::into_source_error,
            read_body::whole_body,
            secret::bearer,
            values::{integer, present},
        },
    },
};

/// The timeout while an import or a webhook waits: a webhook must be answered within eight seconds.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The address at the host that issued the token.
#[derive(Debug, Clone)]
pub struct UserInfo {
    http: Client,
    url: Url,
    timeout: Duration,
}

impl UserInfo {
    /// Beside the token endpoint: `…/oauth2/token` has `…/oauth2/user/info`.
    ///
    /// # Errors
    /// When the TLS of this machine cannot be set up, or the address has no path.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            http: token_client(config)?,
            url: config.token_url.join("user/info")?,
            timeout: config.request_timeout,
        })
    }

    async fn owner_within(&self, access: &SecretString, timeout: Duration) -> Result<MerchantId, OwnerUnknown> {
        let bearer = bearer(access).map_err(|error| OwnerUnknown::NoAnswer(error.to_owned()))?;
        let request = self.http.get(self.url.clone()).header(header::AUTHORIZATION, bearer).timeout(timeout);
        let answer = request.send().await.map_err(|error| OwnerUnknown::NotNow(causes(&error)))?;
        // The body of an error may repeat the token.
        let status = answer.status();
        if !status.is_success() {
            let reason = format!("{status} from {}", self.url.path());
            let is_temporary = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            return Err(if is_temporary { OwnerUnknown::NotNow(reason) } else { OwnerUnknown::NoAnswer(reason) });
        }
        let body =
            whole_body(answer).await.map_err(|error| OwnerUnknown::NotNow(into_source_error(&error).to_string()))?;
        merchant_in(&String::from_utf8_lossy(&body))
            .ok_or_else(|| OwnerUnknown::NoAnswer("the answer names no merchant".to_owned()))
    }
}

/// A merchant whose token's owner could not be confirmed is asked about again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

/// The tokens whose owner Salla does not tell: their version, and when to ask again.
#[derive(Debug, Default)]
pub(in crate::salla) struct UnknownOwners(Mutex<HashMap<MerchantId, (i64, Instant)>>);

impl UnknownOwners {
    fn is_due(&self, merchant: MerchantId, version: i64) -> bool {
        self.0.lock().get(&merchant).is_none_or(|(asked, again)| *asked != version || *again <= Instant::now())
    }
}

impl<C: CredentialStore> Auth<C> {
    /// Refuses tokens that belong to another merchant. Such tokens come from a refresh token that was imported for the
    /// wrong merchant, or were stored while Salla did not answer. Asks Salla once for each version that is not confirmed.
    pub(in crate::salla) async fn require_owner(
        &self,
        merchant: MerchantId,
        version: i64,
        tokens: &Tokens,
    ) -> Result<(), SourceError> {
        if tokens.owner_confirmed || !self.unknown_owners.is_due(merchant, version) {
            return Ok(());
        }
        match self.user_info.owner_within(&tokens.access, self.user_info.timeout).await {
            Ok(owner) if owner != merchant => {
                self.give_up(merchant, version).await?;
                return Err(unauthorized(merchant, &format!("the token belongs to merchant {owner}")));
            }
            Ok(_) => self.store.confirm_owner(merchant, version).await?,
            Err(OwnerUnknown::NotNow(reason)) => {
                let reason = format!("the owner of the token cannot be confirmed: {reason}");
                return Err(SourceError::Unavailable { reason, per_row: false });
            }
            Err(OwnerUnknown::NoAnswer(reason)) => {
                tracing::warn!(
                    merchant.id = merchant.0,
                    reason,
                    "Salla does not say which merchant the token belongs to; the token is used unchecked"
                );
                self.unknown_owners.0.lock().insert(merchant, (version, Instant::now() + ASK_AGAIN));
            }
        }
        Ok(())
    }
}

impl TokenOwner for UserInfo {
    async fn owner(&self, access: &SecretString) -> Result<MerchantId, OwnerUnknown> {
        self.owner_within(access, self.timeout.min(SHORT_TIMEOUT)).await
    }
}

/// `merchant.id`, with or without `data` around it. `data.id` is the user's id, and never read.
fn merchant_in(json: &str) -> Option<MerchantId> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        merchant: Option<&'a RawValue>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Merchant<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let answer: Answer<'_> = object(json.trim_start_matches('\u{feff}')).ok()?;
    match present(answer.merchant) {
        Some(merchant) => object::<Merchant<'_>>(merchant.get()).ok()?.id.and_then(integer).map(MerchantId),
        None => merchant_in(present(answer.data)?.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_merchant_id_is_read() {
        for (json, id) in [
            (r#"{"id":1,"merchant":{"id":7,"name":"m"}}"#, Some(7)),
            (r#"{"data":{"id":1,"merchant":{"id":"7"}}}"#, Some(7)),
            ("\u{feff}{\"merchant\":{\"id\":7}}", Some(7)),
            (r#"{"data":{"id":7}}"#, None),
            (r#"{"id":7}"#, None),
            (r#"{"merchant":{"id":"x"}}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(merchant_in(json), id.map(MerchantId), "{json}");
        }
    }
}
