//! Who did what, sessions of the dashboard that are over, and the rate limit that all merchants share.

use crate::description::{Table, WITHOUT_DELETE, WITHOUT_UPDATE};

pub fn tables() -> Vec<Table> {
    vec![audit(), ended_sessions(), ip_rate_limit()]
}

fn audit() -> Table {
    Table::new("audit", "What people and other programs asked for.")
        .needs(WITHOUT_UPDATE)
        .column("id", "IDENTITY", "Our own id.")
        .column("at", "INSTANT NOT NULL DEFAULT NOW", "When it was asked for.")
        .column("actor", "text NOT NULL", "Who asked.")
        .column("action", "text NOT NULL", "What was asked for.")
        .column("merchant_id", "BIGINT", "Salla's id of the merchant that it was about.")
        .column("run_id", "UUID", "The run that it was about.")
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
