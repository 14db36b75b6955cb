//! Writing what must not be lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    domain::MerchantId,
    reconcile::ports::{CredentialError, SourceError},
};

/// Pauses before what could not be written is written again: they double from one to the other.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);
const SAVE_AGAIN_AT_LEAST_EVERY: Duration = Duration::from_secs(16);

/// Writes what is known nowhere else: again and again, until `hope` ends; `None`: as long as the process lives.
pub(in crate::salla) async fn save_until<F>(
    merchant: MerchantId,
    what: &str,
    deadline: Option<Instant>,
    write: impl Fn() -> F,
) -> Result<(), SourceError>
where
    F: Future<Output = Result<(), CredentialError>>,
{
    let mut pause = SAVE_AGAIN_AFTER;
    loop {
        match write().await {
            Ok(()) => return Ok(()),
            Err(error) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                tracing::error!(merchant.id = merchant.0, error = %error, "{what} could not be written; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(SAVE_AGAIN_AT_LEAST_EVERY);
            }
            Err(error) => {
                tracing::error!(merchant.id = merchant.0, error = %error, "{what} could not be written; giving up");
                return Err(error.into());
            }
        }
    }
}
