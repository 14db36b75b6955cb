//! The records of Salla, and what the program remembers of each. Platforms read and write the first five tables.

use crate::description::{APPEND_ONLY, Dialect, OF_MERCHANT, Table, WITHOUT_DELETE};

pub fn tables() -> Vec<Table> {
    vec![
        orders(),
        order_items(),
        products(),
        customers(),
        order_statuses(),
        watermarks(),
        order_detail_checks(),
        failed_records(),
        erased_customers(),
    ]
}

fn orders() -> Table {
    Table::new("orders", "The orders of all merchants.")
        .needs(WITHOUT_DELETE)
        .column("id", "IDENTITY", "Our own id.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("salla_order_id", "BIGINT NOT NULL", "Salla's id of the order.")
        .column("reference_id", "BIGINT", "The number that the customer sees.")
        .column("status", "text", "Salla's slug of the status.")
        .column("currency", "text", "ISO 4217 code.")
        .column("total_amount", "EXACT", "The total, in the order's currency.")
        .column("salla_created_at", "OPEN_INSTANT", "When the order was placed.")
        .column("items_version", "OPEN_INSTANT", "The salla_updated_at of the order whose items are stored.")
        .record_columns()
        .unique("orders_merchant_id_salla_order_id_key", "(merchant_id, salla_order_id)")
        .only(
            Dialect::Postgres,
            "CREATE INDEX orders_changed ON orders (merchant_id, salla_updated_at) WHERE deleted_at IS NULL",
        )
        .only(
            Dialect::Sqlite,
            "CREATE INDEX orders_changed ON orders (merchant_id, julianday(salla_updated_at)) WHERE deleted_at IS NULL",
        )
}

fn order_items() -> Table {
    Table::new("order_items", "The items of the orders.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("salla_order_id", "BIGINT NOT NULL", "Salla's id of the order.")
        .column("position", "BIGINT NOT NULL", "The place in the order, from 0.")
        .column("salla_item_id", "BIGINT NOT NULL", "Salla's id of the item.")
        .column("product_id", "BIGINT", "Salla's id of the product.")
        .column("sku", "text", "The stock keeping unit.")
        .column("name", "text", "The name of the product when it was ordered.")
        .column("quantity", "EXACT", "How many.")
        .column("currency", "text", "ISO 4217 code.")
        .column("price_amount", "EXACT", "The price of one, in the item's currency.")
        .column("total_amount", "EXACT", "The price of all, in the item's currency.")
        .constraint("PRIMARY KEY (merchant_id, salla_order_id, position)")
}

fn products() -> Table {
    Table::new("products", "The products of all merchants.")
        .needs(WITHOUT_DELETE)
        .column("id", "IDENTITY", "Our own id.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("salla_product_id", "BIGINT NOT NULL", "Salla's id of the product.")
        .column("name", "text", "The name.")
        .column("sku", "text", "The stock keeping unit.")
        .column("product_type", "text", "Salla's kind of product, such as product or service.")
        .column("status", "text", "Salla's status, such as sale or hidden.")
        .column("currency", "text", "ISO 4217 code.")
        .column("price_amount", "EXACT", "The price.")
        .column("sale_price_amount", "EXACT", "The reduced price.")
        .column("cost_amount", "EXACT", "What the merchant pays.")
        .column("quantity", "BIGINT", "In stock; NULL: unlimited.")
        .column("is_available", "boolean", "Whether it can be bought.")
        .record_columns()
        .unique("products_merchant_id_salla_product_id_key", "(merchant_id, salla_product_id)")
}

fn customers() -> Table {
    Table::new(
        "customers",
        "The customers of all merchants. The setting privacy.customer_fields decides which columns are filled.",
    )
    .needs(WITHOUT_DELETE)
    .column("id", "IDENTITY", "Our own id.")
    .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
    .column("salla_customer_id", "BIGINT NOT NULL", "Salla's id of the customer.")
    .column("first_name", "text", "The first name.")
    .column("last_name", "text", "The last name.")
    .column("email", "text", "The e-mail address.")
    .column("mobile", "text", "The mobile number, without the country's code.")
    .column("mobile_code", "text", "The country's code of the mobile number.")
    .column("gender", "text", "Salla's word for the gender.")
    .column("birthday", "text", "The day of birth, YYYY-MM-DD.")
    .column("city", "text", "The city.")
    .column("country", "text", "The country.")
    .column("country_code", "text", "ISO 3166 code.")
    .column("currency", "text", "ISO 4217 code.")
    .column("language", "text", "The language.")
    .column("salla_created_at", "OPEN_INSTANT", "When the customer registered.")
    .record_columns()
    .unique("customers_merchant_id_salla_customer_id_key", "(merchant_id, salla_customer_id)")
}

fn order_statuses() -> Table {
    Table::new("order_statuses", "The order statuses that each merchant defined.")
        .needs(WITHOUT_DELETE)
        .column("id", "IDENTITY", "Our own id.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("salla_status_id", "BIGINT NOT NULL", "Salla's id of the status.")
        .column("name", "text", "The merchant's name for it.")
        .column("slug", "text", "Salla's slug.")
        .column("status_type", "text", "original or custom.")
        .column("parent_id", "BIGINT", "Salla's id of the status above it.")
        .column("original_id", "BIGINT", "Salla's id of the status from which it was made.")
        .record_columns()
        .unique("order_statuses_merchant_id_salla_status_id_key", "(merchant_id, salla_status_id)")
}

fn watermarks() -> Table {
    Table::new("watermarks", "Up to when each kind of record of a merchant is reconciled.")
        .needs(WITHOUT_DELETE)
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("resource", "text NOT NULL", "The kind of record.")
        .column("watermark", "INSTANT NOT NULL", "Every change before this time is covered, by Salla's clock.")
        .column(
            "target",
            "text NOT NULL DEFAULT ''",
            "The view of the platform that was compared; empty: our own table.",
        )
        .column("rotation_cursor", "INSTANT", "Where the rotation through older records goes on, by date of creation.")
        .column("sorted_list", "text", "The state of the list that is sorted by time of change.")
        .constraint("PRIMARY KEY (merchant_id, resource)")
        .constraint(OF_MERCHANT)
}

fn order_detail_checks() -> Table {
    Table::new("order_detail_checks", "When the details of each order were last compared.")
        .needs(WITHOUT_DELETE)
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("salla_order_id", "BIGINT NOT NULL", "Salla's id of the order.")
        .column("list_fingerprint", "text NOT NULL", "Hash of the order's row in Salla's list.")
        .column("stored_fingerprint", "text NOT NULL", "The order's content_hash at that time.")
        .column("salla_updated_at", "INSTANT", "The order's time of change in these details.")
        .column("details_read_at", "INSTANT NOT NULL DEFAULT NOW", "When the details were read.")
        .column(
            "newer_locally",
            "boolean NOT NULL DEFAULT FALSE",
            "Whether the stored order was newer than the details, and different.",
        )
        .constraint("PRIMARY KEY (merchant_id, salla_order_id)")
}

fn failed_records() -> Table {
    Table::new("failed_records", "Records that were skipped or failed, until a run succeeds with them.")
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("resource", "text NOT NULL", "The kind of record.")
        .column("salla_id", "BIGINT NOT NULL", "Salla's id of the record.")
        .column("error", "text", "Why the last attempt failed.")
        .column("backfill", "boolean NOT NULL DEFAULT FALSE", "Whether the first failure was backfill.")
        .column("first_failed_at", "INSTANT NOT NULL DEFAULT NOW", "When it failed first.")
        .column("last_attempted_at", "INSTANT NOT NULL DEFAULT NOW", "When it was last tried.")
        .constraint("PRIMARY KEY (merchant_id, resource, salla_id)")
}

fn erased_customers() -> Table {
    Table::new("erased_customers", "Customers whose personal data must never be stored again.")
        .needs(APPEND_ONLY)
        .column("merchant_id", "BIGINT NOT NULL", "Salla's id of the merchant.")
        .column("customer_id", "BIGINT NOT NULL", "Salla's id of the customer.")
        .column("erased_at", "INSTANT NOT NULL DEFAULT NOW", "When the data was erased.")
        .constraint("PRIMARY KEY (merchant_id, customer_id)")
}
