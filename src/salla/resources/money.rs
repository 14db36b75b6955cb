//! Amounts, exact from the JSON's own text, or refused.

use std::borrow::Cow;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::transform::FieldError;
use crate::{
    json_object::object,
    salla::wire::values::{present, scalar, stated},
};

/// `{amount, currency}`, or the bare amount.
pub fn money(
    raw: &RawValue,
    amount_path: &'static str,
    currency_path: &'static str,
) -> Result<(Option<Decimal>, Option<String>), FieldError> {
    #[derive(Deserialize)]
    struct Money<'a> {
        #[serde(borrow)]
        amount: Option<&'a RawValue>,
        #[serde(borrow)]
        currency: Option<&'a RawValue>,
    }
    let amount = |raw: &RawValue| exact(raw).ok_or((amount_path, "is not an exact amount"));
    if !raw.get().starts_with('{') {
        return Ok((stated(Some(raw)).map(amount).transpose()?, None));
    }
    let money: Money<'_> = object(raw.get()).map_err(|_| (amount_path, "is not an object with amount and currency"))?;
    Ok((
        stated(money.amount).map(amount).transpose()?,
        present(money.currency)
            .map(|raw| scalar(raw).map(Cow::into_owned).ok_or((currency_path, "is not a text")))
            .transpose()?,
    ))
}

/// Exact, or nothing: 28 digits, from a number or a string, plain or with an exponent.
pub fn exact(raw: &RawValue) -> Option<Decimal> {
    let text = scalar(raw)?;
    let text = text.trim();
    if text.contains('_') {
        // Which the library takes for a separator.
        return None;
    }
    if !text.contains(['e', 'E']) {
        return Decimal::from_str_exact(text).ok();
    }
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let mantissa = Decimal::from_str_exact(mantissa).ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    scale(mantissa, exponent)
}

/// `mantissa × 10^exponent`, or nothing where that would lose digits.
fn scale(mantissa: Decimal, exponent: i32) -> Option<Decimal> {
    let mantissa = mantissa.normalize();
    let scale = i64::from(mantissa.scale()) - i64::from(exponent);
    let digits = mantissa.mantissa();
    if scale >= 0 {
        return Decimal::try_from_i128_with_scale(digits, u32::try_from(scale).ok()?).ok();
    }
    let factor = 10i128.checked_pow(u32::try_from(-scale).ok()?)?;
    Decimal::try_from_i128_with_scale(digits.checked_mul(factor)?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(json: &str) -> Option<String> {
        exact(&serde_json::from_str::<Box<RawValue>>(json).unwrap()).map(|d| d.to_string())
    }

    #[test]
    fn amounts_are_exact_or_refused() {
        for (json, exact) in [
            ("\"0.10\"", Some("0.10")),
            ("1e-2", Some("0.01")),
            ("12345678901234.56", Some("12345678901234.56")),
            ("1.5E3", Some("1500")),
            ("-0", Some("0")),
            ("\"12,50\"", None),
            ("\"\"", None),
            ("\"1_000\"", None),
            ("1e400", None),
            ("1e-400", None),
            ("0.12345678901234567890123456789012", None),
            ("true", None),
        ] {
            assert_eq!(amount(json).as_deref(), exact, "{json}");
        }
    }
}
