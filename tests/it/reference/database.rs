//! `docs/reference/database.md`, from the comments in PostgreSQL's catalogue.

use std::fmt::Write as _;

use super::{assert_current, cell};
use crate::support::{Engine, Site};

const HEAD: &str = "# Database

Generated from the comments of the schema, which `\\d+` in psql shows too. On PostgreSQL, all tables are in `database.schema`
(`salla` by default). Other programs name the schema (`salla.orders`), or set their search path.

`migrate up` creates the schema and the tables. `migrate grants ROLE` prints the least rights for the daemon with
`database.migrate = false`. Otherwise its role needs the right to create them. TLS is used if the server offers it;
`?sslmode=require` requires it.

## Columns that other programs may write

A webhook consumer may write these columns of `orders` at any time:

| column | rule |
|---|---|
| `merchant_id`, `salla_order_id` | required; together unique |
| `reference_id`, `status`, `currency`, `total_amount`, `salla_created_at` | optional |
| `salla_updated_at` | write only newer versions: compare with the stored value in the same statement, as below |
| `payload` | the order as Salla sent it |
| `deleted_at` | set it for a deleted order, and clear it for a restored one, or leave it to the program |

```sql
INSERT INTO salla.orders (merchant_id, salla_order_id, status, currency, total_amount, salla_updated_at, payload)
VALUES (1001, 5, 'completed', 'SAR', 12.50, '2026-11-30T10:00:00Z', '{}')
ON CONFLICT (merchant_id, salla_order_id) DO UPDATE
SET status = excluded.status, currency = excluded.currency, total_amount = excluded.total_amount,
    salla_updated_at = excluded.salla_updated_at, payload = excluded.payload
WHERE orders.salla_updated_at IS NULL OR orders.salla_updated_at <= excluded.salla_updated_at;
```

All other columns have defaults and are for the program only. A trigger clears `content_hash` when another program changes a
row. A program that writes `revision` switches this trigger off for its change, and a wrong row can then count as unchanged. An
older `salla_updated_at` on an old order is found by a full run only. `products`, `customers` and `order_statuses` have the same rules: write the columns up to `salla_updated_at`, `payload`
and `deleted_at`, and not `id`. Do not write `order_items`. On SQLite, amounts and times are text.

The role of the consumer needs `USAGE` on the schema, and `SELECT, INSERT, UPDATE` on the table. A consumer may store personal
data of an [erased customer](../how-to/erase-customer.md) again: it must check that itself.

Other programs may read every table except `credentials`.
";

#[tokio::test]
async fn the_page_of_tables_is_current() {
    let site = Site::unregistered(Engine::Postgres16, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let tables = "SELECT string_agg(relname || '|' || coalesce(obj_description(oid), ''), E'\\n' ORDER BY oid) \
                  FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' \
                  AND obj_description(oid) IS NOT NULL";
    let columns = "SELECT string_agg(attname || '|' || format_type(atttypid, atttypmod) || '|' || attnotnull || '|' \
                   || coalesce(col_description(attrelid, attnum), ''), E'\\n' ORDER BY attnum) \
                   FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped";
    let mut text = HEAD.to_owned();
    for table in site.database.text(tables).await.lines() {
        let (name, comment) = table.split_once('|').unwrap();
        let _ = write!(text, "\n## {name}\n\n{comment}\n\n| column | type | |\n|---|---|---|\n");
        for column in site.database.text(&columns.replace("{table}", name)).await.lines() {
            let [name, kind, required, comment] = column.splitn(4, '|').collect::<Vec<_>>()[..] else { unreachable!() };
            let kind = kind.replace("timestamp with time zone", "timestamptz");
            let required = if required == "true" { ", not null" } else { "" };
            assert!(!comment.is_empty(), "{table}.{name} has no comment");
            let _ = writeln!(text, "| `{name}` | {kind}{required} | {} |", cell(comment));
        }
    }
    assert!(text.contains("\n## failed_records\n"), "{text}");
    assert_current("database.md", &text);
}
