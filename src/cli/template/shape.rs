//! The tables of a platform, as a template needs them.

use anyhow::bail;

use super::Kind;
use crate::store::{PlatformColumn, PlatformColumns};

/// The table of merchants that the orders refer to.
#[derive(Debug, Clone)]
pub struct Merchants {
    /// As SQL writes it.
    pub table: String,
    /// The key that the orders refer to.
    pub key: String,
    /// The column with Salla's merchant id.
    pub salla_id: String,
}

/// A column of the platform's orders.
#[derive(Debug, Clone)]
pub struct Column {
    /// The column of the contract.
    pub ours: &'static str,
    pub name: String,
    /// As PostgreSQL writes it.
    pub data_type: String,
    pub is_required: bool,
    /// The labels of an enum.
    pub labels: Vec<String>,
}

/// The table of the platform's orders.
#[derive(Debug, Clone)]
pub struct Shape {
    pub framework: &'static str,
    /// As SQL writes it.
    pub table: String,
    /// `None`: the orders have Salla's merchant id themselves.
    pub merchants: Option<Merchants>,
    /// The column of the orders with the merchant.
    pub merchant: String,
    /// The columns that the contract knows.
    pub columns: Vec<Column>,
    /// Columns that the database gives no value, with an expression for new rows.
    pub filled: Vec<(String, String)>,
    /// The column with the time of the last write.
    pub touched: Option<(String, String)>,
    /// Columns for which no value is known.
    pub unknown: Vec<String>,
}

/// The columns of the contract, with the names that platforms usually give them.
const NAMES: [(&str, &[&str]); 9] = [
    ("salla_order_id", &["sallaorderid", "sallaid", "externalid", "externalorderid"]),
    ("reference_id", &["referenceid", "reference", "orderreference", "ordernumber", "number"]),
    ("status", &["status", "orderstatus", "state"]),
    ("currency", &["currency", "currencycode"]),
    ("total_amount", &["totalamount", "total", "totalcents", "totalhalalas", "amount", "totalprice", "grandtotal"]),
    ("salla_created_at", &["sallacreatedat", "placedat", "orderedat", "orderdate"]),
    ("salla_updated_at", &["sallaupdatedat", "sourceupdatedat", "externalupdatedat"]),
    ("deleted_at", &["deletedat", "discardedat", "removedat"]),
    ("payload", &["payload", "raw", "rawpayload", "sallapayload", "data"]),
];

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

