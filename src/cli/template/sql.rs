//! The SQL file of a template.

use migration::quoted;

use super::shape::{Column, Shape};

/// The columns of the record that the function gets.
const RECORD: &str = "merchant_id bigint, salla_order_id bigint, reference_id text, status text, currency text,
    total_amount numeric, salla_created_at timestamptz, salla_updated_at timestamptz, payload jsonb, deleted_at timestamptz";

impl Column {
    fn is_local_time(&self) -> bool {
        self.data_type.starts_with("timestamp without")
    }

    fn is_minor(&self) -> bool {
        self.ours == "total_amount" && self.data_type != "numeric"
    }

    /// The labels are Salla's slugs in capital letters.
    fn is_upper(&self) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|label| *label == label.to_uppercase())
    }

    /// What the view shows.
    fn read(&self) -> String {
        let name = format!("o.{}", quoted(&self.name));
        match self.ours {
            _ if self.is_local_time() => format!("{name} AT TIME ZONE 'UTC'"),
            _ if self.is_minor() => format!("CAST({name} AS numeric) / 100"),
            "status" if self.is_upper() => format!("lower(CAST({name} AS text))"),
            "status" | "currency" | "reference_id" => format!("CAST({name} AS text)"),
            _ => name,
        }
    }

    /// What the function writes.
    fn write(&self) -> String {
        let value = format!("i.{}", self.ours);
        let value = match self.ours {
            _ if self.is_local_time() => format!("{value} AT TIME ZONE 'UTC'"),
            _ if self.is_minor() => format!("CAST(round({value} * 100) AS {})", self.data_type),
            "status" if self.is_upper() => format!("CAST(upper({value}) AS {})", self.data_type),
            "status" if !self.labels.is_empty() => format!("CAST({value} AS {})", self.data_type),
            "reference_id" if self.data_type != "text" => format!("CAST({value} AS {})", self.data_type),
            _ => value,
        };
        let otherwise = match self.ours {
            _ if !self.is_required => None,
            "currency" => Some("'SAR'"),
            "total_amount" => Some("0"),
            "salla_created_at" if self.is_local_time() => Some("i.salla_updated_at AT TIME ZONE 'UTC'"),
            "salla_created_at" => Some("i.salla_updated_at"),
            _ => None,
        };
        otherwise.map_or_else(|| value.clone(), |otherwise| format!("COALESCE({value}, {otherwise})"))
    }
}

/// The whole file. `schema`: where this program's tables are.
pub fn file(shape: &Shape, schema: &str) -> String {
    let (view, function) =
        (format!("{}.platform_orders", quoted(schema)), format!("{}.write_platform_orders", quoted(schema)));
    let unknown: Vec<String> = shape
        .unknown
        .iter()
        .map(|column| format!("--   {column}: it is NOT NULL and has no default; add it to the INSERT with a value"))
        .collect();
    let unknown =
        if unknown.is_empty() { String::new() } else { format!("--\n-- Change this first:\n{}\n", unknown.join("\n")) };
    format!(
        "-- target.orders for {framework}: what the platform holds, and how a record is written into it.
-- Read each line, adapt it to your tables, and apply it as the owner of {table}. Then set
--   target.orders.view = \"{plain}.platform_orders\"
--   target.orders.function = \"{plain}.write_platform_orders\"
-- and run `salla-reconciler check`, which tries both and changes nothing.
{unknown}
{view_sql}

{function_sql}

-- The daemon needs nothing else of the platform. Replace reconciler by its role.
-- GRANT USAGE ON SCHEMA {quoted_schema} TO reconciler;
-- GRANT SELECT ON {view} TO reconciler;
REVOKE EXECUTE ON FUNCTION {function}(jsonb) FROM PUBLIC;
-- GRANT EXECUTE ON FUNCTION {function}(jsonb) TO reconciler;",
        framework = shape.framework,
        table = shape.table,
        plain = schema,
        quoted_schema = quoted(schema),
        view_sql = view_sql(shape, &view),
        function_sql = function_sql(shape, &function),
    )
}

fn view_sql(shape: &Shape, view: &str) -> String {
    let merchant = match &shape.merchants {
        Some(merchants) => format!("m.{}", quoted(&merchants.salla_id)),
        None => format!("o.{}", quoted(&shape.merchant)),
    };
    let mut columns = vec![format!("    CAST({merchant} AS bigint) AS merchant_id")];
    columns.extend(shape.columns.iter().map(|column| format!("    {} AS {}", column.read(), column.ours)));
    let join = shape.merchants.as_ref().map_or_else(String::new, |merchants| {
        format!("\nJOIN {} AS m ON m.{} = o.{}", merchants.table, quoted(&merchants.key), quoted(&shape.merchant))
    });
    format!(
        "-- What the platform holds. Only columns that are here are compared. Leave out what Salla does not decide.
-- A status that Salla does not know must stay unchanged, so that the difference is found.
CREATE OR REPLACE VIEW {view} AS
SELECT
{}
FROM {} AS o{join};",
        columns.join(",\n"),
        shape.table
    )
}

