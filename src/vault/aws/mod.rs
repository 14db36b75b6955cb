//! Token backends in AWS. Region, credentials and endpoints come from where every AWS SDK finds them: the environment, a role of
//! the task or the pod, a profile.

mod kms;
mod secrets;
mod version;

use std::{error::Error, fmt::Write as _, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::OnceCell;

use super::{Config, backend::TokenBackend};
use crate::{domain::MerchantId, error_text::clip, reconcile::ports::CredentialError, ttl_map::TtlMap};

/// AWS answers in milliseconds. Short enough for a webhook that waits for it to be answered in time.
const TIMEOUT: Duration = Duration::from_secs(8);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 3;

/// KMS and Secrets Manager. Nothing is asked yet.
pub(super) fn backends(config: &Config) -> [Arc<dyn TokenBackend>; 2] {
    let aws = Arc::new(Aws::default());
    [
        Arc::new(kms::Kms::new(Arc::clone(&aws), config.kms_key.clone())),
        Arc::new(secrets::Secrets::new(aws, config.secrets_prefix.clone(), config.kms_key.clone())),
    ]
}

/// The clients, made when they are first needed.
#[derive(Debug, Default)]
struct Aws {
    settings: OnceCell<SdkConfig>,
    kms: OnceCell<aws_sdk_kms::Client>,
    secrets: OnceCell<aws_sdk_secretsmanager::Client>,
}

impl Aws {
    async fn settings(&self) -> Result<&SdkConfig, CredentialError> {
        let load = async || {
            let timeouts =
                TimeoutConfig::builder().operation_timeout(TIMEOUT).operation_attempt_timeout(ATTEMPT_TIMEOUT);
            aws_config::defaults(BehaviorVersion::latest())
                .timeout_config(timeouts.build())
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .load()
                .await
        };
        // Without a region, look again next time: its source may be unavailable now.
        self.settings
            .get_or_try_init(|| async {
                let settings = load().await;
                if settings.region().is_none() {
                    let reason = "no AWS region is set: set AWS_REGION".to_owned();
                    return Err(CredentialError::Unavailable { reason });
                }
                Ok(settings)
            })
            .await
    }

    async fn kms(&self) -> Result<&aws_sdk_kms::Client, CredentialError> {
        let settings = self.settings().await?;
        Ok(self.kms.get_or_init(|| async { aws_sdk_kms::Client::new(settings) }).await)
    }

    async fn secrets(&self) -> Result<&aws_sdk_secretsmanager::Client, CredentialError> {
        let settings = self.settings().await?;
        Ok(self.secrets.get_or_init(|| async { aws_sdk_secretsmanager::Client::new(settings) }).await)
    }
}

/// What AWS answered, if it did.
enum AwsError {
    /// It does not, or says that it cannot now.
    Away(String),
    /// It refuses: its code, and its words.
    Refused { code: String, message: String },
}

/// Codes that say nothing about what was asked, but about the moment, or about who asks.
const NOT_NOW: [&str; 16] = [
    "DependencyTimeoutException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InternalFailure",
    "InternalServiceError",
    "KMSInternalException",
    "KeyUnavailableException",
    "LimitExceededException",
    "RequestExpired",
    "RequestLimitExceeded",
    "RequestTimeTooSkewed",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

impl AwsError {
    fn of<E>(service: &str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let SdkError::ServiceError(refusal) = error {
            let status = refusal.raw().status();
            let message = clip(refusal.err().message().unwrap_or_default());
            let Some(code) = refusal.err().code().map(str::to_owned) else {
                // It is not AWS that answers.
                return Self::Away(format!("{service}: HTTP {status} without an error code {message}"));
            };
            if !NOT_NOW.contains(&code.as_str()) && status.as_u16() != 429 && !status.is_server_error() {
                let message = format!("{service}: {code}: {message}");
                return Self::Refused { code, message };
            }
            return Self::Away(format!("{service} cannot answer now: {code}: {message}"));
        }
        let (mut text, mut cause) = (format!("{service} does not answer"), Error::source(error));
        while let Some(this) = cause {
            let told = this.to_string();
            if told.contains("loading credentials") {
                "no AWS credentials are available".clone_into(&mut text);
            // Some show all of the request.
            } else if !told.contains("SdkBody") {
                let _ = write!(text, ": {told}");
            }
            cause = this.source();
        }
        Self::Away(clip(&text))
    }

    /// A refusal is the fault of what was asked for, for a merchant's tokens.
    fn about(self, merchant: MerchantId) -> CredentialError {
        match self {
            Self::Away(reason) => CredentialError::Unavailable { reason },
            Self::Refused { message, .. } => CredentialError::Unreadable { merchant, reason: message },
        }
    }

    /// Every stored token is in order: only the requested action was impossible.
    fn into_unavailable(self) -> CredentialError {
        let (Self::Away(reason) | Self::Refused { message: reason, .. }) = self;
        CredentialError::Unavailable { reason }
    }
}

/// As long as this, an answer of AWS is used without asking again. A key that is taken away in AWS works no longer than
/// this.
const USED_FOR: Duration = Duration::from_secs(600);

/// So many merchants' answers are kept. Those in excess are asked for each time.
const MOST_KEPT: usize = 10_000;

/// An answer for each merchant.
type Recent<T> = TtlMap<MerchantId, Arc<T>>;

fn recent<T>() -> Recent<T> {
    TtlMap::new(USED_FOR, MOST_KEPT)
}
