//! The envelope around every answer.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    error_message::ErrorMessage,
    list_rows::{Numbered, Rows},
    repaired_text::{Repaired, without_mark},
    values::{integer, is_empty, present},
};
use crate::json_object::object;

/// The envelope. `data` stays the received text, so that the payload is what Salla sent.
///
/// The text is not copied: it stays in the memory of the body, which lives as long as a part of it is used.
#[derive(Debug, Deserialize)]
pub struct Envelope<Data = Payload> {
    /// Absent means true, if the answer carries no error.
    pub success: Option<bool>,
    /// The requested data.
    pub data: Option<Data>,
    /// Beside a list.
    pub pagination: Option<Box<RawValue>>,
    /// Beside `success: false`, or in its stead.
    pub error: Option<Box<RawValue>>,
    /// The status, which Salla repeats in the body.
    pub status: Option<Box<RawValue>>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRow {
    /// The text it came as.
    pub text: ByteString,
    /// A part was not UTF-8, and has been replaced.
    pub is_damaged: bool,
}

/// The requested data.
#[derive(Debug)]
pub enum Payload {
    /// The rows of a list.
    Rows(Vec<RawRow>),
    /// Anything else.
    Other(ByteString),
}

impl<Data> Envelope<Data> {
    fn map(self, payload: impl FnOnce(Data) -> Payload) -> Envelope {
        let Self { success, data, pagination, error, status } = self;
        Envelope { success, data: data.map(payload), pagination, error, status }
    }

    /// Salla itself says no.
    pub fn is_refusal(&self) -> bool {
        self.success == Some(false) || self.error().is_some()
    }

    /// A number, also as a text or with decimals.
    fn status(&self) -> Option<i64> {
        let text = self.status.as_deref()?.get().trim_matches('"');
        text.split_once('.').map_or(text, |(whole, _)| whole).parse().ok()
    }

    /// An error as Salla writes one, and no gateway: `success: false`, the answer's own status, and a code with a message.
    pub fn is_error_of_salla(&self, status: u16) -> bool {
        let words = self.error().map(|error| ErrorMessage::of(error.get()));
        let has_words = matches!(words, Some(ErrorMessage::Error { code: Some(_), message: Some(_) }));
        has_words && self.success == Some(false) && self.status() == Some(status.into())
    }

    /// The status of a failure in the body of an answer whose own status is 200.
    pub fn failed_status(&self) -> Option<u16> {
        self.status().filter(|status| (300..=599).contains(status)).and_then(|status| status.try_into().ok())
    }

    /// Why an answer of status 200 does not hold what was asked for.
    pub fn contradiction(&self) -> Option<String> {
        match self.success {
            Some(false) => Some("success is false".to_owned()),
            _ if self.failed_status().is_some() => {
                self.failed_status().map(|status| format!("the body's status is {status}"))
            }
            Some(true) if self.is_refusal() => Some("an error beside success: true".to_owned()),
            None if self.is_refusal() => Some("an error without success".to_owned()),
            _ => None,
        }
    }

    /// An error that is present: not `false`, `0` or an empty text.
    fn error(&self) -> Option<&RawValue> {
        present(self.error.as_deref()).filter(|error| !matches!(error.get(), "false" | "0" | "\"\""))
    }

    /// Takes out of the server's words about an error the secrets that it was sent, however it spells them, and all but
    /// its words.
    pub fn forget(&mut self, secrets: &[&str]) {
        self.error = self.error().and_then(|error| ErrorMessage::of(error.get()).without(secrets));
    }

    /// The word of an error: its code, or the bare text of the token endpoint.
    pub fn error_word(&self) -> Option<String> {
        match ErrorMessage::of(self.error.as_deref()?.get()) {
            ErrorMessage::Text(word) | ErrorMessage::Error { code: Some(Value::String(word)), .. } => Some(word),
            ErrorMessage::Error { .. } | ErrorMessage::Unknown => None,
        }
    }

