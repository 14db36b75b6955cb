//! Translates the bodies of webhooks into the terms of the application. App events change the register. All other
//! webhooks are ignored without an error.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::token_endpoint::granted;
use crate::{
    domain::{AppEventKind, MerchantId},
    json_object::Object,
    reconcile::ports::{AppEvent, ParsedWebhook, UnreadableEvent},
    salla::wire::{
        date,
        values::{integer, present},
    },
};

/// The known events. A cancelled subscription stays paid until its end, which another event reports. An update of the
/// app comes with an authorization.
const KNOWN: [(&str, Option<AppEventKind>); 11] = [
    ("app.store.authorize", Some(AppEventKind::Authorized)),
    ("app.uninstalled", Some(AppEventKind::Uninstalled)),
    ("app.subscription.started", Some(AppEventKind::SubscriptionBegan)),
    ("app.subscription.renewed", Some(AppEventKind::SubscriptionBegan)),
    ("app.subscription.expired", Some(AppEventKind::SubscriptionEnded)),
    ("app.subscription.canceled", None),
    ("app.trial.started", Some(AppEventKind::TrialBegan)),
    ("app.trial.expired", Some(AppEventKind::TrialEnded)),
    ("app.trial.canceled", None),
    ("app.installed", None),
    ("app.updated", None),
];

const OTHER: &str = "other";

/// Reads the body of a webhook that is known to come from Salla. `now` is our clock, for tokens that say only how long
/// they last.
///
/// # Errors
/// When it is not JSON, or an app event lacks a required member.
pub fn read_event(body: &[u8], now: DateTime<Utc>) -> Result<ParsedWebhook, UnreadableEvent> {
    #[derive(Deserialize)]
    struct WebhookBody<'a> {
        event: String,
        #[serde(borrow)]
        merchant: Option<&'a RawValue>,
        #[serde(borrow)]
        created_at: Option<&'a RawValue>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let wire: WebhookBody<'_> = serde_json::from_slice(body)
        .map(|Object(wire)| wire)
        .map_err(|_| UnreadableEvent { name: OTHER, reason: "the body is not a JSON object with `event`" })?;
    let merchant = present(wire.merchant).and_then(integer).map(MerchantId);
    let (name, kind) = KNOWN.into_iter().find(|(name, _)| *name == wire.event).unwrap_or((OTHER, None));
    let Some(kind) = kind else {
        return Ok(ParsedWebhook::Ignored { name, merchant });
    };
    let merchant = merchant.ok_or(UnreadableEvent { name, reason: "`merchant` is not a number" })?;
    let tokens = match (kind, present(wire.data)) {
        (AppEventKind::Authorized, data) => Some(
            data.and_then(|data| granted(data.get(), now))
                .ok_or(UnreadableEvent { name, reason: "`data` contains no usable tokens" })?,
        ),
        _ => None,
    };
    let hash = hex::encode(Sha256::digest(body));
    let made = present(wire.created_at).and_then(date::parse);
    Ok(ParsedWebhook::AppEvent(AppEvent { hash, name, merchant, made, kind, tokens }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    const NOW: DateTime<Utc> = DateTime::from_timestamp(1_790_000_000, 0).unwrap();

    fn news(body: &str) -> AppEvent {
        match read_event(body.as_bytes(), NOW) {
            Ok(ParsedWebhook::AppEvent(event)) => event,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn an_authorization() {
        let event = news(
            r#"{"event":"app.store.authorize","merchant":"1234509876","created_at":"2026-11-25 12:31:25",
                "data":{"access_token":"at","expires":1791209599,"refresh_token":"rt","scope":"a b","token_type":"bearer"}}"#,
        );
        assert_eq!((event.merchant, event.kind), (MerchantId(1_234_509_876), AppEventKind::Authorized));
        assert_eq!(event.made.unwrap().to_rfc3339(), "2026-11-25T09:31:25+00:00", "in Riyadh, for all we know");
        let tokens = event.tokens.unwrap();
        assert_eq!(tokens.access.expose_secret(), "at");
        assert_eq!(tokens.refresh.unwrap().expose_secret(), "rt");
        assert_eq!(tokens.expires_at.unwrap().timestamp(), 1_791_209_599);
        assert_eq!(event.hash.len(), 64);
    }

    #[test]
    fn stamps_in_several_forms_and_none() {
        for (created_at, made) in [
            (r#""Wed Nov 25 2026 12:31:25 GMT+0300""#, Some("2026-11-25T09:31:25+00:00")),
            (r#""2026-11-25T09:31:25.000000Z""#, Some("2026-11-25T09:31:25+00:00")),
            (
                r#"{"date":"2026-11-25 12:31:25.000000","timezone_type":3,"timezone":"Asia/Riyadh"}"#,
                Some("2026-11-25T09:31:25+00:00"),
            ),
            ("null", None),
            (r#""soon""#, None),
        ] {
            let body = format!(r#"{{"event":"app.uninstalled","merchant":7,"created_at":{created_at}}}"#);
            assert_eq!(news(&body).made.map(|made| made.to_rfc3339()).as_deref(), made, "{body}");
        }
    }

    #[test]
    fn unknown_events_are_ignored() {
        for (body, label) in [
            (r#"{"event":"order.created","merchant":7,"data":{"id":1}}"#, "other"),
            (r#"{"event":"order.created"}"#, "other"),
            (r#"{"event":"app.installed","merchant":7}"#, "app.installed"),
            (r#"{"event":"app.subscription.canceled","merchant":7,"data":[]}"#, "app.subscription.canceled"),
        ] {
            assert!(
                matches!(read_event(body.as_bytes(), NOW), Ok(ParsedWebhook::Ignored { name, .. }) if name == label),
                "{body}"
            );
        }
    }

    #[test]
    fn errors_name_the_event_and_quote_nothing() {
        for (body, name) in [
            ("", "other"),
            ("[]", "other"),
            (r#"["app.uninstalled",7,null,null]"#, "other"),
            (r#"{"merchant":7}"#, "other"),
            (r#"{"event":7}"#, "other"),
            (r#"{"event":"app.uninstalled"}"#, "app.uninstalled"),
            (r#"{"event":"app.uninstalled","merchant":"canary"}"#, "app.uninstalled"),
            (r#"{"event":"app.store.authorize","merchant":7}"#, "app.store.authorize"),
            (
                r#"{"event":"app.store.authorize","merchant":7,"data":{"access_token":"can ary"}}"#,
                "app.store.authorize",
            ),
            (r#"{"event":"app.store.authorize","merchant":7,"data":"canary"}"#, "app.store.authorize"),
        ] {
            let error = read_event(body.as_bytes(), NOW).unwrap_err();
            assert_eq!(error.name, name, "{body}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_event(&bytes, NOW);
        }
    }
}
