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
    /// Questions that a person must answer before the file is applied.
    pub questions: Vec<String>,
}

/// The columns of the contract, with the names that platforms usually give them.
const NAMES: [(&str, &[&str]); 9] = [
    ("salla_order_id", &["sallaorderid", "sallaid", "externalid", "externalorderid"]),
    ("reference_id", &["referenceid", "reference", "orderreference", "ordernumber"]),
    ("status", &["status", "orderstatus", "state"]),
    ("currency", &["currency", "currencycode"]),
    ("total_amount", &["totalamount", "total", "totalcents", "totalhalalas", "totalprice", "grandtotal"]),
    ("salla_created_at", &["sallacreatedat", "placedat", "orderedat", "orderdate"]),
    ("salla_updated_at", &["sallaupdatedat", "sourceupdatedat", "externalupdatedat"]),
    ("deleted_at", &["deletedat", "discardedat", "removedat"]),
    ("payload", &["payload", "rawpayload", "sallapayload"]),
];

/// The names of the column with Salla's merchant id, the most exact ones first.
const SALLA_IDS: [&str; 5] = ["sallamerchantid", "sallastoreid", "sallashopid", "sallaid", "merchantid"];

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Why a person must say how a column is converted.
fn unclear(ours: &str, column: &PlatformColumn) -> Option<String> {
    let (name, data_type) = (&column.name, column.data_type.as_str());
    let is_integer = ["smallint", "integer", "bigint"].contains(&data_type);
    let is_text = ["text", "character varying", "character", "citext"].contains(&data_type);
    let is_upper = column.labels.iter().all(|label| *label == label.to_uppercase());
    let is_lower = column.labels.iter().all(|label| *label == label.to_lowercase());
    let problem = match ours {
        _ if column.is_generated => "the database computes it; leave it out",
        "salla_order_id" if !is_integer && !is_text && data_type != "numeric" => "it must hold Salla's order id",
        "status" if is_integer => "numbers stand for the status; add a CASE to the view and to the function",
        "status" if !column.labels.is_empty() && !is_upper && !is_lower => {
            "convert its labels to and from Salla's slugs"
        }
        "status" if !is_text && column.labels.is_empty() => "convert its type to and from Salla's slug",
        "total_amount" if !is_integer && data_type != "numeric" => {
            "convert its type to and from the amount in the currency"
        }
        "payload" if !["jsonb", "json"].contains(&data_type) => "convert its type to and from jsonb",
        _ if ours.ends_with("_at") && !data_type.starts_with("timestamp") => "convert its type to and from timestamptz",
        _ => return None,
    };
    Some(format!("{name} ({data_type}, for {ours}): {problem}"))
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
            questions: Vec::new(),
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
    pub fn found(usual: Self, found: &PlatformColumns) -> anyhow::Result<Self> {
        let (columns, mut questions) = contract_columns(found)?;
        let is_merchant =
            |column: &&PlatformColumn| ["merchantid", "storeid", "shopid"].contains(&&*plain(&column.name));
        let Some(merchant) = found.columns.iter().find(is_merchant) else {
            bail!(
                "the table {} has no column merchant_id, store_id or shop_id; start from the file without --table",
                found.table
            );
        };
        let merchants = merchants(found, &merchant.name)?;
        if merchants.is_none() {
            let assumed = "it has no foreign key of one column; the file takes it for Salla's merchant id";
            questions.push(format!("{}: {assumed}", merchant.name));
        }
        let known = |name: &str| name == merchant.name || columns.iter().any(|column| column.name == name);
        let others = found.columns.iter().filter(|column| !known(&column.name)).collect::<Vec<_>>();
        let (table, merchant) = (found.table.clone(), merchant.name.clone());
        let mut shape =
            Self { table, merchants, merchant, columns, filled: Vec::new(), touched: None, questions, ..usual };
        others.into_iter().for_each(|column| shape.fill(column));
        Ok(shape)
    }

    /// Finds a value for a column that the contract does not know.
    fn fill(&mut self, column: &PlatformColumn) {
        let (name, data_type) = (column.name.clone(), column.data_type.as_str());
        let now = if data_type.starts_with("timestamp without") { "(now() AT TIME ZONE 'UTC')" } else { "now()" };
        match (plain(&name).as_str(), data_type) {
            ("updatedat" | "modifiedat", _) => self.touched = Some((name, now.to_owned())),
            _ if !column.is_required || column.has_default => {}
            ("createdat", _) => self.filled.push((name, now.to_owned())),
            (_, "uuid") => self.filled.push((name, "gen_random_uuid()".to_owned())),
            ("id", "text" | "character varying") => {
                self.filled.push((name, "CAST(gen_random_uuid() AS text)".to_owned()));
            }
            _ => {
                self.questions
                    .push(format!("{name}: it is NOT NULL and has no default; add it to the INSERT with a value"));
            }
        }
    }
}

/// The columns of a table that the contract knows, and the questions that they leave.
fn contract_columns(found: &PlatformColumns) -> anyhow::Result<(Vec<Column>, Vec<String>)> {
    let named = |names: &[&str]| {
        names.iter().find_map(|name| found.columns.iter().find(|column| plain(&column.name) == **name))
    };
    let (mut columns, mut questions) = (Vec::new(), Vec::new());
    for (ours, names) in NAMES {
        let Some(column) = named(names) else {
            let data_type = match ours {
                "salla_order_id" => "bigint",
                "salla_updated_at" => "timestamptz, or timestamp in UTC",
                _ => continue,
            };
            bail!(
                "the table {} has no column for {ours}; add one ({data_type}), because the program finds and compares orders by it",
                found.table
            );
        };
        match unclear(ours, column) {
            Some(problem) if ["salla_order_id", "salla_updated_at"].contains(&ours) => {
                bail!("the table {}: {problem}", found.table)
            }
            Some(problem) => questions.push(problem),
            None => columns.push(Column {
                ours,
                name: column.name.clone(),
                data_type: column.data_type.clone(),
                is_required: column.is_required,
                labels: column.labels.clone(),
            }),
        }
    }
    Ok((columns, questions))
}

/// The table that the column of the merchant refers to.
fn merchants(found: &PlatformColumns, merchant: &str) -> anyhow::Result<Option<Merchants>> {
    let Some(reference) = found.references.iter().find(|reference| reference.column == merchant) else {
        return Ok(None);
    };
    let named = |known: &&str| reference.columns.iter().find(|name| plain(name) == **known);
    let Some(salla_id) = SALLA_IDS.iter().find_map(named) else {
        bail!("the table {} has no column with Salla's merchant id, such as salla_merchant_id", reference.table);
    };
    let (table, key) = (reference.table.clone(), reference.key.clone());
    Ok(Some(Merchants { table, key, salla_id: salla_id.clone() }))
}