fn function_sql(shape: &Shape, function: &str) -> String {
    let join = shape.merchants.as_ref().map_or_else(String::new, |merchants| {
        format!(
            "\n    -- An order of a merchant that the platform does not know does not come back, and counts as failed.
    JOIN (SELECT {} AS key, {} AS salla_id FROM {}) AS m ON m.salla_id = r.merchant_id",
            quoted(&merchants.key),
            quoted(&merchants.salla_id),
            merchants.table
        )
    });
    let merchant_key = if shape.merchants.is_some() { ", m.key" } else { "" };
    format!(
        "-- Writes a page of records, and returns what it did with each: created, updated or unchanged.
-- A record that it does not return counts as failed. An error rolls the page back; its records are then tried one by one.
-- It runs with the rights of its owner, so that the daemon needs none on the tables.
CREATE OR REPLACE FUNCTION {function}(orders jsonb)
RETURNS TABLE (salla_order_id bigint, outcome text)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
WITH incoming AS (
    SELECT r.*{merchant_key}
    FROM jsonb_to_recordset(orders) AS r({RECORD}){join}
), written AS (
{}
)
SELECT i.salla_order_id, CASE WHEN w.is_new THEN 'created' WHEN w.id IS NOT NULL THEN 'updated' ELSE 'unchanged' END
FROM incoming AS i
LEFT JOIN written AS w ON w.id = i.salla_order_id
$function$;",
        upsert_sql(shape)
    )
}

/// The statement that writes the rows of `incoming`.
fn upsert_sql(shape: &Shape) -> String {
    let key = quoted(&shape.merchant);
    let of = |ours: &str| shape.columns.iter().find(|column| column.ours == ours);
    let name_of = |ours: &str| of(ours).map(|column| quoted(&column.name)).unwrap_or_default();
    let (id, version) = (name_of("salla_order_id"), name_of("salla_updated_at"));
    let touched: Vec<(String, String)> = shape.touched.iter().map(|(name, now)| (quoted(name), now.clone())).collect();
    let merchant = if shape.merchants.is_some() { "i.key" } else { "i.merchant_id" };
    let mut inserted = vec![(key.clone(), merchant.to_owned())];
    inserted.extend(shape.columns.iter().map(|column| (quoted(&column.name), column.write())));
    inserted.extend(shape.filled.iter().map(|(name, value)| (quoted(name), value.clone())));
    inserted.extend(touched.clone());
    let names: Vec<&str> = inserted.iter().map(|(name, _)| name.as_str()).collect();
    let values: Vec<String> = inserted.iter().map(|(_, value)| format!("        {value}")).collect();
    let is_content = |column: &&Column| !["salla_order_id", "salla_updated_at"].contains(&column.ours);
    let content: Vec<String> = shape.columns.iter().filter(is_content).map(|column| quoted(&column.name)).collect();
    let set = content.iter().chain([&version]).map(|name| format!("        {name} = excluded.{name}"));
    let set: Vec<String> = set.chain(touched.iter().map(|(name, now)| format!("        {name} = {now}"))).collect();
    let of_row = |row: &str| content.iter().map(|name| format!("{row}.{name}")).collect::<Vec<_>>().join(", ");
    let is_local = of("salla_updated_at").is_some_and(Column::is_local_time);
    format!(
        "    INSERT INTO {table} AS o
        ({names})
    SELECT
{values}
    FROM incoming AS i
    -- Two writers of the same rows wait for each other instead of a deadlock.
    ORDER BY i.salla_order_id
    ON CONFLICT ({key}, {id}) DO UPDATE SET
{set}
    -- The newer version wins. At equal age, the content of Salla wins. A time stamp of the future is wrong, and does not win.
    WHERE o.{version} < excluded.{version}
       OR o.{version} > {now} + interval '90 minutes'
       OR o.{version} = excluded.{version}
          AND ({old}) IS DISTINCT FROM ({new})
    RETURNING o.{id} AS id, o.xmax = 0 AS is_new",
        table = shape.table,
        names = names.join(", "),
        values = values.join(",\n"),
        set = set.join(",\n"),
        now = if is_local { "(now() AT TIME ZONE 'UTC')" } else { "now()" },
        old = of_row("o"),
        new = of_row("excluded"),
    )
}
