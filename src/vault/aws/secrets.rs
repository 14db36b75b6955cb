//! Tokens in AWS Secrets Manager, one secret per merchant. The database keeps which version of the
//! secret has the valid tokens. So the mark of a refresh means the same as in the other token
//! backends.
//!
//! New tokens are put as `AWSPENDING`, the database is told, and then they become `AWSCURRENT`. A process may go away between
//! any two of these:
//! - The version that a refresh makes has a name that follows from the one before it, so the next reader finds it
//!   ([`TokenBackend::successor`]).
//! - A version that the database names and that is not current yet becomes it when it is read.
//! - A version that the database does not know stays pending until the next one is put, and is never read.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use zeroize::Zeroizing;

use super::{
    super::backend::TokenBackend,
    Aws, AwsError, Recent, recent,
    version::{
        CURRENT, Content, NOT_FOR_US, PENDING, Read, SCHEME, Version, id_of, is_to_be_current, reference, successor_of,
        text_of, unreadable,
    },
};
use crate::{
    domain::MerchantId,
    json_object::object,
    reconcile::ports::{CredentialError, Sealed, Tokens},
};

const SERVICE: &str = "AWS Secrets Manager";

/// A secret that is deleted can be restored this long: a merchant that comes back at the same moment finds it again.
const RECOVERY_DAYS: i64 = 7;

/// How often a secret that another process deletes or creates is looked at again.
const PUT_AT_MOST: u32 = 3;

/// No merchant has this id.
const NO_MERCHANT: MerchantId = MerchantId(0);

#[derive(Debug)]
pub(super) struct Secrets {
    aws: Arc<Aws>,
    prefix: String,
    /// The key that encrypts new secrets; empty: the default key of the account.
    kms_key: String,
    recent: Recent<Version>,
}

impl Secrets {
    pub fn new(aws: Arc<Aws>, prefix: String, kms_key: String) -> Self {
        Self { aws, prefix, kms_key, recent: recent() }
    }

    fn name(&self, merchant: MerchantId) -> String {
        format!("{}{merchant}", self.prefix)
    }

    /// The version of that id.
    async fn read(&self, merchant: MerchantId, id: &str) -> Result<Read, CredentialError> {
        let mut restored = false;
        loop {
            let request = self.aws.secrets().await?.get_secret_value();
            let answer = request.secret_id(self.name(merchant)).version_id(id).send().await;
            return match answer.map_err(|error| AwsError::of(SERVICE, &error)) {
                Ok(answer) => self.version(merchant, id, answer).map(Read::Found),
                Err(AwsError::Refused { code, message }) if code == "ResourceNotFoundException" => {
                    Ok(Read::None(message))
                }
                // It was about to be deleted when the merchant came back.
                Err(AwsError::Refused { code, .. }) if code == "InvalidRequestException" && !restored => {
                    self.restore(merchant).await?;
                    restored = true;
                    continue;
                }
                Err(error) => Err(error.about(merchant)),
            };
        }
    }

    fn version(
        &self,
        merchant: MerchantId,
        id: &str,
        answer: GetSecretValueOutput,
    ) -> Result<Version, CredentialError> {
        let is_to_be_current = is_to_be_current(answer.version_stages.as_deref().unwrap_or_default());
        let text = Zeroizing::new(answer.secret_string.unwrap_or_default());
        let content: Content = object(&text).map_err(|error| {
            // The error may quote what stands there.
            unreadable(
                merchant,
                format!("the secret {} was changed by hand (column {})", self.name(merchant), error.column()),
            )
        })?;
        if content.merchant_id != merchant {
            return Err(unreadable(
                merchant,
                format!("the secret {} belongs to merchant {}", self.name(merchant), content.merchant_id),
            ));
        }
        Ok(Version { id: id.to_owned(), tokens: content.into(), is_to_be_current })
    }

    async fn restore(&self, merchant: MerchantId) -> Result<(), CredentialError> {
        let request = self.aws.secrets().await?.restore_secret().secret_id(self.name(merchant));
        let restored = request.send().await.map_err(|error| AwsError::of(SERVICE, &error).into_unavailable());
        restored.map(|_| tracing::warn!(merchant.id = merchant.0, "a secret that was about to be deleted is restored"))
    }

