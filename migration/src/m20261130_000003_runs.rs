//! The runs: the queue, the leases and the history in one table, and the sweeps that enqueue them.

use crate::description::{Dialect, Table, WITHOUT_DELETE, WITHOUT_UPDATE};

const OF_RUN: &str = "FOREIGN KEY (run_id) REFERENCES runs (id) ON DELETE CASCADE";

/// Rows change often: PostgreSQL's defaults would clean and analyze them too late.
const BUSY_QUEUE: &str = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000, \
                          autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 10000";

pub fn tables() -> Vec<Table> {
    vec![sweeps(), runs(), run_seen_ids(), discrepancies(), idempotency_keys(), global_pause()]
}

fn sweeps() -> Table {
    Table::new("sweeps", "The sweeps: one run for every active merchant, at the times of the schedule.")
        .needs(WITHOUT_DELETE)
        .column("scheduled_for", "INSTANT NOT NULL", "The instant that the schedule names.")
        .column("cron", "text NOT NULL", "The schedule: cron expression and time zone.")
        .column(
            "outcome",
            "text NOT NULL",
            "began (first start of the schedule), schedule, catch_up (started late) or skipped.",
        )
        .column("run_count", "BIGINT NOT NULL DEFAULT 0", "How many runs were enqueued.")
        .column("already_queued", "BIGINT NOT NULL DEFAULT 0", "Merchants that still had a scheduled run in the queue.")
        .column("deferred", "text", "Merchants whose runs are enqueued later, as JSON.")
        .column("started_at", "INSTANT NOT NULL DEFAULT NOW", "When the runs were enqueued.")
        .column("ended_at", "INSTANT", "When the last run ended.")
        .column("summary", "text", "The totals of the runs by status, as JSON.")
        .constraint("PRIMARY KEY (cron, scheduled_for)")
        .index("sweeps_deferred", "(scheduled_for) WHERE deferred IS NOT NULL")
}

