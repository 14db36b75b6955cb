//! One request to Salla, from token to envelope.
//!
//! It passes through these middlewares, outermost first:
//!
//! 1. retry of transient errors
//! 2. the count of attempts
//! 3. `Retry-After`
//! 4. the limits of the merchant and of the process
//! 5. the limit of the IP address
//! 6. the circuit breaker
//! 7. reading and checking of the answer
//!
//! So every attempt counts for its limit. A probe is a request that is sent. A broken answer is
//! retried like a broken connection.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use secrecy::SecretString;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    answer::{Answer, accept},
    circuit_breaker::{AfterFailure, Circuit, CircuitBreakerLayer, LOOK_AGAIN, OnOpenCircuit},
    ip_rate_limit::IpRateLimit,
    large_responses::LargeAnswers,
    rate_limit::{Limiters, ProcessLimit, Throttle},
    request::Get,
    response::{Call, ReadAnswer},
    retry::{CountAttempts, transient},
    too_many_requests::ObeyRetryAfter,
    waits::Waits,
};
use crate::{
    domain::{MerchantId, Wait},
    reconcile::{
        Heartbeat, Metrics,
        ports::{BackoffStore, CredentialStore, IpRateLimitStore, RateLimitState, RequestCount, SourceError, Tokens},
    },
    salla::{
        auth::{
            refresh::{Auth, unauthorized},
            token_endpoint::TokenEndpoint,
            user_info::UserInfo,
        },
        config::{Config, ListingChoice},
        outbound::{plain_client, token_client},
        resources::api_resource::ReadOptions,
        wire::{
            envelope::Envelope,
            error::into_source_error,
            refusal::{Refusal, description, is_from_salla, refusal},
            secret::bearer,
        },
    },
};

/// A token endpoint that takes longer has lost the refresh.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Salla's API, for every merchant.
#[derive(Debug)]
pub struct SallaClient<C> {
    http: ClientWithMiddleware,
    pub(in crate::salla) auth: Auth<C>,
    pub(in crate::salla) circuit: Arc<Circuit>,
    limiters: Arc<Limiters>,
    waits: Waits,
    api_url: Url,
    pub(in crate::salla) listing: ListingChoice,
    /// At one request.
    pub(in crate::salla) max_attempts: u32,
    pub(in crate::salla) reading: ReadOptions,
}

impl<C: CredentialStore> RateLimitState for SallaClient<C> {
    fn recent_requests(&self, merchant: MerchantId) -> u32 {
        self.limiters.recent_requests(merchant)
    }

    fn add_recent_requests(&self, merchant: MerchantId, recent_requests: Option<u32>) {
        self.limiters.add_recent_requests(merchant, recent_requests);
    }

    fn waiting(&self, merchant: MerchantId) -> Option<(Wait, Duration)> {
        self.waits.of(merchant)
    }
}

impl<C: CredentialStore> SallaClient<C> {
    /// Builds the client; connections are made when they are needed. Pauses that Salla asks for are kept in `pauses`.
    ///
    /// # Errors
    /// When the TLS of this machine cannot be set up.
    pub fn new(
        config: &Config,
        reading: ReadOptions,
        when_open: OnOpenCircuit,
        credentials: Arc<C>,
        pauses: Arc<impl BackoffStore + IpRateLimitStore>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let plain = plain_client(config)?;
        let waits = Waits::default();
        let limiters = Arc::new(Limiters::new(config.requests_per_minute, config.limit_share, waits.clone()));
        let circuit = Arc::new(Circuit::new(when_open, config.max_attempts, waits.clone(), Arc::clone(&metrics)));
        let http = ClientBuilder::new(plain)
            .with(transient(config.max_attempts))
            .with(CountAttempts { max_attempts: config.max_attempts })
            .with(ObeyRetryAfter {
                limiters: Arc::clone(&limiters),
                pauses: Arc::clone(&pauses),
                max_attempts: config.max_attempts,
                longest: config.max_retry_after,
            })
            .with(Throttle {
                limiters: Arc::clone(&limiters),
                pauses: Arc::clone(&pauses),
                process: ProcessLimit::new(config.max_requests_per_minute),
                metrics: Arc::clone(&metrics),
            })
            .with(IpRateLimit {
                budget: pauses,
                allowance: config.customer_requests_per_10_minutes,
                when_open,
                waits: waits.clone(),
                metrics: Arc::clone(&metrics),
            })
            .with(CircuitBreakerLayer(Arc::clone(&circuit)))
            .with(ReadAnswer { metrics: Arc::clone(&metrics), large: LargeAnswers::default() })
            .build();
        let endpoint = TokenEndpoint {
            http: token_client(config)?,
            url: config.token_url.clone(),
            client_id: config.client_id.clone(),
            client_secret: config.client_secret.clone(),
            // Short enough for a running refresh to end within the grace after SIGTERM.
            timeout: config.request_timeout.min(TOKEN_TIMEOUT),
        };
        Ok(Self {
            http,
            auth: Auth::new(credentials, endpoint, UserInfo::new(config)?, metrics),
            circuit,
            limiters,
            waits,
            api_url: config.api_url.clone(),
            listing: config.listing,
            max_attempts: config.max_attempts,
            reading,
        })
    }