    /// Puts a version; the same one any number of times.
    async fn put(&self, merchant: MerchantId, id: &str, tokens: &Tokens) -> Result<(), CredentialError> {
        let text = text_of(merchant, tokens)?;
        for _ in 0..PUT_AT_MOST {
            let request = self.aws.secrets().await?.put_secret_value().secret_id(self.name(merchant));
            let request = request.client_request_token(id).version_stages(PENDING).secret_string(text.as_str());
            match request.send().await.map_err(|error| AwsError::of(SERVICE, &error)) {
                Ok(_) => return Ok(()),
                Err(AwsError::Refused { code, .. }) if code == "ResourceNotFoundException" => {
                    if self.create(merchant, id, &text).await? {
                        return Ok(());
                    }
                    // Another was first, and this is one version of several.
                }
                Err(AwsError::Refused { code, .. }) if code == "InvalidRequestException" => {
                    self.restore(merchant).await?;
                }
                Err(error) => return Err(error.into_unavailable()),
            }
        }
        Err(CredentialError::Unavailable {
            reason: format!("{SERVICE}: {} changes between reads", self.name(merchant)),
        })
    }

    /// Checks that a version may be put. An existing version is not put twice, and nothing is created.
    async fn may_put(&self, merchant: MerchantId, id: &str, text: &str) -> Result<(), CredentialError> {
        let request = self.aws.secrets().await?.put_secret_value().secret_id(self.name(merchant));
        let request = request.client_request_token(id).secret_string(text);
        match request.send().await.map_err(|error| AwsError::of(SERVICE, &error)) {
            Ok(_) => Ok(()),
            Err(AwsError::Refused { code, .. }) if NOT_FOR_US.contains(&code.as_str()) => Ok(()),
            Err(error) => Err(error.into_unavailable()),
        }
    }

    /// False: there is one.
    async fn create(&self, merchant: MerchantId, id: &str, text: &str) -> Result<bool, CredentialError> {
        let kms_key = Some(self.kms_key.clone()).filter(|key| !key.is_empty());
        let request = self.aws.secrets().await?.create_secret().name(self.name(merchant)).set_kms_key_id(kms_key);
        let request = request.client_request_token(id).secret_string(text);
        let request = request.description(format!("Salla tokens of merchant {merchant}, stored by salla-reconciler"));
        match request.send().await.map_err(|error| AwsError::of(SERVICE, &error)) {
            Ok(_) => Ok(true),
            Err(AwsError::Refused { code, .. }) if code == "ResourceExistsException" => Ok(false),
            Err(error) => Err(error.into_unavailable()),
        }
    }

    /// Makes the version current, if needed.
    async fn promote(&self, merchant: MerchantId, id: &str) -> Result<(), CredentialError> {
        let client = self.aws.secrets().await?;
        let name = self.name(merchant);
        let described = client.describe_secret().secret_id(&name).send().await;
        let described = described.map_err(|error| AwsError::of(SERVICE, &error).into_unavailable())?;
        let versions = described.version_ids_to_stages.unwrap_or_default();
        if !versions.get(id).is_some_and(|stages| is_to_be_current(stages)) {
            return Ok(());
        }
        let mut others = versions.iter().filter(|(_, stages)| stages.iter().any(|stage| stage == CURRENT));
        let current = others.next().map(|(version, _)| version.clone());
        let request = client.update_secret_version_stage().secret_id(&name).version_stage(CURRENT);
        let request = request.move_to_version_id(id).set_remove_from_version_id(current);
        request.send().await.map_err(|error| AwsError::of(SERVICE, &error).into_unavailable())?;
        Ok(())
    }

    /// The same, where the tokens are had either way.
    async fn promote_if_possible(&self, merchant: MerchantId, id: &str) {
        if let Err(error) = self.promote(merchant, id).await {
            tracing::warn!(merchant.id = merchant.0, error = %error, "the valid version of the secret is not marked as current yet");
        }
    }

