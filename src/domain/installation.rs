//! The state of an installation from app events, which arrive in any order.
//!
//! An event has no number, only a time in seconds in an unknown zone. Such stamps are compared with each other only. An
//! event that is older than the one that it would undo has no effect.

use chrono::{DateTime, Utc};

use super::Transition;

/// An app event that changes a merchant, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEventKind {
    /// The app was installed or updated: there are new tokens.
    Authorized,
    /// The app was uninstalled.
    Uninstalled,
    /// A subscription was begun or renewed.
    SubscriptionBegan,
    /// The subscription has run out.
    SubscriptionEnded,
    /// A trial was begun.
    TrialBegan,
    /// The trial has run out.
    TrialEnded,
}

/// The stamps of the newest events of a merchant, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Installation {
    /// Of the app's authorization or removal.
    pub app: Option<DateTime<Utc>>,
    /// Of the subscription.
    pub subscription: Option<DateTime<Utc>>,
    /// Of the trial.
    pub trial: Option<DateTime<Utc>>,
    /// A subscription was begun and has not run out: the end of the trial before it means nothing.
    pub subscribed: bool,
}

impl Installation {
    /// Takes note of an event; false when one that was made later has told otherwise. An event without a stamp is
    /// taken for news.
    pub fn apply(&mut self, event: AppEventKind, made: Option<DateTime<Utc>>) -> bool {
        let contradicted_by = match event {
            AppEventKind::Authorized | AppEventKind::Uninstalled => [self.app, None],
            AppEventKind::SubscriptionBegan => [self.subscription, None],
            // An event of an earlier installation does not end the present one.
            AppEventKind::SubscriptionEnded => [self.subscription, self.app],
            AppEventKind::TrialBegan => [self.trial, self.subscription],
            AppEventKind::TrialEnded => [self.trial, self.app],
        };
        if contradicted_by.into_iter().flatten().any(|newest| made.is_some_and(|made| made < newest)) {
            return false;
        }
        let stamp = match event {
            AppEventKind::Authorized | AppEventKind::Uninstalled => &mut self.app,
            AppEventKind::SubscriptionBegan | AppEventKind::SubscriptionEnded => &mut self.subscription,
            AppEventKind::TrialBegan | AppEventKind::TrialEnded => &mut self.trial,
        };
        *stamp = (*stamp).max(made);
        match event {
            AppEventKind::SubscriptionBegan => self.subscribed = true,
            AppEventKind::SubscriptionEnded => self.subscribed = false,
            // A subscription that was made later is that of the installation after it.
            AppEventKind::Uninstalled if self.subscription > made && made.is_some() => {}
            AppEventKind::Uninstalled => self.subscribed = false,
            AppEventKind::Authorized | AppEventKind::TrialBegan | AppEventKind::TrialEnded => {}
        }
        true
    }

    /// The change that a received event makes to the merchant, beside its tokens.
    #[must_use]
    pub fn change(&self, event: AppEventKind) -> Option<Transition> {
        match event {
            AppEventKind::Authorized => None,
            AppEventKind::Uninstalled => Some(Transition::Retire),
            AppEventKind::SubscriptionBegan | AppEventKind::TrialBegan => Some(Transition::Subscribe),
            AppEventKind::SubscriptionEnded => Some(Transition::Unsubscribe),
            AppEventKind::TrialEnded => (!self.subscribed).then_some(Transition::Unsubscribe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MerchantState, MerchantStatus};

    /// The merchant's state after events in the order in which they arrive, each with its second.
    fn after(events: &[(AppEventKind, i64)]) -> MerchantState {
        let mut installation = Installation::default();
        let mut status = MerchantStatus::ACTIVE;
        for (event, second) in events {
            if !installation.apply(*event, DateTime::from_timestamp(*second, 0)) {
                continue;
            }
            status = match installation.change(*event) {
                Some(change) => status.after(change).unwrap(),
                None if *event == AppEventKind::Authorized => status.authorized(),
                None => status,
            };
        }
        status.state()
    }

    #[test]
    fn the_order_of_arrival_does_not_count() {
        use AppEventKind::*;
        for (events, state) in [
            ([(Authorized, 1), (Uninstalled, 2)], MerchantState::Uninstalled),
            ([(Uninstalled, 1), (Authorized, 2)], MerchantState::Active),
            ([(SubscriptionEnded, 1), (SubscriptionBegan, 2)], MerchantState::Active),
            ([(SubscriptionBegan, 1), (SubscriptionEnded, 2)], MerchantState::SubscriptionExpired),
            // A trial that ends because a subscription began.
            ([(SubscriptionBegan, 1), (TrialEnded, 2)], MerchantState::Active),
            ([(TrialEnded, 1), (SubscriptionBegan, 2)], MerchantState::Active),
            ([(TrialEnded, 2), (SubscriptionBegan, 1)], MerchantState::Active),
            ([(TrialBegan, 1), (TrialEnded, 2)], MerchantState::SubscriptionExpired),
            ([(SubscriptionEnded, 1), (Authorized, 2)], MerchantState::SubscriptionExpired),
        ] {
            let [first, second] = events;
            assert_eq!(after(&[first, second]), state, "{events:?}");
            if !matches!(second.0, Authorized) || matches!(first.0, Uninstalled) {
                assert_eq!(after(&[second, first]), state, "{events:?}, the other way round");
            }
        }
        assert_eq!(
            after(&[(Authorized, 2), (SubscriptionEnded, 1)]),
            MerchantState::Active,
            "of an installation before"
        );
    }

    #[test]
    fn a_second_holds_several_events_and_a_stamp_may_be_missing() {
        assert_eq!(after(&[(AppEventKind::Authorized, 1), (AppEventKind::Uninstalled, 1)]), MerchantState::Uninstalled);
        let mut installation = Installation::default();
        assert!(installation.apply(AppEventKind::Authorized, DateTime::from_timestamp(9, 0)));
        assert!(installation.apply(AppEventKind::Uninstalled, None));
        assert_eq!(installation.app, DateTime::from_timestamp(9, 0), "what is not known does not move it");
    }
}