    /// Renews tokens ahead of their end, also where no run asks for them, until `stop` is called.
    pub async fn keep_tokens(&self, heartbeat: &Heartbeat, stop: &CancellationToken) {
        self.auth.keep(heartbeat, stop).await;
    }

    /// The tokens of a merchant as they are stored, refreshed ahead of their expiry.
    ///
    /// # Errors
    /// When no token is stored, it has expired, Salla refuses it, or it cannot be refreshed now.
    pub async fn tokens(&self, merchant: MerchantId) -> Result<Tokens, SourceError> {
        self.auth.usable_tokens(merchant).await
    }

    /// The number of running token refreshes.
    #[must_use]
    pub fn refreshes_under_way(&self) -> usize {
        self.auth.under_way()
    }

    /// Waits until no token refresh runs.
    pub async fn drain(&self) {
        self.auth.drain().await;
    }

    /// Gets what is asked for, with the merchant's token, which is renewed once if Salla says that it has ended.
    /// While Salla is down, requests of the daemon wait for it without a limit of attempts.
    pub(in crate::salla) async fn get(&self, get: &Get<'_>) -> Result<Answer, SourceError> {
        loop {
            match self.get_once(get).await {
                Ok(answer) => return Ok(answer),
                // The caller asks for single rows next, which show whether Salla answers.
                Err(error) if get.divisible.is_divided() && error.is_per_row() => return Err(error),
                Err(error) => match self.circuit.after(get.merchant, error) {
                    AfterFailure::GiveUp(error) => return Err(error),
                    // A pause is needed, because the failure may come from a layer before the circuit.
                    AfterFailure::SendAgain => sleep(LOOK_AGAIN).await,
                },
            }
        }
    }

    async fn get_once(&self, get: &Get<'_>) -> Result<Answer, SourceError> {
        let merchant = get.merchant;
        let credentials = self.auth.credentials(merchant).await?;
        let version = credentials.version;
        let sent = credentials.tokens.access.clone();
        let first = self.send(get, sent.clone(), None).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return accept(first);
        }
        // A proxy's 401 must not cost the refresh token.
        if is_from_salla(&first) && refusal(&description(&first)) == Refusal::TokenEnded {
            let renewed = match self.auth.renew(merchant, credentials).await {
                Err(SourceError::Unauthorized { reason, .. }) if get.single => {
                    return Err(SourceError::Rejected { reason });
                }
                Err(error @ SourceError::Unauthorized { .. }) => {
                    // The access token is refused and no other can be had: nothing will work from here on.
                    self.auth.give_up(merchant, version).await?;
                    return Err(error);
                }
                renewed => renewed?,
            };
            let version = renewed.version;
            let second = self.send(get, renewed.tokens.access, Some(sent)).await?;
            if second.status() != StatusCode::UNAUTHORIZED {
                return accept(second);
            }
            return Err(self.refused(get, version, &second).await);
        }
        Err(self.refused(get, version, &first).await)
    }

    /// Gets an answer of any status, with its headers: for a probe. A refused token and a server that does not answer are
    /// errors.
    pub(in crate::salla) async fn get_unjudged(
        &self,
        get: &Get<'_>,
    ) -> Result<(u16, HeaderMap, Option<Envelope>), SourceError> {
        let credentials = self.auth.credentials(get.merchant).await?;
        let mut response = self.send(get, credentials.tokens.access.clone(), None).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.refused(get, credentials.version, &response).await);
        }
        let envelope = response.extensions_mut().remove::<Arc<Envelope>>().and_then(Arc::into_inner);
        Ok((response.status().as_u16(), response.headers().clone(), envelope))
    }

    /// Sends a request with `token`, which may have `replaced` another one.
    async fn send(
        &self,
        get: &Get<'_>,
        token: SecretString,
        replaced: Option<SecretString>,
    ) -> Result<reqwest::Response, SourceError> {
        let bearer = bearer(&token).map_err(|problem| unauthorized(get.merchant, problem))?;
        let url = format!("{}/{}", self.api_url.as_str().trim_end_matches('/'), get.path);
        self.http
            .get(url)
            .query(get.query)
            .header(header::AUTHORIZATION, bearer)
            .with_extension(Call {
                merchant: get.merchant,
                single: get.single,
                suspect: get.suspect,
                divisible: get.divisible,
                counted_by_address: get.counted_by_address,
                replaced,
                requests: get.requests.clone(),
                attempts: RequestCount::default(),
            })
            .send()
            .await
            .map_err(|error| into_source_error(&error))
    }

    /// Judges a 401 that a refresh does not resolve. Without Salla's envelope, it says nothing
    /// about the merchant. A 401 that calls a new token invalid may be temporary.
    async fn refused(&self, get: &Get<'_>, version: i64, response: &reqwest::Response) -> SourceError {
        let (merchant, description) = (get.merchant, description(response));
        if !is_from_salla(response) {
            return SourceError::Rejected { reason: format!("{} without a message", response.status()) };
        }
        match refusal(&description) {
            Refusal::MissingScope => return SourceError::MissingScope { scope: get.scope, reason: description },
            Refusal::TokenEnded => return SourceError::Rejected { reason: description },
            Refusal::Final if get.single => return SourceError::Rejected { reason: description },
            Refusal::Final => {}
        }
        match self.auth.give_up(merchant, version).await {
            Ok(()) => unauthorized(merchant, &description),
            Err(error) => error,
        }
    }
}
