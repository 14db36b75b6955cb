//! The one table from an error to what is written down about it and what a person can do.

use std::{fmt::Display, time::Duration};

use rand::RngExt;

use crate::{
    domain::{Failure, FailureKind, Wait, WaitReason},
    reconcile::{
        engine::EngineError,
        ports::{CredentialError, DatabaseError, LONGEST_PAUSE, SourceError},
    },
};

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// End the run as failed; its window is covered by the next.
    Fail(Failure),
    /// End it as failed, and let another run continue after this time.
    Reschedule(Failure, Duration),
    /// Release it at its cursor, to be claimed after this time.
    Backoff(Wait, Duration),
    /// Give it back at its cursor, to be taken up after so long; if that has come to nothing too often, end it as
    /// failed.
    Requeue(Failure, Duration),
    /// End it as cancelled.
    Cancel,
    /// Release it; any worker may claim it.
    Release,
    /// Do nothing: the run was requeued for others that wait.
    Yielded,
    /// Touch nothing: the run is another process's now.
    LeaseLost,
}

/// The shortest time until a run that a limit ended is continued.
const SHORTEST_PAUSE: Duration = Duration::from_secs(120);

/// Those that wait for what Salla permits an address come back within this time of each other.
const AFTER_ADDRESS_LIMIT: Duration = Duration::from_secs(60);

/// The token store is asked again after once to twice this time. Tokens of other runs may be cached meanwhile.
const AFTER_TOKEN_STORE_FAILURE: Duration = Duration::from_secs(30);

/// A database that went away has to start, or another to take its place.
pub const AFTER_DATABASE_TROUBLE: Duration = Duration::from_secs(5);

/// Decides how a run ends that did not come to its end.
pub fn dispose(error: &EngineError) -> Disposition {
    let kind = match error {
        EngineError::Cancelled => return Disposition::Cancel,
        EngineError::Stopped => return Disposition::Release,
        EngineError::Yielded => return Disposition::Yielded,
        EngineError::Source(SourceError::OpenCircuit { pause, .. }) => {
            return Disposition::Backoff(wait(WaitReason::SallaUnavailable, error), *pause);
        }
        // Not all at the same moment.
        EngineError::Source(SourceError::AddressLimit { pause }) => {
            let spread = AFTER_ADDRESS_LIMIT.mul_f64(rand::rng().random_range(0.0..1.0));
            return Disposition::Backoff(wait(WaitReason::AddressLimit, error), *pause + spread);
        }
        EngineError::Source(SourceError::Credentials(CredentialError::Unavailable { .. })) => {
            let pause = AFTER_TOKEN_STORE_FAILURE.mul_f64(rand::rng().random_range(1.0..2.0));
            return Disposition::Backoff(wait(WaitReason::TokenStoreUnavailable, error), pause);
        }
        EngineError::Source(SourceError::RateLimited { retry_after }) => {
            let pause = retry_after.unwrap_or_default().clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            return Disposition::Reschedule(failure(FailureKind::RateLimited, error), pause);
        }
        EngineError::Database(DatabaseError::LeaseLost(_))
        | EngineError::Source(SourceError::Credentials(CredentialError::Store(DatabaseError::LeaseLost(_)))) => {
            return Disposition::LeaseLost;
        }
        EngineError::Database(error) | EngineError::Source(SourceError::Credentials(CredentialError::Store(error))) => {
            let failure = database_failure(error);
            return match error {
                DatabaseError::Unavailable(_) => Disposition::Requeue(failure, AFTER_DATABASE_TROUBLE),
                DatabaseError::Unusable(_) | DatabaseError::Refused(_) | DatabaseError::LeaseLost(_) => {
                    Disposition::Fail(failure)
                }
            };
        }
        EngineError::Source(error) => of_source(error),
        EngineError::ListWalk(error) => error.kind(),
        EngineError::TooManyDeleted(_) => FailureKind::MassDeletionBlocked,
    };
    Disposition::Fail(failure(kind, error))
}

/// Whether what went wrong with one kind of record says nothing about the others.
pub fn spares_other_kinds(kind: FailureKind) -> bool {
    match kind {
        FailureKind::MissingScope
        | FailureKind::SallaInvalidResponse
        | FailureKind::SallaRequestRejected
        | FailureKind::ListingUnsupported
        | FailureKind::ListingUnstable
        | FailureKind::MassDeletionBlocked
        | FailureKind::PaginationLoop
        | FailureKind::PaginationLimitExceeded
        | FailureKind::Internal => true,
        FailureKind::UnknownMerchant
        | FailureKind::NoToken
        | FailureKind::TokenDecryptionFailed
        | FailureKind::TokenStoreUnavailable
        | FailureKind::NeedsReauthorization
        | FailureKind::InvalidClientCredentials
        | FailureKind::RateLimited
        | FailureKind::SallaUnavailable
        | FailureKind::Database
        | FailureKind::LeaseLost
        | FailureKind::AlreadyRunning
        | FailureKind::Abandoned
        | FailureKind::WorkerCrashLoop
        | FailureKind::InvalidWindow => false,
    }
}

