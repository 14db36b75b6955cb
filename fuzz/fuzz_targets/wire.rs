//! Any answer that Salla may give: reads a body as the client reads it, and checks the orders in it.
//!
//! A body without `data` counts as an order, so that a short input also reaches the transform.

#![no_main]

use bytes::Bytes;
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use libfuzzer_sys::fuzz_target;
use salla_reconciler::{
    domain::{ContentHash, Order, Record},
    salla::{ApiResource, Envelope},
};
use serde::Deserialize;
use serde_json::value::RawValue;

fuzz_target!(|body: &[u8]| {
    let Ok(envelope) = Envelope::read(Bytes::copy_from_slice(body)) else {
        return;
    };
    assert!(envelope.description().chars().count() <= 200, "a description is clipped");
    assert!(!envelope.description().contains(char::is_control), "a description is one line");
    check_pagination(&envelope);
    match envelope.rows() {
        Ok(rows) => rows.iter().for_each(|row| check_row(&row.text)),
        Err(_) => match envelope.data() {
            Some(detail) => check_row(&detail),
            None => {
                if let Ok(row) = ByteString::try_from(body) {
                    check_row(&row);
                }
            }
        },
    }
});

/// A claim about pages is what the text says, and what it says is not negative.
fn check_pagination(envelope: &Envelope) {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow, rename = "totalPages")]
        total_pages: Option<&'a RawValue>,
        #[serde(borrow)]
        total: Option<&'a RawValue>,
    }
    let claim = envelope.pagination();
    let raw = envelope.pagination.as_deref().map_or("null", RawValue::get);
    let said = serde_json::from_str::<Said<'_>>(raw).unwrap_or(Said { total_pages: None, total: None });
    for (claimed, said) in [(claim.total_pages.map(u64::from), said.total_pages), (claim.total, said.total)] {
        let Some(claimed) = claimed else {
            continue;
        };
        let said = text(said.expect("what is claimed was said"));
        assert_eq!(said.trim().parse(), Ok(i128::from(claimed)), "pagination claims {claimed} of {said:?}");
    }
}

fn check_row(row: &ByteString) {
    let read = || Order::transform(row).and_then(|order| order.hash().map(|print| (order, print)));
    let (order, content_hash) = match read() {
        Ok(read) => read,
        Err(bad) => {
            assert!(!bad.reason.is_empty(), "a trouble has a reason");
            assert_eq!(read().err(), Some(bad), "the same row, the same trouble");
            return;
        }
    };
    assert_eq!(read().ok().map(|(_, print)| print), Some(content_hash), "the same row, the same order");
    assert_eq!(order.payload, row, "the payload is what came");
    assert_eq!(content_hash.to_string().parse(), Ok(content_hash), "a content hash is read as it was written");
    assert_eq!(
        ContentHash::of_json(&order.payload).ok(),
        Some(content_hash),
        "the payload has the content hash of the order"
    );
    check_amount(&order);
    check_instants(&order);
    check_respelt(&order);
}

/// The database keeps microseconds: an instant with more to it would differ from its own copy every night.
fn check_instants(order: &Order) {
    let kept = |at: DateTime<Utc>| DateTime::from_timestamp_micros(at.timestamp_micros());
    for at in [order.updated_at, order.columns.salla_created_at].into_iter().flatten() {
        assert_eq!(kept(at), Some(at), "an instant that the database keeps as it is");
    }
}

/// The database writes JSON in another form, with other spaces and another order of keys.
fn check_respelt(order: &Order) {
    // With these keys serde_json hands itself numbers and texts; read by others, they are other values.
    if order.payload.contains("$serde_json") {
        return;
    }
    let value: serde_json::Value = serde_json::from_str(&order.payload).expect("it was hashed");
    let again = Order::transform(&value.to_string().into()).expect("the same order");
    assert_eq!(again.content_hash(), order.content_hash(), "the spelling does not count");
    assert_eq!((again.id, again.updated_at), (order.id, order.updated_at), "the spelling does not count");
    assert_eq!(again.columns.total_amount, order.columns.total_amount, "the spelling does not count");
}

/// An amount is the very number that came, whatever came.
fn check_amount(order: &Order) {
    let raw = amount_of(&order.payload);
    let Some(amount) = order.columns.total_amount else {
        assert!(raw.is_none(), "an amount of {raw:?} was passed over");
        return;
    };
    let raw = raw.expect("what was read was there");
    let said = text(raw);
    let exact = Exact::of(&said).unwrap_or_else(|| panic!("{said:?} is no number, and was read as {amount}"));
    assert_eq!(Exact::of(&amount.to_string()).as_ref(), Some(&exact), "{said:?} was read as {amount}");
    assert_eq!(amount.to_string().parse(), Ok(amount), "an amount is read as it was written");
    if !raw.get().starts_with('"') {
        check_number(raw.get(), &exact);
    }
}

/// One number has one content hash however it is spelt, and its neighbour has another.
fn check_number(json: &str, exact: &Exact) {
    let print = |json: &str| ContentHash::of_json(json).expect("it is a number");
    assert_eq!(print(&exact.scientific("")), print(json), "{json} in another spelling");
    for digit in ["1", "00000000000000000000000000001"] {
        let neighbour = exact.scientific(digit);
        assert_ne!(print(&neighbour), print(json), "{json} is not {neighbour}");
    }
}

/// The JSON of the total, as the transform chooses it: `total`, or else `amounts.total`; bare, or the `amount` in it.
fn amount_of(payload: &str) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        total: Option<&'a RawValue>,
        #[serde(borrow)]
        amounts: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Money<'a> {
        #[serde(borrow)]
        amount: Option<&'a RawValue>,
    }
    let row: Row<'_> = serde_json::from_str(payload).ok()?;
    let total = there(row.total).or_else(|| {
        let amounts: Row<'_> = serde_json::from_str(there(row.amounts)?.get()).ok()?;
        there(amounts.total)
    })?;
    if total.get().starts_with('{') {
        return there(serde_json::from_str::<Money<'_>>(total.get()).ok()?.amount);
    }
    Some(total)
}

fn there(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| {
        let bare: String = raw.get().split_ascii_whitespace().collect();
        !["null", "{}", "[]"].contains(&bare.as_str())
    })
}

/// A JSON string's text, or the JSON itself.
fn text(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// A decimal number of any size: its significant digits, times a power of ten.
#[derive(Debug, PartialEq, Eq)]
struct Exact {
    negative: bool,
    digits: String,
    power: i64,
}

impl Exact {
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let exponent: i64 = exponent.parse().ok()?;
        let significant = digits.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self { negative: false, digits: "0".to_owned(), power: 0 });
        }
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        let power =
            exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(i64::try_from(zeros).ok()?)?;
        Some(Self { negative: mantissa.starts_with('-'), digits: significant.to_owned(), power })
    }

    /// Spelt `-1.2e0`, with `more` digits behind.
    fn scientific(&self, more: &str) -> String {
        let sign = if self.negative { "-" } else { "" };
        let (first, rest) = self.digits.split_at(1);
        let power = self.power + i64::try_from(rest.len()).expect("a short text");
        match format!("{rest}{more}").as_str() {
            "" => format!("{sign}{first}e{power}"),
            rest => format!("{sign}{first}.{rest}e{power}"),
        }
    }
}
