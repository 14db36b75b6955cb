//! The personal data in Salla's JSON, and how much of it is kept: everything, what describes but does not name, or
//! nothing. A field that is not known is kept with the whole only: Salla adds some every month.
//!
//! The program applies it to a row before anything else uses the row. Before that, it only refuses
//! rows with too many values. So columns, payload, content hash, discrepancies and log contain only
//! the rest. The original row serves only to tell two rows without an id apart.

use std::{collections::BTreeMap, path::PathBuf};

use bytestring::ByteString;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;
use uuid::Uuid;

use super::api_resource::ApiResource;
use crate::{
    domain::{ContentHash, CustomerFields, MerchantId},
    salla::wire::values::{integer, scalar},
};

/// The section `privacy`. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    #[serde(deserialize_with = "crate::config::parsed")]
    pub customer_fields: CustomerFields,
    pub pseudonym_key: SecretString,
    pub pseudonym_key_file: PathBuf,
}

impl Config {
    /// Whether pseudonyms are configured without a sufficient key.
    #[must_use]
    pub fn has_weak_key(&self) -> bool {
        self.customer_fields == CustomerFields::Pseudonymous && self.pseudonym_key.expose_secret().len() < KEY
    }
}

/// The minimum length of a key.
const KEY: usize = 32;

/// The class of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldClass {
    /// The field says nothing about a person.
    NotPersonal,
    /// It belongs to a person, and does not identify them.
    Impersonal,
    /// Contact data: the level `pseudonymous` replaces it by a pseudonym.
    Contact,
}

/// Where a kind of record has personal data.
#[derive(Debug, Clone, Copy)]
pub struct PersonalFields {
    /// The path of the customer's id.
    pub customer: &'static str,
    /// The known fields by path. Items of a list have the path of the list.
    pub fields: &'static [(&'static str, FieldClass)],
}

/// How much is kept.
#[derive(Debug, Clone)]
pub struct Privacy {
    fields: CustomerFields,
    key: SecretString,
}

/// What a pseudonym begins with.
const MARK: &str = "p_";
/// Its bytes, of which each is two digits.
const BYTES: usize = 16;

impl Privacy {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let key = config.pseudonym_key.clone();
        // Without one nothing has a pseudonym; a number that confirms no guess has to do for `stand_in`.
        let key = if key.expose_secret().is_empty() { Uuid::new_v4().to_string().into() } else { key };
        Self { fields: config.customer_fields, key }
    }

    /// Returns a number that distinguishes a row without an id from others. It depends on the whole text that Salla sent, because
    /// the kept parts of two rows can be equal. Without the key, it reveals nothing of the rest.
    #[must_use]
    pub fn surrogate_key(&self, sent: &str, kept: &str) -> u64 {
        let content = ContentHash::of_json(sent).unwrap_or_else(|_| ContentHash::of_text(sent));
        if sent == kept {
            return content.short();
        }
        let digest = keyed(&self.key, &content.to_string());
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Whether all fields of customers who are not erased are kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.fields == CustomerFields::Full
    }

    /// The record of a payload, with the data that are kept; `None`: the payload cannot be read.
    #[must_use]
    pub fn record<R: ApiResource>(&self, merchant: MerchantId, payload: &str, erased: &[i64]) -> Option<R> {
        R::transform(&self.keep::<R>(merchant, payload.into(), erased)).ok().filter(|record| record.hash().is_ok())
    }

    /// The part of a row that is kept. Of a row about an `erased` customer, only the impersonal fields are kept. If any
    /// customer is erased, a row without a customer id counts as a row about an erased one.
    #[must_use]
    pub fn keep<R: ApiResource>(&self, merchant: MerchantId, row: ByteString, erased: &[i64]) -> ByteString {
        let Some(personal) = R::PERSONAL_FIELDS else {
            return row;
        };
        let is_of_another = || customer(&row, personal.customer).is_some_and(|id| !erased.contains(&id));
        let gone = !erased.is_empty() && !is_of_another();
        let fields = if gone { CustomerFields::None } else { self.fields };
        if fields == CustomerFields::Full {
            return row;
        }
        let sieve = FieldFilter { known: personal.fields, fields, key: &self.key, merchant };
        sieve.of(&row, "").unwrap_or_else(|| "{}".to_owned()).into()
    }
}

/// The id of the customer in a row.
fn customer(row: &str, path: &str) -> Option<i64> {
    let mut names = path.split('.');
    let mut value = fields(row)?.remove(names.next()?)?;
    for name in names {
        value = fields(value.get())?.remove(name)?;
    }
    integer(value)
}

fn fields(json: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(json).ok()
}

struct FieldFilter<'a> {
    known: &'a [(&'static str, FieldClass)],
    fields: CustomerFields,
    key: &'a SecretString,
    merchant: MerchantId,
}

