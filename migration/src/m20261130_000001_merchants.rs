//! The registered merchants: their tokens, the state of the app's installation, and the waits that Salla asks for.

use crate::description::{OF_MERCHANT, Table, WITHOUT_DELETE, WITHOUT_UPDATE};

pub fn tables() -> Vec<Table> {
    vec![merchants(), credentials(), installations(), webhook_events(), rate_limit_backoffs()]
}

fn merchants() -> Table {
    Table::new("merchants", "The registered merchants. One merchant is one Salla store.")
        .column("merchant_id", "BIGINT NOT NULL PRIMARY KEY", "Salla's id of the merchant.")
        .column("name", "text", "Name for people.")
        .column(
            "state",
            "text NOT NULL DEFAULT 'active'",
            "active, paused, needs_reauthorization, subscription_expired or uninstalled.",
        )
        .column("state_before_pause", "text", "The state to which a resumed merchant returns.")
        .column("created_at", "INSTANT NOT NULL DEFAULT NOW", "When the merchant was registered.")
}

fn credentials() -> Table {
    Table::new("credentials", "The OAuth tokens of each merchant, encrypted.")
        .column("merchant_id", "BIGINT NOT NULL PRIMARY KEY", "Salla's id of the merchant.")
        .column("access_token", "text NOT NULL", "The access token, encrypted.")
        .column("refresh_token", "text", "The refresh token, encrypted. It can be used once.")
        .column("expires_at", "INSTANT", "When the access token expires.")
        .column("issued_at", "INSTANT NOT NULL DEFAULT NOW", "When the tokens were issued.")
        .column("version", "BIGINT NOT NULL DEFAULT 1", "Rises with each replacement of the tokens.")
        .column(
            "refresh_started_at",
            "INSTANT",
            "When a process began to refresh the tokens; NULL: no refresh is in progress.",
        )
        .column("refresh_attempt", "UUID", "The attempt that is in progress.")
        .column("revoked_at", "INSTANT", "When Salla refused the tokens for good.")
        .column(
            "owner_confirmed",
            "boolean NOT NULL DEFAULT FALSE",
            "Whether Salla confirmed that the tokens belong to the merchant.",
        )
        .constraint(OF_MERCHANT)
}

fn installations() -> Table {
    Table::new(
        "installations",
        "The newest app event of each kind, by which older events are recognized. Rows outlive the merchant.",
    )
    .needs(WITHOUT_DELETE)
    .column("merchant_id", "BIGINT NOT NULL PRIMARY KEY", "Salla's id of the merchant.")
    .column("app_event_at", "INSTANT", "The newest event about the installation of the app.")
    .column("subscription_event_at", "INSTANT", "The newest event about the subscription.")
    .column("trial_event_at", "INSTANT", "The newest event about the trial.")
    .column("subscribed", "boolean NOT NULL DEFAULT FALSE", "Whether the merchant has a paid subscription.")
}

fn webhook_events() -> Table {
    Table::new("webhook_events", "Webhooks that were received, to ignore repeated deliveries.")
        .needs(WITHOUT_UPDATE)
        .column("hash", "text NOT NULL PRIMARY KEY", "Hash of the body.")
        .column("event", "text NOT NULL", "The name of the event.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("received_at", "INSTANT NOT NULL DEFAULT NOW", "When it was first received.")
        .index("webhook_events_received", "(received_at)")
}

fn rate_limit_backoffs() -> Table {
    Table::new(
        "rate_limit_backoffs",
        "The waits that Salla asked for, and the recent use of each merchant's rate limit.",
    )
    .needs(WITHOUT_DELETE)
    .column("merchant_id", "BIGINT NOT NULL PRIMARY KEY", "Salla's id of the merchant.")
    .column("retry_at", "INSTANT NOT NULL", "No request is sent for the merchant before this time.")
    .column("recent_requests", "BIGINT", "Requests of the last process within its last minute.")
    .column("recorded_at", "INSTANT", "When recent_requests was counted.")
    .constraint(OF_MERCHANT)
}