    /// Salla's words about an error.
    pub fn description(&self) -> String {
        let words = self.error.as_deref().map(|raw| ErrorMessage::of(raw.get()));
        words.map_or_else(|| "no reason given".to_owned(), ErrorMessage::description)
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
    /// Reads a body. A row with bytes that are not UTF-8 is marked as damaged.
    ///
    /// # Errors
    /// When it is not JSON, not an envelope, or no text outside the rows of a list.
    pub fn read(body: Bytes) -> Result<Self, serde_json::Error> {
        let body = without_mark(&body);
        let whole =
            ByteString::try_from(body.clone()).map_or_else(|_| Err(no_text(&body)), |text| Self::of_text(&text));
        let error = match whole {
            Err(error) if !error.is_data() => error,
            whole => return whole,
        };
        let Some(repaired) = Repaired::of(&body) else {
            return Err(error);
        };
        let Ok(mut envelope) = Self::of_text(&repaired.text) else {
            return Err(error);
        };
        if envelope.mark_damage(&repaired) { Ok(envelope) } else { Err(error) }
    }

    fn of_text(text: &ByteString) -> Result<Self, serde_json::Error> {
        let part = |raw: &RawValue| text.slice_ref(raw.get());
        let row = |raw| RawRow { text: part(raw), is_damaged: false };
        // A list, which may be long, is gone through once; anything else is short.
        if let Ok(list) = object::<Envelope<Rows<'_>>>(text) {
            return Ok(list.map(|Rows(rows)| Payload::Rows(rows.into_iter().map(row).collect())));
        }
        object::<Envelope<&RawValue>>(text).map(|other| other.map(|raw| Payload::Other(part(raw))))
    }

    /// Marks the damaged rows. False: a part outside the rows is damaged.
    fn mark_damage(&mut self, repaired: &Repaired) -> bool {
        let Some(Payload::Rows(rows)) = &mut self.data else {
            return false;
        };
        for row in rows.iter_mut() {
            row.is_damaged = repaired.is_damaged(&row.text);
        }
        repaired.is_damaged_only_in(rows.iter().map(|row| &*row.text))
    }

    /// The rows of a list: also of one that is written as an object whose keys are numbers.
    ///
    /// # Errors
    /// When `data` is not a list.
    pub fn rows(&self) -> Result<Cow<'_, [RawRow]>, &'static str> {
        match &self.data {
            Some(Payload::Rows(rows)) => Ok(Cow::Borrowed(rows)),
            Some(Payload::Other(data)) => {
                let Numbered(rows) = serde_json::from_str(data).map_err(|_| "`data` is not a list")?;
                let row = |raw: &RawValue| RawRow { text: data.slice_ref(raw.get()), is_damaged: false };
                Ok(rows.into_iter().map(row).collect())
            }
            None => Err("`data` is missing"),
        }
    }

    /// The requested data.
    pub fn data(&self) -> Option<ByteString> {
        Some(match self.data.as_ref()? {
            Payload::Rows(rows) => {
                let rows: Vec<&str> = rows.iter().map(|row| &*row.text).collect();
                format!("[{}]", rows.join(",")).into()
            }
            Payload::Other(data) => data.clone(),
        })
    }