    async fn delete(&self, merchant: MerchantId) -> Result<(), CredentialError> {
        self.recent.remove(&merchant);
        let request = self.aws.secrets().await?.delete_secret().secret_id(self.name(merchant));
        match request.recovery_window_in_days(RECOVERY_DAYS).send().await.map_err(|error| AwsError::of(SERVICE, &error))
        {
            Ok(_) => Ok(()),
            Err(AwsError::Refused { code, .. })
                if code == "ResourceNotFoundException" || code == "InvalidRequestException" =>
            {
                // It was never there, or is deleted already.
                Ok(())
            }
            Err(AwsError::Away(reason) | AwsError::Refused { message: reason, .. }) => {
                let reason = format!(
                    "the secret {name} is no longer needed and could not be deleted: {reason}; delete it by hand: \
                     aws secretsmanager delete-secret --secret-id {name} --recovery-window-in-days {RECOVERY_DAYS}",
                    name = self.name(merchant)
                );
                Err(CredentialError::Unavailable { reason })
            }
        }
    }
}

#[async_trait]
impl TokenBackend for Secrets {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    async fn key(&self) -> Result<String, CredentialError> {
        // Checks access for reading and writing.
        self.read(NO_MERCHANT, &successor_of("")).await.map_err(|error| match error {
            CredentialError::Unreadable { reason, .. } => CredentialError::Unavailable { reason },
            error => error,
        })?;
        self.may_put(NO_MERCHANT, &successor_of(""), "{}").await?;
        Ok(SERVICE.to_owned())
    }

    fn key_of(&self, sealed: &Sealed) -> Option<String> {
        id_of(sealed).map(|_| SERVICE.to_owned())
    }

    async fn seal(
        &self,
        merchant: MerchantId,
        tokens: &Tokens,
        renewed: Option<&Tokens<Sealed>>,
    ) -> Result<Tokens<Sealed>, CredentialError> {
        let id = match renewed.and_then(|present| id_of(&present.access)) {
            Some(present) => successor_of(present),
            None => hex::encode(rand::random::<[u8; 32]>()),
        };
        self.put(merchant, &id, tokens).await?;
        Ok(reference(&id, tokens))
    }

    async fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError> {
        let id =
            id_of(&sealed.access).ok_or_else(|| unreadable(merchant, "the stored text is not an encrypted token"))?;
        if sealed.refresh.as_ref().is_some_and(|refresh| *refresh != sealed.access) {
            return Err(unreadable(merchant, "the two stored texts name different versions of a secret"));
        }
        let version = match self.recent.get(&merchant, Duration::ZERO).filter(|version| version.id == id) {
            Some(version) => version,
            None => match self.read(merchant, id).await? {
                Read::Found(version) => {
                    if version.is_to_be_current {
                        self.promote_if_possible(merchant, id).await;
                    }
                    self.recent.insert(merchant, Arc::new(version))
                }
                Read::None(message) => return Err(unreadable(merchant, message)),
            },
        };
        // Whether there is one to be used is the database's to say.
        let refresh = sealed.refresh.as_ref().and(version.tokens.refresh.clone());
        Ok(sealed.with_texts(version.tokens.access.clone(), refresh))
    }

    async fn prepare(&self, merchant: MerchantId, present: &Tokens<Sealed>) -> Result<(), CredentialError> {
        let Some(id) = id_of(&present.access) else { return Ok(()) };
        let Some(version) = self.recent.get(&merchant, Duration::ZERO).filter(|version| version.id == id) else {
            // It was read a moment ago, unless there are more merchants than are kept.
            return Ok(());
        };
        self.may_put(merchant, id, &text_of(merchant, &version.tokens)?).await
    }

    async fn successor(
        &self,
        merchant: MerchantId,
        present: &Tokens<Sealed>,
    ) -> Result<Option<Tokens<Sealed>>, CredentialError> {
        let Some(id) = id_of(&present.access).map(successor_of) else { return Ok(None) };
        match self.read(merchant, &id).await? {
            Read::Found(version) => Ok(Some(reference(&id, &version.tokens))),
            Read::None(_) => Ok(None),
        }
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn settle(&self, merchant: MerchantId, held: Option<&Tokens<Sealed>>) -> Result<(), CredentialError> {
        match held.and_then(|tokens| id_of(&tokens.access)) {
            Some(id) => self.promote(merchant, id).await,
            None => self.delete(merchant).await,
        }
    }
}
