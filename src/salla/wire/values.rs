//! Values in the JSON of Salla: numbers and texts in either spelling, and the forms of an absent value.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A present value: `null`, `{}`, `[]` and a missing field mean that it is absent.
pub fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| {
        let text = raw.get();
        text != "null" && !is_empty(text, '{', '}') && !is_empty(text, '[', ']')
    })
}

/// A value that is present and not blank: Salla writes `""` for a missing number, date or object.
pub fn stated(raw: Option<&RawValue>) -> Option<&RawValue> {
    let is_blank = |raw: &&RawValue| {
        let inner = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        inner.is_some_and(|text| text.trim().is_empty())
    };
    present(raw).filter(|raw| !is_blank(raw))
}

/// Whether a text has nothing but white space between two characters.
pub fn is_empty(text: &str, open: char, close: char) -> bool {
    text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|inner| inner.trim().is_empty())
}

/// The text of a JSON string, or of a number in its original spelling. Only a text with escapes is copied, and few
/// texts have them.
pub fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok().map(|Text(text)| text),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

/// A 64-bit integer, sent as a number or as a string.
pub fn integer(raw: &RawValue) -> Option<i64> {
    scalar(raw)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn absent_values_have_four_forms() {
        for nothing in ["null", "{}", "[ ]", "{ \n }"] {
            assert!(present(Some(&raw(nothing))).is_none(), "{nothing}");
        }
        assert!(present(Some(&raw("0"))).is_some());
    }

    #[test]
    fn ids_are_numbers_or_strings_and_64_bits_wide() {
        assert_eq!(integer(&raw("3187825903901094400")), Some(3_187_825_903_901_094_400));
        assert_eq!(integer(&raw("\"9007199254740993\"")), Some(9_007_199_254_740_993));
        assert_eq!(integer(&raw("1.5")), None);
        assert_eq!(integer(&raw("true")), None);
    }

    #[test]
    fn escaped_and_plain_texts_are_equal() {
        assert!(matches!(scalar(&raw(r#""plain""#)), Some(Cow::Borrowed("plain"))));
        assert_eq!(scalar(&raw(r#""a\u0020\"b\"""#)).as_deref(), Some(r#"a "b""#));
        assert_eq!(scalar(&raw("1.50")).as_deref(), Some("1.50"));
        assert_eq!(scalar(&raw(r#""\ud800""#)), None);
        assert_eq!(scalar(&raw("true")), None);
    }
}
