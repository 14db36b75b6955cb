//! The items of an order, which have a separate address.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    money::{exact, money},
    transform::{FieldError, text, whole_number},
};
use crate::{domain::OrderItem, json_object::object, salla::wire::values::stated};

/// Where they are, and by which parameter an order's are asked for.
pub const PATH: &str = "v2/orders/items";
pub const OF_ORDER: &str = "order_id";

/// The fields that we look at.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    product: Option<&'a RawValue>,
    #[serde(borrow)]
    sku: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
    #[serde(borrow)]
    amounts: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Amounts<'a> {
    #[serde(borrow)]
    price_without_tax: Option<&'a RawValue>,
    #[serde(borrow)]
    total: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Product<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// Reads an item.
///
/// # Errors
/// When its id is missing, or a field that is there cannot be read.
pub fn item(row: &str) -> Result<OrderItem, FieldError> {
    let row: Row<'_> = object(row).map_err(|_| ("items", "contains an invalid item"))?;
    let amounts: Amounts<'_> = inner(row.amounts, "items.amounts")?;
    let product: Product<'_> = inner(row.product, "items.product")?;
    let amount = |raw: Option<&RawValue>, path, currency_path| {
        stated(raw).map_or(Ok((None, None)), |raw| money(raw, path, currency_path))
    };
    let (price_amount, of_price) = amount(
        amounts.price_without_tax,
        "items.amounts.price_without_tax",
        "items.amounts.price_without_tax.currency",
    )?;
    let (total_amount, of_total) = amount(amounts.total, "items.amounts.total", "items.amounts.total.currency")?;
    Ok(OrderItem {
        id: whole_number(row.id, "items.id")?.ok_or(("items.id", "is missing"))?,
        product_id: whole_number(product.id, "items.product.id")?,
        sku: text(row.sku, "items.sku")?,
        name: text(row.name, "items.name")?,
        quantity: stated(row.quantity)
            .map(|raw| exact(raw).ok_or(("items.quantity", "is not a number that can be kept exactly")))
            .transpose()?,
        currency: text(row.currency, "items.currency")?.or(of_total).or(of_price),
        price_amount,
        total_amount,
    })
}

fn inner<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>, path: &'static str) -> Result<T, FieldError> {
    stated(raw)
        .map_or_else(|| Ok(T::default()), |raw| object(raw.get()).map_err(|_| (path, "is not what stands there")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"id":"365435777","name":"قميص","sku":"shirt-l","quantity":"2","currency":"SAR","notes":"for Noura",
        "product":{"id":77,"name":"قميص"},
        "amounts":{"price_without_tax":{"amount":150.10,"currency":"SAR"},"total":{"amount":"345.23","currency":"SAR"}}}"#;

    fn of(json: &str) -> Result<OrderItem, FieldError> {
        item(json)
    }

    #[test]
    fn an_item() {
        let item = of(ROW).unwrap();
        assert_eq!((item.id, item.product_id, item.sku.as_deref()), (365_435_777, Some(77), Some("shirt-l")));
        assert_eq!(item.quantity.unwrap().to_string(), "2");
        assert_eq!(item.price_amount.unwrap().to_string(), "150.10");
        assert_eq!(item.total_amount.unwrap().to_string(), "345.23");
        let orphan = of(&ROW.replace(r#"{"id":77,"name":"قميص"}"#, "null")).unwrap();
        assert_eq!((orphan.product_id, orphan.sku.as_deref()), (None, Some("shirt-l")), "its product was deleted");
        let bare = of(r#"{"id":1,"amounts":[]}"#).unwrap();
        assert_eq!((bare.quantity, bare.total_amount, bare.currency), (None, None, None));
    }

    #[test]
    fn errors_name_the_path() {
        for (from, to, path) in [
            ("\"365435777\"", "null", "items.id"),
            ("\"2\"", "\"two\"", "items.quantity"),
            ("150.10", "\"dear\"", "items.amounts.price_without_tax"),
            ("\"345.23\"", "{}", "items.amounts.total"),
            (r#"{"id":77,"name":"قميص"}"#, "7", "items.product"),
            (r#"{"id":77,"name":"قميص"}"#, "[77]", "items.product"),
        ] {
            let bad = of(&ROW.replacen(from, to, 1));
            if path == "items.amounts.total" {
                assert_eq!(bad.unwrap().total_amount, None);
            } else {
                assert_eq!(bad.unwrap_err().0, path, "{to}");
            }
        }
        let blank =
            of(r#"{"id":1,"quantity":"","amounts":{"total":"","price_without_tax":{"amount":" "}},"product":""}"#);
        assert_eq!(blank.map(|item| (item.quantity, item.total_amount, item.product_id)).unwrap(), (None, None, None));
        assert_eq!(of("[]").unwrap_err().0, "items");
        assert_eq!(of("[365435777,null,null,null,null,null,null]").unwrap_err().0, "items");
    }
}
