//! A merchant: one Salla store.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Resource, UnknownValue};

/// Salla's id of a merchant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MerchantId(pub i64);

impl fmt::Display for MerchantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MerchantId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "a merchant id is a whole number, such as 1001")
    }
}

/// Whether the schedule covers a merchant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MerchantState {
    /// Every sweep makes a run for it.
    Active,
    /// Left out of sweeps by a person; runs by hand still work.
    Paused,
    /// Only the merchant can resolve it, by installing the app again: its refresh token is used up or revoked.
    NeedsReauthorization,
    /// Its subscription or trial has ended: left out of sweeps, its tokens stay.
    SubscriptionExpired,
    /// The app was uninstalled: its tokens are destroyed, and no run begins. Its orders and runs stay.
    Uninstalled,
}

impl MerchantState {
    /// Every state, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Active, Self::Paused, Self::NeedsReauthorization, Self::SubscriptionExpired, Self::Uninstalled];

    /// The word that the database, the API and the metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::NeedsReauthorization => "needs_reauthorization",
            Self::SubscriptionExpired => "subscription_expired",
            Self::Uninstalled => "uninstalled",
        }
    }

    /// The meaning of the state, and the action that a person can take.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Active => "every sweep covers it",
            Self::Paused => "a person paused it; `merchants resume` ends the pause",
            Self::NeedsReauthorization => {
                "Salla refuses its tokens: let the merchant install the app again, or import new tokens"
            }
            Self::SubscriptionExpired => {
                "its subscription or trial ended; a new subscription or `merchants resume` ends this state"
            }
            Self::Uninstalled => {
                "the merchant uninstalled the app, and its tokens are destroyed: let the merchant install it again, or import new tokens"
            }
        }
    }
}

impl FromStr for MerchantState {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownValue::new("merchant state", text))
    }
}

/// A merchant in the register. Its tokens live elsewhere, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merchant {
    /// Salla's id of the merchant.
    pub merchant_id: MerchantId,
    /// The merchant's name, for people.
    pub name: Option<String>,
    /// Whether sweeps cover it.
    pub state: MerchantState,
    /// The oldest of `watermarks`. All changes in Salla before this instant are reconciled, for
    /// each kind of record with a watermark. They count from the registration of the merchant, or
    /// from earlier if a run read the whole history.
    pub watermark: Option<DateTime<Utc>>,
    /// The same, by kind of record.
    pub watermarks: BTreeMap<Resource, DateTime<Utc>>,
}

/// Where a merchant stands: its state, and what a person's pause covers. A pause is lifted by people only, so what
/// Salla tells meanwhile changes what lies beneath it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MerchantStatus {
    beneath: MerchantState,
    paused: bool,
}

/// The transitions of a registered merchant, beside new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// A person leaves it out of sweeps.
    Pause,
    /// A person takes it in again.
    Resume,
    /// The app was uninstalled.
    Retire,
    /// Its subscription or trial has ended.
    Unsubscribe,
    /// A subscription or trial began, or continues.
    Subscribe,
    /// Salla refuses its tokens for good.
    RefuseTokens,
}

/// Why a person cannot pause or resume a merchant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// Only new tokens help.
    #[error("{}", MerchantState::NeedsReauthorization.advice())]
    NeedsReauthorization,
    /// Nothing is left to pause or to resume.
    #[error("{}", MerchantState::Uninstalled.advice())]
    Uninstalled,
}

impl MerchantStatus {
    /// The state after an import by a person.
    pub const ACTIVE: Self = Self { beneath: MerchantState::Active, paused: false };

    /// As stored: the state, and what the pause covers.
    #[must_use]
    pub fn of(state: MerchantState, state_before_pause: Option<MerchantState>) -> Self {
        let covered = state_before_pause.filter(|covered| *covered != MerchantState::Paused);
        let paused = state == MerchantState::Paused;
        let beneath = if paused { covered.unwrap_or(MerchantState::Active) } else { state };
        Self { beneath, paused: paused || state_before_pause.is_some() }
    }

    /// The state that is shown.
    #[must_use]
    pub fn state(self) -> MerchantState {
        if self.paused && self.beneath != MerchantState::Uninstalled { MerchantState::Paused } else { self.beneath }
    }

    /// The state behind a pause; `None` without a pause.
    #[must_use]
    pub fn state_before_pause(self) -> Option<MerchantState> {
        self.paused.then_some(self.beneath)
    }

