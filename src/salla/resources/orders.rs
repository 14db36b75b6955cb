//! Orders: from Salla's row to ours.

use std::borrow::Cow;

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api_resource::{ApiResource, Capabilities, Items},
    money::money,
    order_items,
    privacy::{FieldClass, PersonalFields},
    transform::{ApiRow, FieldError, instant, text, transform, whole_number},
};
use crate::{
    domain::{Order, OrderColumns, Unreadable},
    json_object::object,
    salla::wire::{
        date,
        values::{integer, present, scalar, stated},
    },
};

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

/// Of the list, or of an order's own address. The total is taken from `total` (lists) or `amounts.total` (details), the
/// currency from `currency` or from beside the total.
impl<'a> ApiRow<'a> for Row<'a> {
    type Columns = OrderColumns;

    fn id(&self) -> Option<&'a RawValue> {
        self.id
    }

    fn updated_at(&self) -> Option<&'a RawValue> {
        self.updated_at
    }

    fn is_unlisted(&self) -> bool {
        self.draft.is_some_and(|raw| raw.get() == "true")
    }

    fn columns(&self) -> Result<OrderColumns, FieldError> {
        let (total_amount, beside) = total(self)?;
        Ok(OrderColumns {
            reference_id: whole_number(self.reference_id, "reference_id")?,
            status: present(self.status).map_or(Ok(None), status)?,
            currency: text(self.currency, "currency")?.or(beside),
            total_amount,
            salla_created_at: instant(self.date, "date")?,
        })
    }
}

impl ApiResource for Order {
    const SCOPE: &'static str = "orders.read";

    const PATH: &'static str = "v2/orders";

    const LIST: Capabilities = Capabilities {
        changed_since: Some("updated_at_min"),
        created_days: Some(["from_date", "to_date"]),
        oldest_first: Some(("sort_by", "created_at-asc")),
        by_id: Some(("sort_by", "id-asc")),
        last_change_first: Some(("sort_by", "updated_at-desc")),
        paged: true,
        summaries: true,
    };

    const PERSONAL_FIELDS: Option<PersonalFields> = Some(PersonalFields {
        customer: "customer.id",
        fields: &[
            ("id", FieldClass::NotPersonal),
            ("checkout_id", FieldClass::NotPersonal),
            ("reference_id", FieldClass::NotPersonal),
            ("date", FieldClass::NotPersonal),
            ("updated_at", FieldClass::NotPersonal),
            ("created_at", FieldClass::NotPersonal),
            ("total", FieldClass::NotPersonal),
            ("exchange_rate", FieldClass::NotPersonal),
            ("amounts", FieldClass::NotPersonal),
            ("currency", FieldClass::NotPersonal),
            ("status", FieldClass::NotPersonal),
            ("draft", FieldClass::NotPersonal),
            ("read", FieldClass::NotPersonal),
            ("source", FieldClass::NotPersonal),
            ("source_details.type", FieldClass::NotPersonal),
            ("source_details.value", FieldClass::NotPersonal),
            ("source_details.device", FieldClass::NotPersonal),
            ("features", FieldClass::NotPersonal),
            ("actions", FieldClass::NotPersonal),
            ("is_price_quote", FieldClass::NotPersonal),
            ("payment_method", FieldClass::NotPersonal),
            ("can_cancel", FieldClass::NotPersonal),
            ("can_reorder", FieldClass::NotPersonal),
            ("show_weight", FieldClass::NotPersonal),
            ("total_weight", FieldClass::NotPersonal),
            ("is_pending_payment", FieldClass::NotPersonal),
            ("pending_payment_ends_at", FieldClass::NotPersonal),
            ("items.id", FieldClass::NotPersonal),
            ("items.name", FieldClass::NotPersonal),
            ("items.sku", FieldClass::NotPersonal),
            ("items.quantity", FieldClass::NotPersonal),
            ("items.weight", FieldClass::NotPersonal),
            ("items.currency", FieldClass::NotPersonal),
            ("items.amounts", FieldClass::NotPersonal),
            ("items.thumbnail", FieldClass::NotPersonal),
            ("customer.id", FieldClass::Impersonal),
            ("customer.gender", FieldClass::Impersonal),
            ("customer.city", FieldClass::Impersonal),
            ("customer.country", FieldClass::Impersonal),
            ("customer.country_code", FieldClass::Impersonal),
            ("customer.currency", FieldClass::Impersonal),
            ("customer.groups", FieldClass::Impersonal),
            ("shipping.company", FieldClass::Impersonal),
            ("shipping.address.city", FieldClass::Impersonal),
            ("shipping.address.country", FieldClass::Impersonal),
            ("customer.email", FieldClass::Contact),
            ("customer.mobile", FieldClass::Contact),
            ("receiver.email", FieldClass::Contact),
            ("receiver.phone", FieldClass::Contact),
        ],
    });

