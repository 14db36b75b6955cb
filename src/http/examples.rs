//! What answers look like, by the names of their schemas. A test holds each to its schema.

use axum::http::StatusCode;
use serde_json::{Value, json};

const RUN_ID: &str = "01a21c7c-8c3f-7184-9480-c45b107592d7";

/// An answer of this schema, by this operation.
pub fn of(schema: &str, operation: &str) -> Option<Value> {
    Some(match (schema, operation) {
        ("Health", "readyz") => json!({"status": "ready", "version": env!("CARGO_PKG_VERSION")}),
        ("Pause", "resume_all") => json!({"paused": false}),
        ("Merchant", "pause_merchant") => merchant("paused"),
        ("Run", "create_run") => queued(),
        (schema, _) => return by_schema(schema),
    })
}

fn by_schema(schema: &str) -> Option<Value> {
    Some(match schema {
        "AccessToken" => json!({"access_token": "access-token", "expires_at": "2026-12-09T00:00:00Z"}),
        "AuditPage" => json!({"entries": [audited()], "next_cursor": 10}),
        "DiscrepancyPage" => json!({"discrepancies": [found()], "next_cursor": null}),
        "Health" => json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}),
        "Merchant" => merchant("active"),
        "MerchantPage" => json!({"merchants": [merchant("active")], "next_cursor": 1001}),
        "Pause" => json!({"paused": true}),
        "Receipt" => json!({"result": "applied"}),
        "Report" => json!({"since": "2026-10-28T00:00:00Z", "until": "2026-11-27T00:00:00Z", "merchants": [drift()]}),
        "Run" => run(),
        "RunPage" => json!({"runs": [run()], "next_cursor": RUN_ID}),
        _ => return None,
    })
}

/// A problem of this status, about what the document says of it.
pub fn problem(status: &str, detail: &str) -> Option<Value> {
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let title = status.canonical_reason()?;
    Some(json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail}))
}

fn run() -> Value {
    json!({
        "run_id": RUN_ID,
        "merchant_id": 1001,
        "status": "succeeded",
        "trigger": "schedule",
        "listing": "filter",
        "dry_run": false,
        "window": {"since": "2026-11-25T23:00:00Z", "until": "2026-11-26T23:00:00Z"},
        "totals": totals(),
        "resource_results": [{
            "resource": "orders",
            "status": "succeeded",
            "listing": "filter",
            "window": {"since": "2026-11-25T23:00:00Z", "until": "2026-11-26T23:00:00Z"},
            "observed_at": "2026-11-26T23:00:00Z",
            "totals": totals(),
            "error": null,
        }],
        "requests": 1,
        "error": null,
        "waiting": null,
        "queued_at": "2026-11-26T23:00:00.208Z",
        "started_at": "2026-11-26T23:00:00.311Z",
        "finished_at": "2026-11-26T23:00:00.817Z",
    })
}

/// A run that was just asked for.
fn queued() -> Value {
    let mut run = run();
    run["status"] = json!("queued");
    run["trigger"] = json!("http");
    run["totals"] = json!({
        "fetched": 0, "created": 0, "updated": 0, "unchanged": 0, "skipped": 0, "failed": 0, "newer_locally": 0,
        "backfilled": {"created": 0, "updated": 0}
    });
    run["resource_results"] = json!([]);
    run["requests"] = json!(0);
    for absent in ["listing", "window", "started_at", "finished_at"] {
        run[absent] = Value::Null;
    }
    run
}

fn totals() -> Value {
    json!({"fetched": 41, "created": 4, "updated": 7, "unchanged": 30, "skipped": 0, "failed": 0, "newer_locally": 0,
        "backfilled": {"created": 0, "updated": 0}})
}

fn found() -> Value {
    json!({
        "resource": "orders",
        "salla_id": 1_950_732_693,
        "kind": "stale",
        "local_updated_at": "2026-11-26T04:16:14Z",
        "remote_updated_at": "2026-11-26T19:29:53Z",
        "fields": ["status", "total_amount", "payload"],
        "changes": [
            {"field": "status", "before": "under_review", "after": "completed"},
            {"field": "total_amount", "before": "120", "after": "115.5"},
        ],
        "reason": null,
        "backfill": false,
        "found_at": "2026-11-26T23:00:00.777Z",
        "late_seconds": 12606,
    })
}

fn merchant(state: &str) -> Value {
    json!({
        "merchant_id": 1001,
        "name": "متجر التجربة",
        "state": state,
        "watermark": "2026-11-26T23:00:00Z",
        "watermarks": {"orders": "2026-11-26T23:00:00Z"},
    })
}

fn audited() -> Value {
    json!({
        "id": 10,
        "at": "2026-11-26T08:12:01.210Z",
        "actor": "token:oncall",
        "action": "run.trigger",
        "merchant_id": 1001,
        "run_id": RUN_ID,
        "detail": {"dry_run": false, "full": false, "since": null, "until": null},
    })
}

fn drift() -> Value {
    json!({
        "merchant_id": 1001,
        "name": "متجر التجربة",
        "period": {"since": "2026-10-28T00:00:00Z", "until": "2026-11-27T00:00:00Z"},
        "runs": {"succeeded": 30, "partial": 0, "failed": 0, "cancelled": 0},
        "missing": 4,
        "stale": 7,
        "deleted": 0,
        "rewritten": 0,
        "backfilled": {"missing": 0, "stale": 0},
        "skipped": 0,
        "failed": 0,
        "fields": {"payload": 7, "status": 7},
        "lost_webhooks": {"order.created": 4, "order.status.updated": 7},
        "lateness": {
            "within_1h": 0, "within_24h": 11, "within_7d": 0, "longer": 0, "max_seconds": 69961, "median_seconds": 12606
        },
    })
}
