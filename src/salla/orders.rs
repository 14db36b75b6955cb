//! Orders: from Salla's row to ours. Every field is taken apart by hand, from the JSON's own text, so
//! that a trouble is known by its path and an amount never passes through a float.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    date,
    money::money,
    wire::{integer, present, scalar},
};
use crate::domain::{Fingerprint, Order, OrderColumns, Unreadable};

/// The fields that we look at; all others stay in the payload.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    reference_id: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
    #[serde(borrow)]
    total: Option<&'a RawValue>,
    #[serde(borrow)]
    amounts: Option<&'a RawValue>,
    #[serde(borrow)]
    date: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at: Option<&'a RawValue>,
    #[serde(borrow)]
    draft: Option<&'a RawValue>,
}

/// Where the trouble is, and what it is.
pub type Trouble = (&'static str, &'static str);

/// What is wrong with a row that does not tell when it was changed: it may be a summary.
pub const MISSING_STAMP: Trouble = ("updated_at", "is missing");

/// Transforms one row of the list, or one order's detail, into an order. The total is taken from `total`
/// (lists) or `amounts.total` (details), the currency from `currency` or from beside the total.
///
/// # Errors
/// When the id or `updated_at` is missing, or a field that is there cannot be read.
pub fn transform(row: &RawValue) -> Result<Order, Unreadable> {
    let json = row.get();
    let wire: Row<'_> = serde_json::from_str(json).map_err(|error| Unreadable {
        id: None,
        path: String::new(),
        reason: reason(&error),
    })?;
    let id = present(wire.id).and_then(integer);
    let trouble = |(path, reason): Trouble| Unreadable { id, path: path.to_owned(), reason: reason.to_owned() };
    let id = id.ok_or_else(|| {
        trouble(("id", if present(wire.id).is_some() { "is not a 64-bit integer" } else { "is missing" }))
    })?;
    let updated_at = present(wire.updated_at)
        .ok_or_else(|| trouble(MISSING_STAMP))
        .and_then(|raw| date::parse(raw).ok_or_else(|| trouble(("updated_at", "is not a date"))))?;
    let draft = wire.draft.is_some_and(|raw| raw.get() == "true");
    let columns = columns(&wire).map_err(trouble)?;
    let fingerprint = Fingerprint::of_json(json).map_err(|error| Unreadable {
        id: Some(id),
        path: String::new(),
        reason: reason(&error),
    })?;
    Ok(Order { id, updated_at, draft, columns, payload: json.to_owned(), fingerprint })
}

/// A row's id, and when it says that the order was placed: as much as a summary needs.
pub fn place(row: &RawValue) -> Option<(i64, Option<DateTime<Utc>>)> {
    let wire: Row<'_> = serde_json::from_str(row.get()).ok()?;
    Some((present(wire.id).and_then(integer)?, present(wire.date).and_then(date::parse)))
}

/// What serde says is wrong, which names positions and types but may quote a short value.
fn reason(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Data => format!("is not an order object ({place})"),
        _ => format!("is not JSON that can be read ({place})"),
    }
}

fn columns(wire: &Row<'_>) -> Result<OrderColumns, Trouble> {
    let (amount, beside) = total(wire)?;
    Ok(OrderColumns {
        reference_id: present(wire.reference_id)
            .map(|raw| integer(raw).ok_or(("reference_id", "is not a 64-bit integer")))
            .transpose()?,
        status: present(wire.status).map_or(Ok(None), status)?,
        currency: present(wire.currency)
            .map(|raw| scalar(raw).ok_or(("currency", "is not a text")))
            .transpose()?
            .or(beside),
        total_amount: amount,
        salla_created_at: present(wire.date)
            .map(|raw| date::parse(raw).ok_or(("date", "is not a date")))
            .transpose()?,
    })
}

/// The slug, whatever it is: merchants define their own.
fn status(raw: &RawValue) -> Result<Option<String>, Trouble> {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow)]
        slug: Option<&'a RawValue>,
    }
    let slug = if raw.get().starts_with('{') {
        let status: Status<'_> = serde_json::from_str(raw.get()).map_err(|_| ("status", "is not a status"))?;
        present(status.slug)
    } else {
        Some(raw)
    };
    slug.map(|slug| scalar(slug).ok_or(("status.slug", "is not a text"))).transpose()
}

