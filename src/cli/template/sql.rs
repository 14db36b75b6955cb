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

    /// The amount is in hundredths of the currency.
    fn is_minor(&self) -> bool {
        let name = self.name.to_lowercase();
        let is_named = name.contains("cent") || name.contains("halala");
        self.ours == "total_amount" && (self.data_type != "numeric" || is_named)
    }

    /// The labels are Salla's slugs in capital letters.
    fn is_upper(&self) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|label| *label == label.to_uppercase())
    }

    /// The column of a row, in a type that has an equality.
    fn compared(&self, row: &str) -> String {
        let name = format!("{row}.{}", quoted(&self.name));
        if self.data_type == "json" { format!("CAST({name} AS jsonb)") } else { name }
    }

    /// What the view shows.
    fn read(&self) -> String {
        let name = format!("o.{}", quoted(&self.name));
        match self.ours {
            _ if self.is_local_time() => format!("{name} AT TIME ZONE 'UTC'"),
            _ if self.is_minor() => format!("CAST({name} AS numeric) / 100"),
            "salla_order_id" => format!("CAST({name} AS bigint)"),
            "payload" => format!("CAST({name} AS jsonb)"),
            "status" if self.is_upper() => format!("lower(CAST({name} AS text))"),
            "status" | "currency" | "reference_id" => format!("CAST({name} AS text)"),
            _ => name,
        }
    }

    fn cast(&self, value: &str) -> String {
        format!("CAST({value} AS {})", self.data_type)
    }

    /// What the function writes.
    fn write(&self) -> String {
        let value = format!("i.{}", self.ours);
        let value = match self.ours {
            _ if self.is_local_time() => format!("{value} AT TIME ZONE 'UTC'"),
            _ if self.is_minor() => format!("CAST(round({value} * 100) AS {})", self.data_type),
            "status" if self.is_upper() => format!("CAST(upper({value}) AS {})", self.data_type),
            "status" if !self.labels.is_empty() => format!("CAST({value} AS {})", self.data_type),
            "reference_id" if self.data_type != "text" => self.cast(&value),
            "salla_order_id" if self.data_type != "bigint" => self.cast(&value),
            "payload" if self.data_type != "jsonb" => self.cast(&value),
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
    let assumed = shape.columns.iter().filter_map(|column| {
        let name = &column.name;
        if column.is_minor() {
            return Some(format!("-- Assumed: {name} is in hundredths of the currency.\n"));
        }
        column.is_local_time().then(|| format!("-- Assumed: {name} is in UTC.\n"))
    });
    let assumed: String = assumed.collect();
    let questions: Vec<String> = shape.questions.iter().map(|question| format!("--   {question}")).collect();
    let questions = if questions.is_empty() {
        String::new()
    } else {
        format!("--\n-- Change this first:\n{}\n", questions.join("\n"))
    };
    format!(
        "-- target.orders for {framework}: what the platform holds, and how a record is written into it.
-- Read each line, adapt it to your tables, and apply it as the owner of {table}. Then set
--   target.orders.view = \"{plain}.platform_orders\"
--   target.orders.function = \"{plain}.write_platform_orders\"
-- and run `salla-reconciler check`, which tries both and changes nothing.
{assumed}{questions}
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
-- Show an unknown status as it is. Then the program finds the difference.
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
            "\n    -- The function does not return orders of unknown merchants. They count as failed.
    JOIN (SELECT {} AS key, CAST({} AS bigint) AS salla_id FROM {}) AS m ON m.salla_id = r.merchant_id",
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
{upsert}
), marked AS (
{mark}
)
SELECT i.salla_order_id,
    CASE WHEN w.is_new THEN 'created' WHEN w.id IS NOT NULL OR k.id IS NOT NULL THEN 'updated' ELSE 'unchanged' END
FROM incoming AS i
LEFT JOIN written AS w ON CAST(w.id AS bigint) = i.salla_order_id
LEFT JOIN marked AS k ON CAST(k.id AS bigint) = i.salla_order_id
$function$;",
        upsert = upsert_sql(shape),
        mark = mark_sql(shape),
    )
}