    /// After the app was authorized, with new tokens.
    #[must_use]
    pub fn authorized(self) -> Self {
        let beneath = match self.beneath {
            MerchantState::SubscriptionExpired => MerchantState::SubscriptionExpired,
            _ => MerchantState::Active,
        };
        Self { beneath, ..self }
    }

    /// After a change.
    ///
    /// # Errors
    /// When a person asks for what cannot help.
    pub fn after(self, change: Transition) -> Result<Self, TransitionError> {
        let beneath = |beneath| Ok(Self { beneath, ..self });
        match (change, self.beneath) {
            (Transition::Pause | Transition::Resume, MerchantState::Uninstalled) => Err(TransitionError::Uninstalled),
            (Transition::Resume, MerchantState::NeedsReauthorization) => Err(TransitionError::NeedsReauthorization),
            (Transition::Pause, _) => Ok(Self { paused: true, ..self }),
            (Transition::Resume, _) => Ok(Self::ACTIVE),
            (Transition::Retire, _) => beneath(MerchantState::Uninstalled),
            // Whether its tokens are good is found out when they are needed again.
            (Transition::Unsubscribe, MerchantState::Active | MerchantState::NeedsReauthorization) => {
                beneath(MerchantState::SubscriptionExpired)
            }
            (Transition::Subscribe, MerchantState::SubscriptionExpired) => beneath(MerchantState::Active),
            (Transition::RefuseTokens, MerchantState::Active) => beneath(MerchantState::NeedsReauthorization),
            (Transition::Unsubscribe | Transition::Subscribe | Transition::RefuseTokens, _) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_salla_never_end_a_pause() {
        let paused = MerchantStatus::ACTIVE.after(Transition::Pause).unwrap();
        let mut seen = vec![paused];
        let mut next = 0;
        while let Some(status) = seen.get(next).copied() {
            next += 1;
            let told = [Transition::Retire, Transition::Unsubscribe, Transition::Subscribe, Transition::RefuseTokens];
            let after = told.map(|change| status.after(change).unwrap());
            for after in after.into_iter().chain([status.authorized()]) {
                assert!(matches!(after.state(), MerchantState::Paused | MerchantState::Uninstalled), "{after:?}");
                assert_eq!(MerchantStatus::of(after.state(), after.state_before_pause()), after, "as it is stored");
                if !seen.contains(&after) {
                    seen.push(after);
                }
            }
        }
        assert_eq!(seen.len(), 4, "what a pause may cover: {seen:?}");
    }

    #[test]
    fn resume_ends_the_states_that_it_can_end() {
        let after = |changes: &[Transition]| {
            changes
                .iter()
                .try_fold(MerchantStatus::ACTIVE, |status, change| status.after(*change))
                .map(MerchantStatus::state)
        };
        use Transition::{Pause, RefuseTokens, Resume, Retire, Subscribe, Unsubscribe};
        assert_eq!(after(&[Pause, Resume]), Ok(MerchantState::Active));
        assert_eq!(after(&[Unsubscribe, Resume]), Ok(MerchantState::Active));
        assert_eq!(after(&[Unsubscribe, Subscribe]), Ok(MerchantState::Active));
        assert_eq!(after(&[RefuseTokens, Subscribe]), Ok(MerchantState::NeedsReauthorization));
        assert_eq!(after(&[RefuseTokens, Unsubscribe]), Ok(MerchantState::SubscriptionExpired));
        assert_eq!(after(&[Unsubscribe, RefuseTokens]), Ok(MerchantState::SubscriptionExpired));
        assert_eq!(after(&[Pause, RefuseTokens, Resume]), Err(TransitionError::NeedsReauthorization));
        assert_eq!(after(&[Retire, Resume]), Err(TransitionError::Uninstalled));
        assert_eq!(after(&[Retire, RefuseTokens]), Ok(MerchantState::Uninstalled));
    }

    #[test]
    fn new_tokens_activate_the_merchant() {
        let lost = |change| MerchantStatus::ACTIVE.after(change).unwrap().authorized().state();
        assert_eq!(lost(Transition::Retire), MerchantState::Active);
        assert_eq!(lost(Transition::RefuseTokens), MerchantState::Active);
        assert_eq!(lost(Transition::Unsubscribe), MerchantState::SubscriptionExpired);
    }
}
