//! The envelope around every answer, and Salla's way of saying nothing.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::words::Words;
use crate::foreign::object;

/// The envelope. What was asked for is kept as the text it came as: what is stored is what Salla sent.
///
/// That text is not copied: it stays in the body's memory, which is there as long as a part of it is in use.
#[derive(Debug, Deserialize)]
pub struct Envelope<Data = Payload> {
    /// Absent: taken for true, where there is no error.
    pub success: Option<bool>,
    /// What was asked for.
    pub data: Option<Data>,
    /// Beside a list.
    pub pagination: Option<Box<RawValue>>,
    /// Beside `success: false`, or in its stead.
    pub error: Option<Box<RawValue>>,
}

/// What was asked for.
#[derive(Debug)]
pub enum Payload {
    /// The rows of a list, each as the text it came as.
    Rows(Vec<ByteString>),
    /// Anything else.
    Other(ByteString),
}

impl<Data> Envelope<Data> {
    fn map(self, payload: impl FnOnce(Data) -> Payload) -> Envelope {
        let Self { success, data, pagination, error } = self;
        Envelope { success, data: data.map(payload), pagination, error }
    }

    /// Salla itself says no.
    pub fn is_refusal(&self) -> bool {
        self.success == Some(false) || self.error().is_some()
    }

    /// An error that is there; there is none in `false`, `0` and an empty text either.
    fn error(&self) -> Option<&RawValue> {
        present(self.error.as_deref()).filter(|error| !matches!(error.get(), "false" | "0" | "\"\""))
    }

    /// Takes out of the server's words about an error the secrets that it was sent, however it spells them, and all but
    /// its words.
    pub fn forget(&mut self, secrets: &[&str]) {
        self.error = self.error().and_then(|error| Words::of(error.get()).without(secrets));
    }

    /// The word of an error: its code, or the bare text of the token endpoint.
    pub fn error_word(&self) -> Option<String> {
        match Words::of(self.error.as_deref()?.get()) {
            Words::Text(word) | Words::Error { code: Some(Value::String(word)), .. } => Some(word),
            Words::Error { .. } | Words::Unknown => None,
        }
    }

    /// Salla's words about an error.
    pub fn complaint(&self) -> String {
        let words = self.error.as_deref().map(|raw| Words::of(raw.get()));
        words.map_or_else(|| "no reason given".to_owned(), Words::complaint)
    }
}

/// Page numbers by the server's own account.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pagination {
    pub total_pages: Option<u32>,
    pub total: Option<u64>,
}

impl Pagination {
    /// Of a list that has no pages.
    pub fn whole(rows: usize) -> Self {
        Self { total_pages: Some(1), total: Some(rows as u64) }
    }
}

impl Envelope {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is not JSON, or not an envelope.
    pub fn read(body: Bytes) -> Result<Self, serde_json::Error> {
        let Ok(text) = ByteString::try_from(body.clone()) else {
            return Err(no_text(&body));
        };
        let part = |raw: &RawValue| text.slice_ref(raw.get());
        // A list, which may be long, is gone through once; what is none is short.
        if let Ok(list) = object::<Envelope<Vec<&RawValue>>>(&text) {
            return Ok(list.map(|rows| Payload::Rows(rows.into_iter().map(part).collect())));
        }
        object::<Envelope<&RawValue>>(&text).map(|other| other.map(|raw| Payload::Other(part(raw))))
    }

    /// The rows of a list, each as the text it came as.
    ///
    /// # Errors
    /// When there is no list.
    pub fn rows(&self) -> Result<&[ByteString], &'static str> {
        match &self.data {
            Some(Payload::Rows(rows)) => Ok(rows),
            Some(Payload::Other(_)) => Err("`data` is not a list"),
            None => Err("`data` is missing"),
        }
    }

    /// What was asked for, whatever it is.
    pub fn data(&self) -> Option<ByteString> {
        Some(match self.data.as_ref()? {
            Payload::Rows(rows) => format!("[{}]", rows.join(",")).into(),
            Payload::Other(data) => data.clone(),
        })
    }

    /// What the envelope says about pages; what is missing or odd is `None`.
    pub fn pagination(&self) -> Pagination {
        #[derive(Deserialize, Default)]
        struct Wire<'a> {
            #[serde(borrow, rename = "totalPages")]
            total_pages: Option<&'a RawValue>,
            #[serde(borrow)]
            total: Option<&'a RawValue>,
        }
        let wire =
            present(self.pagination.as_deref()).and_then(|raw| object::<Wire<'_>>(raw.get()).ok()).unwrap_or_default();
        Pagination {
            total_pages: wire.total_pages.and_then(integer).and_then(|pages| u32::try_from(pages).ok()),
            total: wire.total.and_then(integer).and_then(|rows| u64::try_from(rows).ok()),
        }
    }
}

/// Where a body is no text.
fn no_text(body: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<&RawValue>(body) {
        Err(error) => error,
        Ok(_) => serde::de::Error::custom("it is no text"),
    }
}

/// A value that is there: `null`, `{}`, `[]` and a missing field all mean that there is none.
pub fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| {
        let text = raw.get();
        text != "null" && !is_empty(text, '{', '}') && !is_empty(text, '[', ']')
    })
}

fn is_empty(text: &str, open: char, close: char) -> bool {
    text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|inner| inner.trim().is_empty())
}