fn runs() -> Table {
    Table::new("runs", "One reconciliation of one merchant over one window.")
        .column("id", "UUID NOT NULL PRIMARY KEY", "UUIDv7.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("trigger", "text NOT NULL", "schedule, catch_up, http or cli.")
        .column("status", "text NOT NULL", "queued, running, succeeded, partial, failed or cancelled.")
        .column("sweep_scheduled_for", "INSTANT", "The sweep to which the run belongs.")
        .column("since_requested", "INSTANT", "The start of the requested window.")
        .column("until_requested", "INSTANT", "The end of the requested window.")
        .column("resources_requested", "text", "The requested kinds of record; NULL: those of the configuration.")
        .column("full_history", "boolean NOT NULL DEFAULT FALSE", "Whether the whole history was requested.")
        .column("dry_run", "boolean NOT NULL DEFAULT FALSE", "Whether nothing is written.")
        .column("cancel_requested", "boolean NOT NULL DEFAULT FALSE", "Whether the run ends at its next page.")
        .column("priority", "BIGINT NOT NULL DEFAULT 0", "The highest is claimed first.")
        .column("scheduled_at", "INSTANT NOT NULL DEFAULT NOW", "The run is not claimed before this time.")
        .column(
            "watermark_at_enqueue",
            "INSTANT NOT NULL DEFAULT '1970-01-01T00:00:00+00:00'",
            "The oldest watermark of the merchant: the run that is furthest behind is claimed first.",
        )
        .column("worker_id", "UUID", "The process that holds the lease.")
        .column("lease_expires_at", "INSTANT", "Another process may take over the run after this time.")
        .column("epoch", "BIGINT NOT NULL DEFAULT 0", "Rises with each claim. A write with an older epoch is refused.")
        .column("attempt", "BIGINT NOT NULL DEFAULT 0", "How often the run was claimed.")
        .column("failed_attempts", "BIGINT NOT NULL DEFAULT 0", "Consecutive attempts without progress.")
        .column("window_since", "INSTANT", "The start of the window.")
        .column("window_until", "INSTANT", "The end of the window.")
        .column("listing", "text", "How the changed records are listed.")
        .column("cursor", "text", "Where the run goes on, as JSON.")
        .column("targets", "text NOT NULL DEFAULT ''", "The targets of the pages before the cursor, as resource=view.")
        .column("resource_results", "text", "The result of each kind of record, as JSON.")
        .column("fetched", "BIGINT NOT NULL DEFAULT 0", "Distinct records that were read.")
        .column("created", "BIGINT NOT NULL DEFAULT 0", "Records that were missing.")
        .column("updated", "BIGINT NOT NULL DEFAULT 0", "Records that were stale.")
        .column("unchanged", "BIGINT NOT NULL DEFAULT 0", "Records that were as new or newer.")
        .column("skipped", "BIGINT NOT NULL DEFAULT 0", "Records that could not be read.")
        .column("failed", "BIGINT NOT NULL DEFAULT 0", "Records that could not be fetched or written.")
        .column(
            "backfilled_created",
            "BIGINT NOT NULL DEFAULT 0",
            "Part of created: records that do not count as drift.",
        )
        .column(
            "backfilled_updated",
            "BIGINT NOT NULL DEFAULT 0",
            "Part of updated: records that do not count as drift.",
        )
        .column("requests", "BIGINT NOT NULL DEFAULT 0", "Requests to Salla.")
        .column("error_kind", "text", "Why the run failed, as a word.")
        .column("error_message", "text", "Why the run failed, and what to do.")
        .column("waiting_reason", "text", "For what the run waits, as a word.")
        .column("waiting_message", "text", "For what the run waits, as a sentence.")
        .column("waiting_until", "INSTANT", "When the run is tried again.")
        .column("waiting_attempts", "BIGINT NOT NULL DEFAULT 0", "How often it waited since its last page.")
        .column("queued_at", "INSTANT NOT NULL DEFAULT NOW", "When the run was enqueued.")
        .column("started_at", "INSTANT", "When the run was first claimed.")
        .column("finished_at", "INSTANT", "When the run ended.")
        .options(BUSY_QUEUE)
        .unique("runs_one_running_per_merchant", "(merchant_id) WHERE status = 'running'")
        .unique("runs_one_queued_by_hand", "(merchant_id) WHERE status = 'queued' AND sweep_scheduled_for IS NULL")
        .unique("runs_one_per_sweep", "(merchant_id, sweep_scheduled_for) WHERE sweep_scheduled_for IS NOT NULL")
        .index("runs_due", "(priority DESC, scheduled_at, watermark_at_enqueue, id) WHERE status = 'queued'")
        .index("runs_leases", "(lease_expires_at) WHERE status = 'running'")
        .index("runs_failed_attempts", "(failed_attempts) WHERE failed_attempts > 0")
        .index("runs_active", "(merchant_id, status) WHERE status IN ('queued', 'running')")
        .index("runs_of_merchant", "(merchant_id, id)")
        .index("runs_of_sweep", "(sweep_scheduled_for) WHERE sweep_scheduled_for IS NOT NULL")
        .index("runs_ended", "(finished_at) WHERE finished_at IS NOT NULL")
        .only(Dialect::Postgres, "CREATE INDEX runs_of_status ON runs (status, id)")
        // The planner then expects few rows of any status, and uses the indexes, however the queue was filled when the
        // table was last analyzed.
        .only(Dialect::Postgres, "ALTER TABLE runs ALTER COLUMN status SET STATISTICS 0")
}

fn run_seen_ids() -> Table {
    Table::new(
        "run_seen_ids",
        "The ids that an unfinished run has seen, so that each record counts once after a crash.",
    )
    .column("run_id", "UUID NOT NULL", "The run.")
    .column("batch", "BIGINT NOT NULL", "The number of the batch.")
    .column("ids", "BYTES NOT NULL", "Salla's ids, eight bytes each.")
    .constraint("PRIMARY KEY (run_id, batch)")
    .constraint(OF_RUN)
}

fn discrepancies() -> Table {
    Table::new(
        "discrepancies",
        "The differences that each run found. Dry runs are included: join runs to exclude them.",
    )
    .needs(WITHOUT_UPDATE)
    .column("id", "IDENTITY", "Our own id.")
    .column("run_id", "UUID NOT NULL", "The run that found it.")
    .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
    .column("resource", "text NOT NULL", "The kind of record.")
    .column("salla_id", "BIGINT", "Salla's id of the record; NULL: unknown.")
    .column("kind", "text NOT NULL", "missing, stale, skipped or failed.")
    .column("local_updated_at", "OPEN_INSTANT", "The version that was stored.")
    .column("remote_updated_at", "OPEN_INSTANT", "The version that Salla has.")
    .column("fields", "text NOT NULL DEFAULT '[]'", "The columns that differed, as JSON.")
    .column(
        "changes",
        "text NOT NULL DEFAULT '[]'",
        "The values of these columns before and after, as JSON; without personal data.",
    )
    .column("reason", "text", "Why the record was skipped or failed.")
    .column(
        "backfill",
        "boolean NOT NULL DEFAULT FALSE",
        "Whether the difference is backfill, and does not count as drift.",
    )
    .column("found_at", "INSTANT NOT NULL DEFAULT NOW", "When it was found.")
    .constraint(OF_RUN)
    .index("discrepancies_of_run", "(run_id, id)")
}

fn idempotency_keys() -> Table {
    Table::new("idempotency_keys", "The Idempotency-Key of each POST /runs, for a day.")
        .column("caller", "text NOT NULL", "The caller.")
        .column("key", "text NOT NULL", "The key.")
        .column("body", "BYTES NOT NULL", "Hash of the request's body.")
        .column("run_id", "UUID NOT NULL", "The run that was enqueued.")
        .column("created_at", "INSTANT NOT NULL DEFAULT NOW", "When the request was received.")
        .constraint("PRIMARY KEY (caller, key)")
        .constraint(OF_RUN)
        .index("idempotency_keys_run", "(run_id)")
}

fn global_pause() -> Table {
    Table::new("global_pause", "A row exists while all merchants are paused.")
        .needs(WITHOUT_UPDATE)
        .column("id", "smallint NOT NULL PRIMARY KEY CHECK (id = 1)", "Always 1.")
        .column("paused_at", "INSTANT NOT NULL", "When the pause began.")
        .column("paused_by", "text NOT NULL", "The person who started the pause.")
}
