//! An event as it is sent: a `CloudEvent` (version 1.0) in structured mode, in JSON.

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{
    domain::{MerchantId, RunId},
    reconcile::ports::OutboxEvent,
};

/// The media type of the body.
pub const MEDIA_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// What a run's type begins with; its status follows.
const TYPE: &str = "salla-reconciler.run";

/// The attributes of the `CloudEvents` specification with the extension `partitionkey`. Events with one key are in
/// order.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: RunId,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    /// When the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Value>,
    datacontenttype: &'static str,
    partitionkey: String,
    data: &'a RawValue,
}

/// The body of the event, with the run as the API shows it.
///
/// # Errors
/// When the stored run is not a JSON object, because another program wrote it.
pub fn body(event: &OutboxEvent, merchant: MerchantId) -> Result<Vec<u8>, serde_json::Error> {
    let data: &RawValue = serde_json::from_str(&event.run)?;
    let run: serde_json::Map<String, Value> = serde_json::from_str(&event.run)?;
    serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: event.run_id,
        source: "/salla-reconciler",
        kind: format!("{TYPE}.{}", run.get("status").and_then(Value::as_str).unwrap_or("succeeded")),
        subject: format!("merchants/{merchant}"),
        time: run.get("finished_at").cloned(),
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
            run_id: RunId::nil(),
            run: r#"{"merchant_id":1001,"totals":{"fetched":3},"finished_at":"2026-11-27T02:00:00Z"}"#.to_owned(),
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
        assert!(super::body(&OutboxEvent { run: "[]".to_owned(), ..event }, MerchantId(1)).is_err());
    }
}
