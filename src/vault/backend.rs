//! The token backends, which seal tokens and open sealed ones.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Choice, Config, KeyRing, KeyRingError};
use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, Sealed, Tokens},
};

/// One way of keeping tokens.
///
/// A sealed text begins with the [`scheme`](Self::scheme) of its token backend and a dot. It is
/// bound to its merchant. A text that contains a token is also bound to the kind of the token.
#[async_trait]
pub(super) trait TokenBackend: fmt::Debug + Send + Sync {
    /// What its texts begin with.
    fn scheme(&self) -> &'static str;

    /// The name of the key that encrypts now. Asks the token store if the key is there.
    async fn key(&self) -> Result<String, CredentialError>;

    /// Further keys that open.
    fn other_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// The key that a text names.
    fn key_of(&self, sealed: &Sealed) -> Option<String>;

    /// Seals a merchant's tokens. `renewed`: those that they are the successors of; the same successors of the same
    /// tokens may be sealed any number of times.
    async fn seal(
        &self,
        merchant: MerchantId,
        tokens: &Tokens,
        renewed: Option<&Tokens<Sealed>>,
    ) -> Result<Tokens<Sealed>, CredentialError>;

    /// Opens what it sealed.
    async fn open(&self, merchant: MerchantId, sealed: &Tokens<Sealed>) -> Result<Tokens, CredentialError>;

    /// Ensures that the successors of `present` can be encrypted, even if the token store fails within two minutes.
    async fn prepare(&self, _: MerchantId, _present: &Tokens<Sealed>) -> Result<(), CredentialError> {
        Ok(())
    }

    /// The successors of `present` that were stored without an update of the database.
    async fn successor(
        &self,
        _: MerchantId,
        _present: &Tokens<Sealed>,
    ) -> Result<Option<Tokens<Sealed>>, CredentialError> {
        Ok(None)
    }

    /// Whether anything of what it seals is kept outside of the database.
    fn is_outside(&self) -> bool {
        false
    }

    /// Lets what is kept outside follow what the database holds now.
    async fn settle(&self, _: MerchantId, _held: Option<&Tokens<Sealed>>) -> Result<(), CredentialError> {
        Ok(())
    }
}

/// All backends. One seals, all open.
#[derive(Debug, Clone)]
pub struct TokenBackends {
    active: Arc<dyn TokenBackend>,
    all: Vec<Arc<dyn TokenBackend>>,
}

/// Keys of one's own, and nothing else.
impl From<KeyRing> for TokenBackends {
    fn from(ring: KeyRing) -> Self {
        let ring: Arc<dyn TokenBackend> = Arc::new(ring);
        Self { active: Arc::clone(&ring), all: vec![ring] }
    }
}

impl TokenBackends {
    /// The backends that the configuration names. Those that are elsewhere are not asked yet.
    ///
    /// # Errors
    /// When there are keys and they cannot be read. Without any, nothing is sealed or opened under one.
    pub fn new(config: &Config) -> Result<Self, KeyRingError> {
        let ring: Arc<dyn TokenBackend> = Arc::new(match KeyRing::parse(&config.keys) {
            Err(KeyRingError::Empty) => KeyRing::empty(),
            ring => ring?,
        });
        #[cfg(not(feature = "aws"))]
        let (all, active) = (vec![ring], 0);
        #[cfg(feature = "aws")]
        let (all, active) = {
            let [kms, secrets] = super::aws::backends(config);
            let active = match config.backend {
                Choice::Local => 0,
                Choice::Kms => 1,
                Choice::SecretsManager => 2,
            };
            (vec![ring, kms, secrets], active)
        };
        Ok(Self { active: Arc::clone(&all[active]), all })
    }

    /// The one that seals.
    pub(super) fn active(&self) -> &dyn TokenBackend {
        &*self.active
    }

    /// The one that a text names.
    pub(super) fn of(&self, sealed: &Sealed) -> Option<&dyn TokenBackend> {
        let (scheme, _) = sealed.0.split_once('.')?;
        self.all.iter().find(|backend| backend.scheme() == scheme).map(|backend| &**backend)
    }

    /// Those that keep anything outside of the database.
    pub(super) fn outside(&self) -> impl Iterator<Item = &dyn TokenBackend> {
        self.all.iter().map(|backend| &**backend).filter(|backend| backend.is_outside())
    }

    /// Every key that is known here and does not seal.
    pub(super) fn other_keys(&self) -> Vec<String> {
        self.all.iter().flat_map(|backend| backend.other_keys()).collect()
    }
}

/// Whether this program was built with `choice`.
pub(super) fn is_built_with(choice: Choice) -> bool {
    choice == Choice::Local || cfg!(feature = "aws")
}