/// What a run waits for, in one sentence.
pub fn wait(reason: WaitReason, what: &impl Display) -> Wait {
    Wait { reason, message: what.to_string() }
}

/// The database's own words go to the log, and nowhere else.
pub fn database_failure(error: &DatabaseError) -> Failure {
    tracing::error!(error = %error, "the database stops the run");
    failure(FailureKind::Database, &error.summary())
}

/// The failure of a run, with a message: the event, and the action for the person on call.
pub fn failure(kind: FailureKind, what: &impl Display) -> Failure {
    Failure { kind, message: format!("{what}; {}", advice(kind)) }
}

fn of_source(error: &SourceError) -> FailureKind {
    match error {
        SourceError::NoToken(_) => FailureKind::NoToken,
        SourceError::Credentials(CredentialError::Unreadable { .. }) => FailureKind::TokenDecryptionFailed,
        SourceError::Credentials(CredentialError::Unavailable { .. }) => FailureKind::TokenStoreUnavailable,
        SourceError::Credentials(CredentialError::OtherMerchant { .. }) => FailureKind::NeedsReauthorization,
        SourceError::Credentials(CredentialError::Store(_)) => FailureKind::Database,
        SourceError::Unauthorized { .. } => FailureKind::NeedsReauthorization,
        SourceError::MissingScope { .. } => FailureKind::MissingScope,
        SourceError::ClientCredentials(_) => FailureKind::InvalidClientCredentials,
        SourceError::RateLimited { .. } | SourceError::AddressLimit { .. } => FailureKind::RateLimited,
        SourceError::Unavailable { .. } | SourceError::OpenCircuit { .. } | SourceError::NotAsked => {
            FailureKind::SallaUnavailable
        }
        SourceError::Malformed { .. } | SourceError::Redirected { .. } => FailureKind::SallaInvalidResponse,
        SourceError::NotFound { .. } | SourceError::Rejected { .. } => FailureKind::SallaRequestRejected,
        SourceError::ListingUnsupported { .. } => FailureKind::ListingUnsupported,
    }
}

/// The action for the person on call.
pub fn advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::UnknownMerchant => "`merchants list` shows the registered merchants",
        FailureKind::NoToken => "let the merchant install the app, or import its tokens: `merchants import`",
        FailureKind::TokenDecryptionFailed => {
            "put the named key back into vault.keys, or fix what AWS refuses; or import the merchant again"
        }
        FailureKind::TokenStoreUnavailable => "no token is lost: run again when the token store answers",
        FailureKind::NeedsReauthorization => "let the merchant install the app again, or import new tokens",
        FailureKind::MissingScope => "add the scope to the app, and let the merchant approve it",
        FailureKind::InvalidClientCredentials => "correct salla.client_id and salla.client_secret",
        FailureKind::RateLimited => {
            "the daemon continues after the backoff; repeat a `run` by hand; lower salla.limit_share if it recurs"
        }
        FailureKind::SallaUnavailable => "the next run covers this window; check Salla's status page if it lasts",
        FailureKind::SallaInvalidResponse => {
            "check salla.api_url, and whether a proxy or a maintenance page answers instead of Salla"
        }
        FailureKind::SallaRequestRejected => {
            "check the approval and the scopes of the app, and rerun; tell Salla's support if it repeats"
        }
        FailureKind::ListingUnsupported => "set salla.listing to auto or scan",
        FailureKind::MassDeletionBlocked => {
            "check whether the merchant deleted them; if so, raise reconcile.max_deletion_ratio for one run"
        }
        FailureKind::ListingUnstable | FailureKind::PaginationLoop | FailureKind::PaginationLimitExceeded => {
            "the watermark stays; rerun, and tell Salla's support if it repeats"
        }
        FailureKind::Database => "check the log of the database; the next run covers this window",
        FailureKind::LeaseLost | FailureKind::AlreadyRunning => "wait for the active run",
        FailureKind::Abandoned => "a later run covers this window",
        FailureKind::WorkerCrashLoop => "check why its worker processes crashed; the next run covers this window",
        FailureKind::InvalidWindow => "use a window that ends after it begins",
        FailureKind::Internal => "report it with the log lines of the run",
    }
}
