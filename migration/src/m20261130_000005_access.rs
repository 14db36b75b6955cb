//! The audit, the ended sessions of the dashboard, and the rate limit that all merchants share.

use crate::description::{Table, WITHOUT_DELETE, WITHOUT_UPDATE};

pub fn tables() -> Vec<Table> {
    vec![audit(), ended_sessions(), ip_rate_limit()]
}

fn audit() -> Table {
    Table::new("audit", "Actions of people and of other programs.")
        .needs(WITHOUT_UPDATE)
        .column("id", "IDENTITY", "Our own id.")
        .column("at", "INSTANT NOT NULL DEFAULT NOW", "When it happened.")
        .column("actor", "text NOT NULL", "The actor: token:NAME, local, cli:USER or salla.")
        .column("action", "text NOT NULL", "The action.")
        .column("merchant_id", "BIGINT", "Salla's id of the merchant of the action.")
        .column("run_id", "UUID", "The run of the action.")
        .column("detail", "JSON NOT NULL", "The parameters.")
        .index("audit_at", "(at)")
}

fn ended_sessions() -> Table {
    Table::new("ended_sessions", "Sessions of the dashboard that were signed out before they expired.")
        .needs(WITHOUT_UPDATE)
        .column("id", "text NOT NULL PRIMARY KEY", "The id in the cookie.")
        .column("ends_at", "INSTANT NOT NULL", "When the cookie expires.")
}

fn ip_rate_limit() -> Table {
    Table::new("ip_rate_limit", "The use of the limits that Salla counts by IP address.")
        .needs(WITHOUT_DELETE)
        .column("id", "integer NOT NULL PRIMARY KEY", "Always 1.")
        .column("usage", "text NOT NULL", "The requests by minute, as JSON.")
}