impl Shape {
    /// The names and types that a framework gives by default.
    pub fn usual(kind: Kind) -> Self {
        let camel = |ours: &str| {
            let mut words = ours.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            words.fold(first, |name, word| format!("{name}{}{}", word[..1].to_uppercase(), &word[1..]))
        };
        let stamp = match kind {
            Kind::Prisma | Kind::Rails => "timestamp without time zone",
            Kind::Django | Kind::Plain => "timestamp with time zone",
        };
        let column = |ours: &'static str| {
            let is_prisma = kind == Kind::Prisma;
            let data_type = match ours {
                "salla_order_id" => "bigint",
                "total_amount" => "numeric",
                "payload" => "jsonb",
                "status" if is_prisma => "\"OrderStatus\"",
                _ if ours.ends_with("_at") => stamp,
                _ => "text",
            };
            Column {
                ours,
                name: if is_prisma { camel(ours) } else { ours.to_owned() },
                data_type: data_type.to_owned(),
                is_required: ["salla_order_id", "status", "salla_updated_at"].contains(&ours),
                labels: if is_prisma && ours == "status" { vec!["UNDER_REVIEW".to_owned()] } else { Vec::new() },
            }
        };
        let columns = NAMES.into_iter().map(|(ours, _)| column(ours)).collect();
        let merchants = |table: &str, salla_id: &str| {
            Some(Merchants { table: table.to_owned(), key: "id".to_owned(), salla_id: salla_id.to_owned() })
        };
        let now = "(now() AT TIME ZONE 'UTC')".to_owned();
        let of = |framework, table: &str, merchants, merchant: &str| Self {
            framework,
            table: table.to_owned(),
            merchants,
            merchant: merchant.to_owned(),
            columns,
            filled: Vec::new(),
            touched: None,
            unknown: Vec::new(),
        };
        match kind {
            Kind::Plain => of("no framework", "public.platform_orders", None, "merchant_id"),
            Kind::Prisma => Self {
                filled: vec![("id".to_owned(), "CAST(gen_random_uuid() AS text)".to_owned())],
                touched: Some(("updatedAt".to_owned(), now)),
                ..of("Prisma", "public.\"Order\"", merchants("public.\"Merchant\"", "sallaMerchantId"), "merchantId")
            },
            Kind::Rails => Self {
                filled: vec![("created_at".to_owned(), now.clone())],
                touched: Some(("updated_at".to_owned(), now)),
                ..of("Rails", "public.orders", merchants("public.merchants", "salla_merchant_id"), "merchant_id")
            },
            Kind::Django => {
                of("Django", "public.shop_order", merchants("public.shop_merchant", "salla_merchant_id"), "merchant_id")
            }
        }
    }

    /// The shape of a table that exists.
    pub fn found(usual: Self, found: PlatformColumns) -> anyhow::Result<Self> {
        let named = |names: &[&str]| {
            names.iter().find_map(|name| found.columns.iter().find(|column| plain(&column.name) == **name))
        };
        let table = found.table.clone();
        let mut columns = Vec::new();
        for (ours, names) in NAMES {
            let Some(column) = named(names) else {
                if ["salla_order_id", "salla_updated_at"].contains(&ours) {
                    bail!(
                        "the table {table} has no column for {ours}; add one ({}), because the program finds and compares orders by it",
                        if ours == "salla_order_id" { "bigint" } else { "timestamptz, or timestamp in UTC" }
                    );
                }
                continue;
            };
            columns.push(Column {
                ours,
                name: column.name.clone(),
                data_type: column.data_type.clone(),
                is_required: column.is_required,
                labels: column.labels.clone(),
            });
        }
        let is_merchant =
            |column: &&PlatformColumn| ["merchantid", "storeid", "shopid"].contains(&&*plain(&column.name));
        let Some(merchant) = found.columns.iter().find(is_merchant) else {
            bail!("the table {table} has no column merchant_id, store_id or shop_id");
        };
        let salla_id = |columns: &[String]| columns.iter().find(|name| plain(name).contains("salla")).cloned();
        let merchants = match found.references.iter().find(|reference| reference.column == merchant.name) {
            None => None,
            Some(reference) => {
                let Some(salla_id) = salla_id(&reference.columns) else {
                    bail!(
                        "the table {} has no column with Salla's merchant id, such as salla_merchant_id",
                        reference.table
                    );
                };
                Some(Merchants { table: reference.table.clone(), key: reference.key.clone(), salla_id })
            }
        };
        let known = |name: &str| name == merchant.name || columns.iter().any(|column| column.name == name);
        let mut shape =
            Self { table, merchants, merchant: merchant.name.clone(), filled: Vec::new(), touched: None, ..usual };
        for column in found.columns.iter().filter(|column| !known(&column.name)) {
            let now =
                if column.data_type.starts_with("timestamp without") { "(now() AT TIME ZONE 'UTC')" } else { "now()" };
            match (plain(&column.name).as_str(), &*column.data_type) {
                ("updatedat" | "modifiedat", _) => shape.touched = Some((column.name.clone(), now.to_owned())),
                _ if !column.is_required || column.has_default => {}
                ("createdat", _) => shape.filled.push((column.name.clone(), now.to_owned())),
                (_, "uuid") => shape.filled.push((column.name.clone(), "gen_random_uuid()".to_owned())),
                ("id", "text" | "character varying") => {
                    shape.filled.push((column.name.clone(), "CAST(gen_random_uuid() AS text)".to_owned()));
                }
                _ => shape.unknown.push(column.name.clone()),
            }
        }
        shape.columns = columns;
        Ok(shape)
    }
}