impl FieldFilter<'_> {
    /// The part of a value that is kept. Its fields are known by their paths behind `path`.
    fn of(&self, json: &str, path: &str) -> Option<String> {
        if json.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            // One level of it: a body nests deeper than the stack is.
            let items = items.into_iter().map(RawValue::get).filter(|item| !item.starts_with('['));
            let kept: Vec<String> = items.filter_map(|item| self.of(item, path)).collect();
            return (!kept.is_empty()).then(|| format!("[{}]", kept.join(",")));
        }
        let mut kept = Vec::new();
        for (name, value) in fields(json)? {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let value = match self.known.iter().find(|(known, _)| *known == path) {
                Some((_, class)) => self.field(*class, &name, value),
                None if self.known.iter().any(|(known, _)| is_within(known, &path)) => self.of(value.get(), &path),
                None => None,
            };
            if let (Some(value), Ok(name)) = (value, serde_json::to_string(&name)) {
                kept.push(format!("{name}:{value}"));
            }
        }
        (!kept.is_empty()).then(|| format!("{{{}}}", kept.join(",")))
    }

    fn field(&self, class: FieldClass, name: &str, value: &RawValue) -> Option<String> {
        match (class, self.fields) {
            (FieldClass::NotPersonal, _)
            | (_, CustomerFields::Full)
            | (FieldClass::Impersonal, CustomerFields::Pseudonymous) => Some(value.get().to_owned()),
            (FieldClass::Contact, CustomerFields::Pseudonymous) => {
                let text = scalar(value)?;
                let text = text.trim();
                (!text.is_empty()).then(|| format!("\"{}\"", self.pseudonym(name, text)))
            }
            (_, CustomerFields::None) => None,
        }
    }

    /// The same for the same text of one merchant. A pseudonym stays as it is.
    fn pseudonym(&self, name: &str, text: &str) -> String {
        let digits = text.strip_prefix(MARK).filter(|digits| digits.len() == 2 * BYTES);
        if digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            return text.to_owned();
        }
        let digest = keyed(self.key, &format!("{} {name} {}", self.merchant, text.to_lowercase()));
        let digits: String = digest.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect();
        format!("{MARK}{digits}")
    }
}

/// An HMAC takes a key of any length.
fn keyed(key: &SecretString, text: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes());
    mac.map(|mac| mac.chain_update(text).finalize().into_bytes().to_vec()).unwrap_or_default()
}

