//! Events that wait for their delivery to a webhook. They are written in the transaction that ends a run.

use crate::description::{Table, WITHOUT_UPDATE};

/// Rows change often: PostgreSQL's defaults would clean them too late.
const BUSY_QUEUE: &str = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000";

pub fn tables() -> Vec<Table> {
    vec![outbox(), outbox_delivery_state()]
}

fn outbox() -> Table {
    Table::new("outbox", "Events about ended runs and written records that are not delivered yet.")
        .needs(WITHOUT_UPDATE)
        .column("id", "IDENTITY", "The order of delivery within a merchant.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("event_id", "UUID NOT NULL UNIQUE", "The id of the event; of an ended run, the id of the run.")
        .column("run_id", "UUID NOT NULL", "The run.")
        .column("type", "text NOT NULL", "The type of the event without its prefix, such as run.succeeded.")
        .column("subject", "text NOT NULL", "The merchant or the record, such as merchants/1001.")
        .column("data", "text NOT NULL", "The run or the record as JSON.")
        .column("created_at", "INSTANT NOT NULL DEFAULT NOW", "When the run ended, or the record was written.")
        .options(BUSY_QUEUE)
        .index("outbox_merchant", "(merchant_id, id)")
}

fn outbox_delivery_state() -> Table {
    Table::new("outbox_delivery_state", "Where the delivery of each merchant's events stands.")
        .column("merchant_id", "BIGINT NOT NULL PRIMARY KEY", "Salla's id of the merchant.")
        .column("next_attempt_at", "INSTANT NOT NULL DEFAULT NOW", "No delivery is tried before this time.")
        .column("attempts", "integer NOT NULL DEFAULT 0", "Consecutive failed deliveries of the oldest event.")
        .column(
            "lease_epoch",
            "BIGINT NOT NULL DEFAULT 0",
            "Rises with each delivery, so that a slow process changes nothing.",
        )
        .column("lsn", "LSN", "The position in the log that the replication slot must confirm first.")
        .column("lsn_event_id", "BIGINT", "The newest event whose commit lies before lsn.")
        .options(BUSY_QUEUE)
        .index("outbox_delivery_state_due", "(next_attempt_at)")
        .index("outbox_delivery_state_lsn", "(lsn)")
        .index("outbox_delivery_state_new", "(lsn) WHERE attempts = 0")
        .index("outbox_delivery_state_new_due", "(next_attempt_at) WHERE attempts = 0")
        .index("outbox_delivery_state_retry", "(next_attempt_at) WHERE attempts > 0")
}