fn total(wire: &Row<'_>) -> Result<(Option<Decimal>, Option<String>), Trouble> {
    #[derive(Deserialize)]
    struct Amounts<'a> {
        #[serde(borrow)]
        total: Option<&'a RawValue>,
    }
    if let Some(raw) = present(wire.total) {
        return money(raw, "total.amount", "total.currency");
    }
    let Some(amounts) = present(wire.amounts) else {
        return Ok((None, None));
    };
    let amounts: Amounts<'_> =
        serde_json::from_str(amounts.get()).map_err(|_| ("amounts", "is not an object of amounts"))?;
    present(amounts.total).map_or(Ok((None, None)), |raw| money(raw, "amounts.total.amount", "amounts.total.currency"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: &str = r#"{"id":1017120475,"reference_id":"40497536","total":{"amount":55.10,"currency":"SAR"},
        "date":{"date":"2022-06-16 14:48:20.000000","timezone_type":3,"timezone":"Asia/Riyadh"},
        "updated_at":{"date":"2022-06-17 00:00:00.000000","timezone_type":3,"timezone":"Asia/Riyadh"},
        "status":{"id":566146469,"name":"بإنتظار المراجعة","slug":"under_review","customized":null},"links":[],"new_field":{"a":1}}"#;

    fn of(json: &str) -> Result<Order, Unreadable> {
        transform(&serde_json::from_str::<Box<RawValue>>(json).unwrap())
    }

    #[test]
    fn a_row_of_the_list() {
        let order = of(ROW).unwrap();
        assert_eq!(order.id, 1_017_120_475);
        assert_eq!(order.updated_at.to_rfc3339(), "2022-06-16T21:00:00+00:00");
        assert_eq!(order.columns.reference_id, Some(40_497_536));
        assert_eq!(order.columns.status.as_deref(), Some("under_review"));
        assert_eq!(order.columns.currency.as_deref(), Some("SAR"));
        assert_eq!(order.columns.total_amount.unwrap().to_string(), "55.10");
        assert_eq!(order.payload, ROW);
    }

    #[test]
    fn the_total_of_a_detail() {
        let detail = ROW.replace(
            r#""total":{"amount":55.10,"currency":"SAR"}"#,
            r#""currency":"USD","amounts":{"discounts":[],"total":{"amount":"0.10","currency":"USD"}}"#,
        );
        let columns = of(&detail).unwrap().columns;
        assert_eq!(columns.currency.as_deref(), Some("USD"));
        assert_eq!(columns.total_amount.unwrap().to_string(), "0.10");
    }

    #[test]
    fn a_trouble_is_named_by_its_path() {
        for (from, to, path) in [
            ("1017120475", "null", "id"),
            ("1017120475", "\"x\"", "id"),
            ("55.10", "\"abc\"", "total.amount"),
            ("2022-06-17", "2022-99-17", "updated_at"),
            ("2022-06-16", "yesterday", "date"),
            ("\"40497536\"", "1.5", "reference_id"),
        ] {
            let bad = of(&ROW.replacen(from, to, 1)).unwrap_err();
            assert_eq!(bad.path, path);
            assert_eq!(bad.id.is_some(), path != "id");
        }
    }

    #[test]
    fn what_is_no_order_is_unreadable() {
        for json in ["[]", "7", "\"x\"", "null", "{}"] {
            assert!(of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn ids_above_2_to_the_53() {
        let order = of(&ROW.replace("1017120475", "9007199254740993")).unwrap();
        assert_eq!(order.id, 9_007_199_254_740_993);
    }

    fn json_value() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            Just("{}".to_owned()),
            Just("[]".to_owned()),
            any::<f64>().prop_filter_map("finite", |f| f.is_finite().then(|| f.to_string())),
            any::<i64>().prop_map(|i| i.to_string()),
            ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            ".{0,12}".prop_map(|text| format!(
                r#"{{"amount":{},"slug":7,"date":[]}}"#,
                serde_json::to_string(&text).unwrap()
            )),
        ]
    }

    proptest! {
        #[test]
        fn what_a_row_says_is_what_comes_of_it(
            id in any::<i64>(), reference in any::<i64>(), cents in 0i64..1_000_000_000_000, texts in any::<[bool; 3]>(),
            second in 946_684_800i64..4_102_444_800, currency in "[A-Z]{3}", slug in "[a-z_]{1,20}", draft in any::<bool>(),
        ) {
            let spelt = |value: String, as_text: bool| if as_text { format!("\"{value}\"") } else { value };
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let updated_at = DateTime::from_timestamp(second, 0).unwrap();
            let riyadh = updated_at + chrono::TimeDelta::hours(3);
            let json = format!(
                r#"{{"id":{},"reference_id":{},"total":{{"amount":{},"currency":"{currency}"}},"status":{{"slug":"{slug}"}},
                "draft":{draft},"updated_at":{{"date":"{}","timezone":"Asia/Riyadh"}},"date":"{}"}}"#,
                spelt(id.to_string(), texts[0]), spelt(reference.to_string(), texts[1]), spelt(amount.clone(), texts[2]),
                riyadh.format("%Y-%m-%d %H:%M:%S.000000"), updated_at.to_rfc3339(),
            );
            let order = of(&json).unwrap();
            prop_assert_eq!((order.id, order.updated_at, order.draft), (id, updated_at, draft));
            prop_assert_eq!(order.columns, OrderColumns {
                reference_id: Some(reference),
                status: Some(slug),
                currency: Some(currency),
                total_amount: Some(amount.parse().unwrap()),
                salla_created_at: Some(updated_at),
            });
            prop_assert_eq!(order.payload, json);
        }

        #[test]
        fn no_row_panics(fields in proptest::collection::vec(json_value(), 8)) {
            let names = ["id", "reference_id", "status", "currency", "total", "amounts", "date", "updated_at"];
            let body: Vec<String> = names.iter().zip(fields).map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let _ = of(&format!("{{{}}}", body.join(",")));
        }
    }
}