fn is_within(known: &str, path: &str) -> bool {
    known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Customer, Order, Product};

    fn privacy(fields: CustomerFields) -> Privacy {
        Privacy { fields, key: "a key of thirty-two characters!!".into() }
    }

    fn kept<R: ApiResource>(fields: CustomerFields, row: &str, erased: &[i64]) -> String {
        privacy(fields).keep::<R>(MerchantId(1001), row.into(), erased).into()
    }

    const CUSTOMER: &str = r#"{"id":77,"first_name":"نورة","last_name":"Ali","mobile":501234567,"mobile_code":"+966",
        "email":" N@example.com ","avatar":"https://cdn.example/n.png","gender":"female","city":"الرياض","country_code":"SA",
        "birthday":{"date":"1990-05-17 00:00:00.000000"},"location":"شارع العليا 5","groups":[1,2],"new_field":"Noura Ali",
        "urls":{"admin":"https://admin.example/n"},"updated_at":"2024-02-15 11:23:05"}"#;

    const ORDER: &str = r#"{"id":5,"reference_id":9,"date":"2024-02-15 11:23:05","updated_at":"2024-02-15 11:23:05",
        "amounts":{"total":{"amount":302.50,"currency":"SAR"}},"source_details":{"device":"desktop","ip":"198.51.100.7"},
        "receiver":{"name":"نورة","email":"n@example.com","phone":"966501234567"},"bank":{"account_name":"Noura"},
        "customer":{"id":77,"first_name":"نورة","email":"n@example.com","mobile":501234567,"city":"الرياض","location":"x"},
        "items":[{"name":"قميص","quantity":1,"notes":"for Noura"}],"tags":["vip"]}"#;

    /// Whatever of the two rows names or reaches somebody.
    const SECRETS: [&str; 9] =
        ["نورة", "Ali", "501234567", "xample.com", "1990", "شارع", "Noura", "198.51.100.7", "avatar"];

    #[test]
    fn rows_without_an_id_are_told_apart_by_what_was_sent() {
        let of = |key: &str| {
            Privacy::new(&Config {
                customer_fields: CustomerFields::None,
                pseudonym_key: key.into(),
                pseudonym_key_file: PathBuf::new(),
            })
        };
        let (one, other) = (r#"{"name":"Noura","views":1}"#, r#"{"name":"Ali","views":1}"#);
        let keyed = of("a key of thirty-two characters!!");
        assert_ne!(keyed.surrogate_key(one, "{}"), keyed.surrogate_key(other, "{}"));
        assert_eq!(
            keyed.surrogate_key(one, "{}"),
            keyed.surrogate_key(&one.replace("1}", "2}"), "{}"),
            "which changes by itself"
        );
        assert_ne!(keyed.surrogate_key("[1]", "[1]"), keyed.surrogate_key("[2]", "[2]"));
        // A guess about the content cannot be confirmed.
        assert_ne!(keyed.surrogate_key(one, "{}"), keyed.surrogate_key(one, one));
        assert_ne!(of("").surrogate_key(one, "{}"), of("").surrogate_key(one, "{}"));
    }

    #[test]
    fn everything() {
        let row = kept::<Customer>(CustomerFields::Full, CUSTOMER, &[]);
        assert_eq!(row, CUSTOMER);
    }

    #[test]
    fn orders_without_a_customer_id_lose_personal_fields() {
        let named = r#""customer":{"id":77,"#;
        for customer in ["\"customer\":{\"id\":77.5,", "\"customer\":{\"id\":null,", "\"buyer\":{\"id\":77,"] {
            let row = kept::<Order>(CustomerFields::Full, &ORDER.replace(named, customer), &[78]);
            assert!(SECRETS.iter().all(|secret| !row.contains(secret)), "{customer}: {row}");
        }
        assert_eq!(kept::<Order>(CustomerFields::Full, ORDER, &[78]), ORDER);
        let nameless = ORDER.replace(named, r#""customer":{"#);
        assert_eq!(kept::<Order>(CustomerFields::Full, &nameless, &[]), nameless, "no customer is erased");
    }

    #[test]
    fn the_level_pseudonymous_keeps_impersonal_fields() {
        let (customer, order) = (
            kept::<Customer>(CustomerFields::Pseudonymous, CUSTOMER, &[]),
            kept::<Order>(CustomerFields::Pseudonymous, ORDER, &[]),
        );
        for row in [&customer, &order] {
            assert!(SECRETS.iter().all(|secret| !row.contains(secret)), "{row}");
            assert!(row.contains("الرياض"), "{row}");
        }
        let pseudonym = |row: &str| row.split("\"email\":\"").nth(1).unwrap()[..2 * BYTES + 2].to_owned();
        assert_eq!(
            pseudonym(&customer),
            pseudonym(order.split("customer").nth(1).unwrap()),
            "one person, one pseudonym"
        );
        assert!(pseudonym(&customer).starts_with(MARK));
        assert!(
            order.contains("302.50") && order.contains("\"customer\":{\"") && order.contains("\"id\":77"),
            "{order}"
        );
        assert_eq!(kept::<Customer>(CustomerFields::Pseudonymous, &customer, &[]), customer, "twice is once");
        let elsewhere = privacy(CustomerFields::Pseudonymous).keep::<Customer>(MerchantId(1002), CUSTOMER.into(), &[]);
        assert_ne!(pseudonym(&elsewhere), pseudonym(&customer), "stores cannot be told to share a customer");
    }

    #[test]
    fn nothing() {
        assert_eq!(
            kept::<Customer>(CustomerFields::None, CUSTOMER, &[]),
            r#"{"id":77,"updated_at":"2024-02-15 11:23:05"}"#
        );
        let order = kept::<Order>(CustomerFields::None, ORDER, &[]);
        assert!(!order.contains("customer") && !order.contains("receiver") && !order.contains("77"), "{order}");
        assert!(order.contains("302.50") && order.contains("desktop") && order.contains("قميص"), "{order}");
    }

    #[test]
    fn erased_customers_keep_no_personal_fields() {
        let nothing = kept::<Order>(CustomerFields::None, ORDER, &[]);
        assert_eq!(kept::<Order>(CustomerFields::Full, ORDER, &[5, 77]), nothing);
        assert_eq!(kept::<Order>(CustomerFields::Full, ORDER, &[5]), ORDER);
        let as_text = ORDER.replace("\"id\":77", "\"id\":\"77\"");
        assert_eq!(kept::<Order>(CustomerFields::Full, &as_text, &[77]), nothing);
        assert!(!kept::<Customer>(CustomerFields::Full, CUSTOMER, &[77]).contains("female"));
    }

    #[test]
    fn a_value_that_is_not_a_row_is_unreadable() {
        for odd in
            ["[]", "7", "\"Noura\"", "null", "[[\"Noura\"]]", r#"{"customer":"Noura"}"#, r#"{"customer":[["Noura"]]}"#]
        {
            assert_eq!(kept::<Order>(CustomerFields::None, odd, &[]), "{}", "{odd}");
        }
        assert_eq!(kept::<Product>(CustomerFields::None, r#"{"name":"x"}"#, &[]), r#"{"name":"x"}"#);
    }

    #[test]
    fn nested_lists_do_not_exhaust_the_stack() {
        let nested = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        for row in [format!(r#"{{"id":5,"items":{nested}}}"#), format!(r#"{{"id":5,"customer":{{"id":{nested}}}}}"#)] {
            let kept = kept::<Order>(CustomerFields::None, &row, &[]);
            assert_eq!(kept, r#"{"id":5}"#);
        }
        assert_eq!(kept::<Order>(CustomerFields::Pseudonymous, &nested, &[77]), "{}");
    }
}
