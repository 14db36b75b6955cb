//! An event as it is sent: a `CloudEvent` (version 1.0) in structured mode, in JSON.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{domain::MerchantId, reconcile::ports::OutboxEvent};

/// The media type of the body.
pub const MEDIA_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// What each type begins with.
const PREFIX: &str = "salla-reconciler";

/// The attributes of the `CloudEvents` specification with the extension `partitionkey`. Events with one key are in
/// order.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: DateTime<Utc>,
    datacontenttype: &'static str,
    partitionkey: String,
    data: &'a RawValue,
}

/// The body of the event.
///
/// # Errors
/// When the stored data is not JSON, because another program wrote it.
pub fn body(event: &OutboxEvent, merchant: MerchantId) -> Result<Vec<u8>, serde_json::Error> {
    let data: &RawValue = serde_json::from_str(&event.data)?;
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: event.event_id,
        source: "/salla-reconciler",
        kind: format!("{PREFIX}.{}", event.event_type),
        subject: &event.subject,
        time: event.at,
        datacontenttype: "application/json",
        partitionkey: merchant.to_string(),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_form() {
        let event = OutboxEvent {
            id: 7,
            event_id: Uuid::nil(),
            run_id: Uuid::nil(),
            event_type: "run.succeeded".to_owned(),
            subject: "merchants/1001".to_owned(),
            at: "2026-11-27T02:00:00Z".parse().unwrap(),
            data: r#"{"merchant_id":1001,"totals":{"fetched":3},"finished_at":"2026-11-27T02:00:00Z"}"#.to_owned(),
        };
        let body = String::from_utf8(body(&event, MerchantId(1001)).unwrap()).unwrap();
        assert_eq!(
            body,
            concat!(
                r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000000","source":"/salla-reconciler","#,
                r#""type":"salla-reconciler.run.succeeded","subject":"merchants/1001","time":"2026-11-27T02:00:00Z","#,
                r#""datacontenttype":"application/json","partitionkey":"1001","#,
                r#""data":{"merchant_id":1001,"totals":{"fetched":3},"finished_at":"2026-11-27T02:00:00Z"}}"#
            )
        );
        assert!(super::body(&OutboxEvent { data: "not JSON".to_owned(), ..event }, MerchantId(1)).is_err());
    }
}