/// The text of a JSON string, or of a number as it was spelt; copied where it is escaped, which few are.
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
    fn nothing_has_four_spellings() {
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
    fn a_text_is_what_it_says_escaped_or_not() {
        assert!(matches!(scalar(&raw(r#""plain""#)), Some(Cow::Borrowed("plain"))));
        assert_eq!(scalar(&raw(r#""a\u0020\"b\"""#)).as_deref(), Some(r#"a "b""#));
        assert_eq!(scalar(&raw("1.50")).as_deref(), Some("1.50"));
        assert_eq!(scalar(&raw(r#""\ud800""#)), None);
        assert_eq!(scalar(&raw("true")), None);
    }

    #[test]
    fn a_complaint_does_not_repeat_what_was_sent() {
        for error in
            [r#""a \u006fry_at_1/x b""#, r#"{"code":"a ory_at_1\/x b"}"#, r#"{"message":"a o\u0007ry_at_1/x b"}"#]
        {
            let mut envelope = Envelope::read(format!(r#"{{"error":{error}}}"#).into()).unwrap();
            envelope.forget(&["ory_at_1/x", ""]);
            assert!(envelope.complaint().contains("a [secret] b"), "{error}: {}", envelope.complaint());
        }
    }

    #[test]
    fn what_was_asked_for_is_a_list_or_one_or_neither() {
        let of = |json: &'static str| Envelope::read(json.into()).unwrap();
        let list = of(r#"{"data": [ {"a" : 1}, 2 ]}"#);
        assert_eq!(list.rows().unwrap(), [r#"{"a" : 1}"#, "2"]);
        assert_eq!(list.data().unwrap(), r#"[{"a" : 1},2]"#);
        let one = of(r#"{"data": {"a" : 1}}"#);
        assert_eq!(one.rows().unwrap_err(), "`data` is not a list");
        assert_eq!(one.data().unwrap(), r#"{"a" : 1}"#);
        for nothing in ["{}", r#"{"data":null}"#] {
            assert_eq!(of(nothing).rows().unwrap_err(), "`data` is missing", "{nothing}");
            assert!(of(nothing).data().is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_list_is_no_envelope() {
        for list in ["[true,[{}],null,null]", r#"[null,{"a":1},null,null]"#] {
            assert!(Envelope::read(list.into()).unwrap_err().is_data(), "{list}");
        }
        let envelope = Envelope::read(r#"{"data":[],"pagination":[7,420]}"#.into()).unwrap();
        assert_eq!(envelope.pagination(), Pagination::default());
    }

    #[test]
    fn a_body_that_is_no_text_is_no_json() {
        let error = Envelope::read(Bytes::from_static(b"{\"data\":[\n{\"a\":\"\xff\"}]}")).unwrap_err();
        assert!(error.is_syntax(), "{error}");
        assert_eq!(error.line(), 2, "{error}");
        let beside = Envelope::read(Bytes::from_static(b"{\"message\":\"\xff\",\"data\":[]}")).unwrap_err();
        assert!(beside.is_syntax(), "nor is one where it stands in what nobody looks at: {beside}");
    }

    #[test]
    fn what_else_an_error_holds_keeps_nobody_from_reading_its_words() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        for fields in [format!("\"{}\"", "x".repeat(1 << 20)), deep, r#"{"a":"\ud83d"}"#.to_owned()] {
            let error =
                format!(r#"{{"error":{{"code":"unauthorized","message":"scopes: \ud83d","fields":{fields}}}}}"#);
            let mut envelope = Envelope::read(error.into()).unwrap();
            for _ in 0..2 {
                assert!(envelope.complaint().starts_with("unauthorized: scopes: "), "{}", envelope.complaint());
                assert_eq!(envelope.error_word().as_deref(), Some("unauthorized"));
                envelope.forget(&["secret"]);
                assert!(envelope.is_refusal());
            }
        }
    }

    #[test]
    fn an_error_that_is_none_does_not_become_one() {
        for none in ["null", "{}", "[]", "false", "0", "\"\""] {
            let mut envelope = Envelope::read(format!(r#"{{"error":{none},"data":[]}}"#).into()).unwrap();
            envelope.forget(&["secret"]);
            assert!(!envelope.is_refusal(), "{none}");
        }
    }

    #[test]
    fn a_secret_among_the_names_of_an_error_is_not_told() {
        let mut envelope = Envelope::read(r#"{"error":{"code":{"secret":1},"message":"m"}}"#.into()).unwrap();
        envelope.forget(&["secret"]);
        assert_eq!(envelope.complaint(), ": m");
        let mut envelope = Envelope::read(r#"{"error":{"secret":1}}"#.into()).unwrap();
        envelope.forget(&["secret"]);
        assert!(envelope.is_refusal());
        assert_eq!(envelope.complaint(), crate::salla::words::UNKNOWN);
    }

    #[test]
    fn complaints_have_a_word_or_a_number_or_no_envelope() {
        let of = |json: &'static str| Envelope::read(json.into()).unwrap().complaint();
        assert_eq!(of(r#"{"error":{"code":404,"message":"gone"}}"#), "404: gone");
        assert_eq!(of(r#"{"error":{"code":"error","message":""}}"#), "error: ");
        assert_eq!(of(r#"{"error":"invalid_grant"}"#), "invalid_grant");
        assert_eq!(of("{}"), "no reason given");
    }
}
