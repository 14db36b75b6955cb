//! Customers: from Salla's row to ours. A mobile number comes as a number or as a text, a place may be the text `null`.

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api_resource::{ApiResource, Capabilities},
    privacy::{FieldClass, PersonalFields},
    transform::{ApiRow, FieldError, birthday, instant, text, transform},
};
use crate::{
    domain::{Customer, CustomerColumns, Unreadable},
    json_object::object,
    salla::wire::{
        date,
        values::{integer, present},
    },
};

/// The fields that we look at.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    first_name: Option<&'a RawValue>,
    #[serde(borrow)]
    last_name: Option<&'a RawValue>,
    #[serde(borrow)]
    email: Option<&'a RawValue>,
    #[serde(borrow)]
    mobile: Option<&'a RawValue>,
    #[serde(borrow)]
    mobile_code: Option<&'a RawValue>,
    #[serde(borrow)]
    gender: Option<&'a RawValue>,
    #[serde(borrow)]
    birthday: Option<&'a RawValue>,
    #[serde(borrow)]
    city: Option<&'a RawValue>,
    #[serde(borrow)]
    country: Option<&'a RawValue>,
    #[serde(borrow)]
    country_code: Option<&'a RawValue>,
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
    #[serde(borrow)]
    lang: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at: Option<&'a RawValue>,
}

impl<'a> ApiRow<'a> for Row<'a> {
    type Columns = CustomerColumns;

    fn id(&self) -> Option<&'a RawValue> {
        self.id
    }

    fn updated_at(&self) -> Option<&'a RawValue> {
        self.updated_at
    }

    fn columns(&self) -> Result<CustomerColumns, FieldError> {
        Ok(CustomerColumns {
            first_name: text(self.first_name, "first_name")?,
            last_name: text(self.last_name, "last_name")?,
            email: text(self.email, "email")?,
            mobile: text(self.mobile, "mobile")?,
            mobile_code: text(self.mobile_code, "mobile_code")?,
            gender: text(self.gender, "gender")?,
            birthday: birthday(self.birthday, "birthday")?.map(|at| date::day_of(at).to_string()),
            city: place(self.city, "city")?,
            country: place(self.country, "country")?,
            country_code: text(self.country_code, "country_code")?,
            currency: text(self.currency, "currency")?,
            language: text(self.lang, "lang")?,
            salla_created_at: instant(self.created_at, "created_at")?,
        })
    }
}

fn place(raw: Option<&RawValue>, path: &'static str) -> Result<Option<String>, FieldError> {
    Ok(text(raw, path)?.filter(|place| place != "null"))
}

impl ApiResource for Customer {
    const SCOPE: &'static str = "customers.read";

    const PATH: &'static str = "v2/customers";

    // The dates are those of creation, and the list has no order.
    const LIST: Capabilities = Capabilities {
        changed_since: None,
        created_days: Some(["date_from", "date_to"]),
        oldest_first: None,
        by_id: None,
        last_change_first: None,
        paged: true,
        summaries: false,
    };

    const PERSONAL_FIELDS: Option<PersonalFields> = Some(PersonalFields {
        customer: "id",
        fields: &[
            ("id", FieldClass::NotPersonal),
            ("created_at", FieldClass::NotPersonal),
            ("updated_at", FieldClass::NotPersonal),
            ("gender", FieldClass::Impersonal),
            ("city", FieldClass::Impersonal),
            ("country", FieldClass::Impersonal),
            ("country_code", FieldClass::Impersonal),
            ("currency", FieldClass::Impersonal),
            ("lang", FieldClass::Impersonal),
            ("groups", FieldClass::Impersonal),
            ("is_blocked", FieldClass::Impersonal),
            ("is_inactive", FieldClass::Impersonal),
            ("total_points", FieldClass::Impersonal),
            ("mobile_code", FieldClass::Impersonal),
            ("mobile", FieldClass::Contact),
            ("email", FieldClass::Contact),
        ],
    });

    const COUNTED_BY_ADDRESS: bool = true;

    const SINGLE: Option<&'static [(&'static str, &'static str)]> = Some(&[]);

    fn transform(row: &ByteString) -> Result<Self, Unreadable> {
        transform::<Row<'_>>(row)
    }

    fn place(row: &str) -> Option<(i64, Option<DateTime<Utc>>)> {
        let wire: Row<'_> = object(row).ok()?;
        Some((present(wire.id).and_then(integer)?, present(wire.created_at).and_then(date::parse)))
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        self.columns.salla_created_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"id":2075683582,"first_name":"نورة","last_name":"Ali","mobile":501234567,"mobile_code":"+966",
        "email":"n@example.com","avatar":"https://cdn.example/a.png","gender":"female","city":"الرياض","country":"null",
        "country_code":"SA","currency":"SAR","lang":"ar","location":"null","groups":[11323141],
        "birthday":{"date":"1990-05-17 00:00:00.000000","timezone_type":3,"timezone":"Asia/Riyadh"},
        "created_at":{"date":"2024-02-15 08:23:05.000000","timezone_type":3,"timezone":"Asia/Riyadh"},
        "updated_at":{"date":"2024-02-15 11:23:05.000000","timezone_type":3,"timezone":"Asia/Riyadh"}}"#;

    fn of(json: &str) -> Result<Customer, Unreadable> {
        Customer::transform(&json.into())
    }

    #[test]
    fn a_row_of_the_list() {
        let customer = of(ROW).unwrap();
        assert_eq!(
            (customer.id, customer.updated_at.unwrap().to_rfc3339().as_str()),
            (2_075_683_582, "2024-02-15T08:23:05+00:00")
        );
        assert_eq!(customer.created_at().unwrap().to_rfc3339(), "2024-02-15T05:23:05+00:00");
        let columns = customer.columns;
        assert_eq!(columns.first_name.as_deref(), Some("نورة"));
        assert_eq!((columns.mobile.as_deref(), columns.mobile_code.as_deref()), (Some("501234567"), Some("+966")));
        assert_eq!(columns.birthday.as_deref(), Some("1990-05-17"), "the day where the customer was born");
        assert_eq!((columns.city.as_deref(), columns.country), (Some("الرياض"), None));
        assert_eq!(columns.language.as_deref(), Some("ar"));
    }

    /// The older form of a row.
    #[test]
    fn optional_fields_may_be_missing() {
        let row = r#"{"id":7,"birthday":{},"mobile":"","updated_at":"2024-02-15 11:23:05"}"#;
        let customer = of(row).unwrap();
        assert_eq!((customer.created_at(), customer.columns.birthday), (None, None));
    }

    #[test]
    fn errors_name_the_path() {
        for (from, to, path) in [
            ("2075683582", "null", "id"),
            ("\"نورة\"", "[\"a\"]", "first_name"),
            ("501234567", "{\"number\":1}", "mobile"),
            ("1990-05-17", "1990-13-17", "birthday"),
            ("1990-05-17", "1410-05-17", "birthday"),
            ("2024-02-15 08", "1445-02-15 08", "created_at"),
            ("2024-02-15 08", "2024-02-99 08", "created_at"),
            ("\"updated_at\"", "\"touched_at\"", "updated_at"),
        ] {
            let bad = of(&ROW.replacen(from, to, 1)).unwrap_err();
            assert_eq!(bad.path, path, "{to}");
            assert!(!bad.to_string().contains(to), "personal data in {bad}");
        }
    }
}