impl Shape {
    fn of(&self, ours: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.ours == ours)
    }

    fn name_of(&self, ours: &str) -> String {
        self.of(ours).map(|column| quoted(&column.name)).unwrap_or_default()
    }

    /// The value of a column of the record, in the type of the platform.
    fn written(&self, ours: &str) -> String {
        self.of(ours).map(Column::write).unwrap_or_default()
    }

    /// The merchant of a record of `incoming`.
    fn merchant_value(&self) -> &'static str {
        if self.merchants.is_some() { "i.key" } else { "i.merchant_id" }
    }

    /// A version after this time is wrong.
    fn latest(&self) -> &'static str {
        if self.of("salla_updated_at").is_some_and(Column::is_local_time) {
            "(now() AT TIME ZONE 'UTC') + interval '90 minutes'"
        } else {
            "now() + interval '90 minutes'"
        }
    }

    /// `name = value` for the column with the time of the last write.
    fn touch(&self) -> Vec<String> {
        self.touched.iter().map(|(name, now)| format!("        {} = {now}", quoted(name))).collect()
    }
}

/// The statement that sets and removes the marks of deleted orders.
fn mark_sql(shape: &Shape) -> String {
    let id = shape.name_of("salla_order_id");
    let Some(mark) = shape.of("deleted_at") else {
        return format!(
            "    -- The table has no column for deleted orders. The program keeps the mark in its own copy.
    SELECT o.{id} AS id FROM {} AS o WHERE false",
            shape.table
        );
    };
    let (name, version) = (quoted(&mark.name), shape.name_of("salla_updated_at"));
    let set: Vec<String> = [format!("        {name} = {}", mark.write())].into_iter().chain(shape.touch()).collect();
    format!(
        "    -- A deleted order keeps its content. An order that is there again loses the mark, also if its row is newer.
    UPDATE {table} AS o SET
{set}
    FROM incoming AS i
    WHERE o.{key} = {merchant} AND o.{id} = {order}
      AND (i.deleted_at IS NOT NULL AND o.{name} IS NULL AND (o.{version} IS NULL OR o.{version} <= {theirs})
        OR i.deleted_at IS NULL AND o.{name} IS NOT NULL AND o.{version} > {theirs} AND o.{version} <= {latest})
    RETURNING o.{id} AS id",
        table = shape.table,
        set = set.join(",\n"),
        key = quoted(&shape.merchant),
        merchant = shape.merchant_value(),
        order = shape.written("salla_order_id"),
        theirs = shape.written("salla_updated_at"),
        latest = shape.latest(),
    )
}

/// The statement that writes the rows of `incoming`.
fn upsert_sql(shape: &Shape) -> String {
    let (key, id, version) =
        (quoted(&shape.merchant), shape.name_of("salla_order_id"), shape.name_of("salla_updated_at"));
    let touched = shape.touched.iter().map(|(name, now)| (quoted(name), now.clone()));
    let mut inserted = vec![(key.clone(), shape.merchant_value().to_owned())];
    inserted.extend(shape.columns.iter().map(|column| (quoted(&column.name), column.write())));
    inserted.extend(shape.filled.iter().map(|(name, value)| (quoted(name), value.clone())).chain(touched));
    let names: Vec<&str> = inserted.iter().map(|(name, _)| name.as_str()).collect();
    let values: Vec<String> = inserted.iter().map(|(_, value)| format!("        {value}")).collect();
    let is_content = |column: &&Column| !["salla_order_id", "salla_updated_at"].contains(&column.ours);
    let content: Vec<&Column> = shape.columns.iter().filter(is_content).collect();
    let set = content.iter().map(|column| quoted(&column.name)).chain([version.clone()]);
    let set = set.map(|name| format!("        {name} = excluded.{name}")).chain(shape.touch());
    let of_row = |row: &str| content.iter().map(|column| column.compared(row)).collect::<Vec<_>>().join(", ");
    format!(
        "    INSERT INTO {table} AS o
        ({names})
    SELECT
{values}
    FROM incoming AS i
    WHERE i.deleted_at IS NULL
    -- Sort by id, so that two writers wait and do not deadlock.
    ORDER BY i.salla_order_id
    ON CONFLICT ({key}, {id}) DO UPDATE SET
{set}
    -- The newer version wins. At equal age, the content of Salla wins. A row without a version, or with one of the future, does
    -- not win.
    WHERE o.{version} IS NULL
       OR o.{version} < excluded.{version}
       OR o.{version} > {latest}
       OR o.{version} = excluded.{version}
          AND ({old}) IS DISTINCT FROM ({new})
    RETURNING o.{id} AS id, o.xmax = 0 AS is_new",
        table = shape.table,
        names = names.join(", "),
        values = values.join(",\n"),
        set = set.collect::<Vec<_>>().join(",\n"),
        latest = shape.latest(),
        old = of_row("o"),
        new = of_row("excluded"),
    )
}