    /// The whole answer as JSON.
    pub fn to_value(&self) -> Value {
        let part = |text: &str| serde_json::from_str::<Value>(text).ok();
        let raw = |raw: &Option<Box<RawValue>>| raw.as_deref().and_then(|raw| part(raw.get()));
        let fields = [
            ("status", raw(&self.status)),
            ("success", self.success.map(Value::Bool)),
            ("data", self.data().and_then(|data| part(&data))),
            ("pagination", raw(&self.pagination)),
            ("error", raw(&self.error)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Salla says that a record is not there: by its documentation, with the status for a code, or with `error`.
    pub fn is_no_such_record(&self, status: u16) -> bool {
        let code = match self.error().map(|error| ErrorMessage::of(error.get())) {
            Some(ErrorMessage::Error { code: Some(Value::String(code)), .. }) => code,
            Some(ErrorMessage::Error { code: Some(code), .. }) => code.to_string(),
            _ => return false,
        };
        let has_data = self.data().is_some_and(|data| !is_empty(&data, '{', '}') && !is_empty(&data, '[', ']'));
        !has_data && self.is_error_of_salla(status) && (code == "error" || code == status.to_string())
    }

    /// The number of pages and of rows that the envelope announces. A missing or odd value is `None`.
    pub fn pagination(&self) -> Pagination {
        #[derive(Deserialize, Default)]
        struct PaginationBody<'a> {
            #[serde(borrow, rename = "totalPages")]
            total_pages: Option<&'a RawValue>,
            #[serde(borrow)]
            total: Option<&'a RawValue>,
        }
        let wire = present(self.pagination.as_deref())
            .and_then(|raw| object::<PaginationBody<'_>>(raw.get()).ok())
            .unwrap_or_default();
        Pagination {
            total_pages: wire.total_pages.and_then(integer).and_then(|pages| u32::try_from(pages).ok()),
            total: wire.total.and_then(integer).and_then(|rows| u64::try_from(rows).ok()),
        }
    }
}

/// The place at which a body is not text.
fn no_text(body: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<&RawValue>(body) {
        Err(error) => error,
        Ok(_) => serde::de::Error::custom("it is not text"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::list_rows::MAX_ROWS, *};

    #[test]
    fn a_complaint_does_not_repeat_what_was_sent() {
        for error in
            [r#""a \u006fry_at_1/x b""#, r#"{"code":"a ory_at_1\/x b"}"#, r#"{"message":"a o\u0007ry_at_1/x b"}"#]
        {
            let mut envelope = Envelope::read(format!(r#"{{"error":{error}}}"#).into()).unwrap();
            envelope.forget(&["ory_at_1/x", ""]);
            assert!(envelope.description().contains("a [secret] b"), "{error}: {}", envelope.description());
        }
    }

    #[test]
    fn data_is_a_list_or_one_record() {
        let of = |json: &'static str| Envelope::read(json.into()).unwrap();
        let list = of(r#"{"data": [ {"a" : 1}, 2 ]}"#);
        let texts = |envelope: &Envelope| -> Vec<String> {
            envelope.rows().unwrap().iter().map(|row| row.text.to_string()).collect()
        };
        assert_eq!(texts(&list), [r#"{"a" : 1}"#, "2"]);
        assert_eq!(list.data().unwrap(), r#"[{"a" : 1},2]"#);
        let one = of(r#"{"data": {"a" : 1}}"#);
        assert_eq!(one.rows().unwrap_err(), "`data` is not a list");
        assert_eq!(texts(&of(r#"{"data":{"3":{"a":1},"0":2}}"#)), [r#"{"a":1}"#, "2"]);
        assert_eq!(texts(&of(r#"{"data":{}}"#)), [""; 0]);
        assert!(of(r#"{"data":{"0":1,"id":2}}"#).rows().is_err());
        assert_eq!(one.data().unwrap(), r#"{"a" : 1}"#);
        for nothing in ["{}", r#"{"data":null}"#] {
            assert_eq!(of(nothing).rows().unwrap_err(), "`data` is missing", "{nothing}");
            assert!(of(nothing).data().is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_json_list_is_not_an_envelope() {
        for list in ["[true,[{}],null,null]", r#"[null,{"a":1},null,null]"#] {
            assert!(Envelope::read(list.into()).unwrap_err().is_data(), "{list}");
        }
        let envelope = Envelope::read(r#"{"data":[],"pagination":[7,420]}"#.into()).unwrap();
        assert_eq!(envelope.pagination(), Pagination::default());
    }

    #[test]
    fn a_body_that_is_not_text_is_refused() {
        let error = Envelope::read(Bytes::from_static(b"{\"data\":\n{\"a\":\"\xff\"}}")).unwrap_err();
        assert!(error.is_syntax(), "{error}");
        assert_eq!(error.line(), 2, "{error}");
        let list =
            Envelope::read(Bytes::from_static(b"\xef\xbb\xbf{\"data\":[{\"a\":\"\xff\"},{\"a\":\"b\"}]}")).unwrap();
        let damaged: Vec<bool> = list.rows().unwrap().iter().map(|row| row.is_damaged).collect();
        assert_eq!(damaged, [true, false], "a row costs itself only");
        let beside = Envelope::read(Bytes::from_static(b"{\"message\":\"\xff\",\"data\":[]}")).unwrap_err();
        assert!(beside.is_syntax(), "nor is one in a field that is never read: {beside}");
    }

    #[test]
    fn other_members_do_not_hide_an_error() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        for fields in [format!("\"{}\"", "x".repeat(1 << 20)), deep, r#"{"a":"\ud83d"}"#.to_owned()] {
            let error =
                format!(r#"{{"error":{{"code":"unauthorized","message":"scopes: \ud83d","fields":{fields}}}}}"#);
            let mut envelope = Envelope::read(error.into()).unwrap();
            for _ in 0..2 {
                assert!(envelope.description().starts_with("unauthorized: scopes: "), "{}", envelope.description());
                assert_eq!(envelope.error_word().as_deref(), Some("unauthorized"));
                envelope.forget(&["secret"]);
                assert!(envelope.is_refusal());
            }
        }
    }

    #[test]
    fn an_empty_error_is_not_an_error() {
        for none in ["null", "{}", "[]", "false", "0", "\"\""] {
            let mut envelope = Envelope::read(format!(r#"{{"error":{none},"data":[]}}"#).into()).unwrap();
            envelope.forget(&["secret"]);
            assert!(!envelope.is_refusal(), "{none}");
        }
    }

    #[test]
    fn a_secret_in_the_names_of_an_error_is_masked() {
        let mut envelope = Envelope::read(r#"{"error":{"code":{"secret":1},"message":"m"}}"#.into()).unwrap();
        envelope.forget(&["secret"]);
        assert_eq!(envelope.description(), ": m");
        let mut envelope = Envelope::read(r#"{"error":{"secret":1}}"#.into()).unwrap();
        envelope.forget(&["secret"]);
        assert!(envelope.is_refusal());
        assert_eq!(envelope.description(), crate::salla::wire::error_message::UNKNOWN);
    }

    #[test]
    fn only_salla_s_own_words_say_that_a_record_is_gone() {
        let of = |json: &str| Envelope::read(json.to_owned().into()).unwrap().is_no_such_record(404);
        assert!(of(r#"{"status":404,"success":false,"error":{"code":404,"message":""}}"#));
        assert!(of(r#"{"status":404,"success":false,"error":{"code":"error","message":"m"}}"#));
        for gateway in [
            r#"{"timestamp":"2026-11-29T00:00:00Z","status":404,"error":"Not Found","path":"/v2/orders/1"}"#,
            r#"{"statusCode":404,"message":"Cannot GET /v2/orders/1","error":"Not Found"}"#,
            r#"{"error":{"code":404,"message":"Not Found","status":"NOT_FOUND"}}"#,
            r#"{"success":false,"errors":[{"code":7003,"message":"no route"}],"result":null}"#,
            r#"{"success":false,"error":{"code":404,"message":"no route"}}"#,
            r#"{"status":200,"success":false,"error":{"code":404,"message":"m"}}"#,
            r#"{"status":404,"success":false,"error":{"code":"route_not_found","message":"m"}}"#,
            r#"{"status":404,"success":false,"error":"Not Found"}"#,
            r#"{"status":404,"success":false,"error":{"code":"error","message":"m"},"data":{"id":1}}"#,
        ] {
            assert!(!of(gateway), "{gateway}");
        }
    }

    #[test]
    fn rows_beyond_what_a_list_may_hold_are_not_kept() {
        let many = format!(r#"{{"data":[{}0],"success":true}}"#, "0,".repeat(50_000));
        assert_eq!(Envelope::read(many.into()).unwrap().rows().unwrap().len(), MAX_ROWS);
    }

    #[test]
    fn error_messages_of_every_shape_are_read() {
        let of = |json: &'static str| Envelope::read(json.into()).unwrap().description();
        assert_eq!(of(r#"{"error":{"code":404,"message":"gone"}}"#), "404: gone");
        assert_eq!(of(r#"{"error":{"code":"error","message":""}}"#), "error: ");
        assert_eq!(of(r#"{"error":"invalid_grant"}"#), "invalid_grant");
        assert_eq!(of("{}"), "no reason given");
    }
}
