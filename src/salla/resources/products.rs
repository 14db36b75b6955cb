//! Products: from Salla's row to ours. Their numbers come as numbers or as texts, and their dates bare.

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api_resource::{ApiResource, Capabilities},
    money::money,
    transform::{ApiRow, FieldError, flag, text, transform, whole_number},
};
use crate::{
    domain::{Product, ProductColumns, Unreadable},
    json_object::object,
    salla::wire::values::{integer, present, stated},
};

/// The fields that we look at.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    sku: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    product_type: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(borrow)]
    sale_price: Option<&'a RawValue>,
    #[serde(borrow)]
    cost_price: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    is_available: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at: Option<&'a RawValue>,
}

impl<'a> ApiRow<'a> for Row<'a> {
    type Columns = ProductColumns;

    fn id(&self) -> Option<&'a RawValue> {
        self.id
    }

    fn updated_at(&self) -> Option<&'a RawValue> {
        self.updated_at
    }

    fn columns(&self) -> Result<ProductColumns, FieldError> {
        let (price_amount, currency) = amount(self.price, "price.amount", "price.currency")?;
        let (sale_price_amount, of_sale) = amount(self.sale_price, "sale_price.amount", "sale_price.currency")?;
        let (cost_amount, of_cost) = amount(self.cost_price, "cost_price", "cost_price.currency")?;
        Ok(ProductColumns {
            name: text(self.name, "name")?,
            sku: text(self.sku, "sku")?,
            product_type: text(self.product_type, "type")?,
            status: text(self.status, "status")?,
            currency: currency.or(of_sale).or(of_cost),
            price_amount,
            sale_price_amount,
            cost_amount,
            quantity: whole_number(self.quantity, "quantity")?,
            is_available: flag(self.is_available, "is_available")?,
        })
    }
}

type Amount = (Option<Decimal>, Option<String>);

fn amount(
    raw: Option<&RawValue>,
    amount_path: &'static str,
    currency_path: &'static str,
) -> Result<Amount, FieldError> {
    stated(raw).map_or(Ok((None, None)), |raw| money(raw, amount_path, currency_path))
}

impl ApiResource for Product {
    const SCOPE: &'static str = "products.read";

    const PATH: &'static str = "v2/products";

    // No filter by date and no order.
    const LIST: Capabilities = Capabilities {
        changed_since: None,
        created_days: None,
        oldest_first: None,
        by_id: None,
        last_change_first: None,
        paged: true,
        summaries: false,
    };

    const SINGLE: Option<&'static [(&'static str, &'static str)]> = Some(&[]);

    fn transform(row: &ByteString) -> Result<Self, Unreadable> {
        transform::<Row<'_>>(row)
    }

    fn place(row: &str) -> Option<(i64, Option<DateTime<Utc>>)> {
        let wire: Row<'_> = object(row).ok()?;
        Some((present(wire.id).and_then(integer)?, None))
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Record;

    const ROW: &str = r#"{"id":"1672932878","sku":"","type":"product","name":"قميص","price":{"amount":100.50,"currency":"SAR"},
        "sale_price":{},"cost_price":"35","quantity":"50","status":"sale","is_available":true,"sale_end":{},
        "updated_at":"2024-03-06 13:50:32","views":7,"skus":[{"id":1936825372,"sale_price":{}}]}"#;

    fn of(json: &str) -> Result<Product, Unreadable> {
        Product::transform(&json.into())
    }

    #[test]
    fn a_row_of_the_list() {
        let product = of(ROW).unwrap();
        assert_eq!(
            (product.id, product.updated_at.unwrap().to_rfc3339().as_str()),
            (1_672_932_878, "2024-03-06T10:50:32+00:00")
        );
        let columns = product.columns;
        assert_eq!(columns.name.as_deref(), Some("قميص"));
        assert_eq!(columns.currency.as_deref(), Some("SAR"));
        assert_eq!(columns.price_amount.unwrap().to_string(), "100.50");
        assert_eq!((columns.sale_price_amount, columns.cost_amount.unwrap().to_string()), (None, "35".to_owned()));
        assert_eq!((columns.quantity, columns.is_available), (Some(50), Some(true)));
    }

    /// A webhook has the same product in another form.
    #[test]
    fn as_a_webhook_writes_it() {
        let row = ROW.replace("\"50\"", "50").replace("\"cost_price\":\"35\"", "\"cost_price\":null");
        let columns = of(&row.replace("100.50,\"currency\"", "\"100.50\",\"currency\"")).unwrap().columns;
        assert_eq!((columns.quantity, columns.cost_amount), (Some(50), None));
        assert_eq!(columns.price_amount.unwrap().to_string(), "100.50");
        assert_eq!(of(&ROW.replace("\"50\"", "\"\"")).unwrap().columns.quantity, None);
    }

    #[test]
    fn errors_name_the_path() {
        for (from, to, path) in [
            ("\"1672932878\"", "null", "id"),
            ("100.50", "\"abc\"", "price.amount"),
            ("\"35\"", "\"dear\"", "cost_price"),
            ("\"50\"", "\"many\"", "quantity"),
            ("true", "\"perhaps\"", "is_available"),
            ("2024-03-06", "2024-99-06", "updated_at"),
            ("2024-03-06", "1448-03-06", "updated_at"),
            ("\"updated_at\"", "\"touched_at\"", "updated_at"),
        ] {
            assert_eq!(of(&ROW.replacen(from, to, 1)).unwrap_err().path, path, "{to}");
        }
    }

    #[test]
    fn view_counts_are_not_a_difference() {
        let product = of(ROW).unwrap();
        assert_eq!(of(&ROW.replace("\"views\":7", "\"views\":8")).unwrap().content_hash(), product.content_hash());
    }
}