    const ITEMS: Option<Items> = Some((order_items::PATH, order_items::OF_ORDER, order_items::item));

    // The full form is deprecated, and what a merchant answers without `format` is changing to the light one.
    const SINGLE: Option<&'static [(&'static str, &'static str)]> = Some(&[("format", "light")]);

    fn transform(row: &ByteString) -> Result<Self, Unreadable> {
        transform::<Row<'_>>(row)
    }

    fn place(row: &str) -> Option<(i64, Option<DateTime<Utc>>)> {
        let wire: Row<'_> = object(row).ok()?;
        Some((present(wire.id).and_then(integer)?, present(wire.date).and_then(date::parse)))
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        self.columns.salla_created_at
    }
}

/// The slug. Merchants define their own slugs.
fn status(raw: &RawValue) -> Result<Option<String>, FieldError> {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow)]
        slug: Option<&'a RawValue>,
    }
    let slug = if raw.get().starts_with('{') {
        let status: Status<'_> = object(raw.get()).map_err(|_| ("status", "is not a status"))?;
        present(status.slug)
    } else {
        Some(raw)
    };
    slug.map(|slug| scalar(slug).map(Cow::into_owned).ok_or(("status.slug", "is not a text"))).transpose()
}

fn total(wire: &Row<'_>) -> Result<(Option<Decimal>, Option<String>), FieldError> {
    #[derive(Deserialize)]
    struct Amounts<'a> {
        #[serde(borrow)]
        total: Option<&'a RawValue>,
    }
    if let Some(raw) = stated(wire.total) {
        return money(raw, "total.amount", "total.currency");
    }
    let Some(amounts) = stated(wire.amounts) else {
        return Ok((None, None));
    };
    let amounts: Amounts<'_> = object(amounts.get()).map_err(|_| ("amounts", "is not an object of amounts"))?;
    stated(amounts.total).map_or(Ok((None, None)), |raw| money(raw, "amounts.total.amount", "amounts.total.currency"))
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
        Order::transform(&json.into())
    }

    #[test]
    fn a_blank_text_means_absent() {
        for blank in ["\"\"", "\" \"", "null", "{}", "[]", "[\"\"]", r#"{"date":""}"#] {
            let order = of(&format!(r#"{{"id":7,"updated_at":"2026-03-02 10:00:00","date":{blank}}}"#)).unwrap();
            assert_eq!(order.columns.salla_created_at, None, "{blank}");
        }
        for blank in ["\"\"", "\" \"", "null", "{}", "[]"] {
            let order = of(&format!(
                r#"{{"id":7,"updated_at":"2026-03-02 10:00:00","reference_id":{blank},"total":{{"amount":{blank}}}}}"#
            ))
            .unwrap();
            assert_eq!((order.columns.reference_id, order.columns.total_amount), (None, None), "{blank}");
            let json = format!(r#"{{"id":7,"updated_at":"2026-03-02 10:00:00","total":{blank},"amounts":{blank}}}"#);
            assert!(of(&json).is_ok(), "{blank}");
        }
    }

    #[test]
    fn a_row_of_the_list() {
        let order = of(ROW).unwrap();
        assert_eq!(order.id, 1_017_120_475);
        assert_eq!(order.updated_at.unwrap().to_rfc3339(), "2022-06-16T21:00:00+00:00");
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
    fn errors_name_the_path() {
        for (from, to, path) in [
            ("1017120475", "null", "id"),
            ("1017120475", "\"x\"", "id"),
            ("55.10", "\"abc\"", "total.amount"),
            ("2022-06-17", "2022-99-17", "updated_at"),
            ("2022-06-16", "yesterday", "date"),
            ("\"40497536\"", "1.5", "reference_id"),
            (r#""total":{"#, r#""amounts":[9.99],"t":{"#, "amounts"),
        ] {
            let bad = of(&ROW.replacen(from, to, 1)).unwrap_err();
            assert_eq!(bad.path, path);
            assert_eq!(bad.id.is_some(), path != "id");
        }
    }

    #[test]
    fn a_row_without_an_order_is_unreadable() {
        let by_position = r#"[5,9,"new","SAR",1,null,null,"2026-11-24 02:00:00",false]"#;
        for json in ["[]", "7", "\"x\"", "null", "{}", by_position] {
            let bad = of(json).unwrap_err();
            assert_eq!((bad.id, Order::place(json)), (None, None), "{json}");
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
        fn rows_are_transformed_exactly(
            id in any::<i64>(), reference in any::<i64>(), cents in 0i64..1_000_000_000_000, texts in any::<[bool; 3]>(),
            second in 1_262_304_000i64..1_790_000_000, currency in "[A-Z]{3}", slug in "[a-z_]{1,20}", draft in any::<bool>(),
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
            prop_assert_eq!((order.id, order.updated_at, order.unlisted), (id, Some(updated_at), draft));
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
