//! The answers of a probe in a file that shows their shapes and no data: for a bug report.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Seen;

/// Headers that are recorded.
const HEADERS: [&str; 5] = ["date", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "content-type"];

/// Texts under these names are Salla's own words, the same in every store.
const WORDS: [&str; 8] =
    ["slug", "currency", "timezone", "payment_method", "type", "country_code", "base_currency", "exchange_currency"];

/// The recorded answers.
#[derive(Debug, Default)]
pub struct Recording {
    answers: Vec<Value>,
    ids: BTreeSet<i64>,
}

impl Recording {
    pub(super) fn add(&mut self, path: &str, query: &[(&'static str, String)], seen: &Seen) {
        let headers: Map<String, Value> =
            HEADERS.iter().filter_map(|name| Some(((*name).to_owned(), json!(seen.header(name)?)))).collect();
        let query: Map<String, Value> = query.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.collect_ids(&seen.body);
        self.answers.push(json!({
            "path": path, "query": query, "status": seen.status, "headers": headers, "body": seen.body,
        }));
    }

    fn collect_ids(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.ids.extend(id_in(name, value));
                    self.collect_ids(value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect_ids(value)),
            _ => {}
        }
    }

    /// The answers, with each personal value, token and free text replaced by one of the same shape. Ids keep their order.
    #[must_use]
    pub fn anonymous(&self) -> Value {
        let ids: BTreeMap<i64, i64> = self.ids.iter().zip(1_000_000_001..).map(|(id, other)| (*id, other)).collect();
        let answers = self.answers.iter().map(|answer| {
            let mut answer = answer.clone();
            answer["body"] = anonymous("", &answer["body"], &ids);
            if let Some((list, id)) = answer["path"].as_str().and_then(|path| path.rsplit_once('/'))
                && let Ok(id) = id.parse::<i64>()
            {
                answer["path"] = json!(format!("{list}/{}", ids.get(&id).copied().unwrap_or(1)));
            }
            answer
        });
        json!({ "answers": answers.collect::<Vec<_>>() })
    }
}

/// The id that a field holds: a number, or its digits as a text.
fn id_in(name: &str, value: &Value) -> Option<i64> {
    let is_id = name == "id" || name.ends_with("_id");
    let id = || value.as_i64().or_else(|| value.as_str()?.parse().ok());
    if is_id { id() } else { None }
}

fn anonymous(name: &str, value: &Value, ids: &BTreeMap<i64, i64>) -> Value {
    if let Some(id) = id_in(name, value).and_then(|id| ids.get(&id)) {
        return if value.is_string() { json!(id.to_string()) } else { json!(id) };
    }
    match value {
        // A birthday also has a time.
        Value::Object(_) if name == "birthday" => json!({ "date": "1111-11-11 00:00:00.000000" }),
        // The code of an error is a word of Salla.
        Value::Object(fields) if name == "error" && fields.contains_key("code") => {
            let kept = |(name, value): (&String, &Value)| {
                let value = if name == "code" { value.clone() } else { anonymous(name, value, ids) };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(kept).collect())
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), anonymous(name, value, ids)));
            Value::Object(fields.collect())
        }
        Value::Array(values) => values.iter().map(|value| anonymous(name, value, ids)).collect(),
        Value::String(text) if WORDS.contains(&name) || is_time(text) && name != "birthday" => json!(text),
        Value::String(text) => Value::String(text.chars().map(replacement).collect()),
        Value::Number(_) if is_structure(name) => value.clone(),
        Value::Number(number) => {
            let digits: String = number.to_string().chars().map(replacement).collect();
            serde_json::from_str(&digits).unwrap_or(Value::Null)
        }
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

/// Numbers that describe the answer, and no data of the store.
fn is_structure(name: &str) -> bool {
    matches!(name, "count" | "total" | "perPage" | "currentPage" | "totalPages" | "status" | "code" | "timezone_type")
}

/// A day with a time. A day alone may be a birthday.
fn is_time(text: &str) -> bool {
    let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f%:z"];
    forms.iter().any(|form| chrono::NaiveDateTime::parse_from_str(text, form).is_ok())
}

/// A character of the same kind.
fn replacement(c: char) -> char {
    match c {
        '0'..='9' => '1',
        c if c.is_ascii_uppercase() => 'X',
        c if c.is_ascii_lowercase() => 'x',
        c if c.is_alphabetic() => 'ع',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_by_others_of_the_same_shape() {
        let body = json!({"data": [{
            "id": 77, "reference_id": 40_497_536, "total": {"amount": 55.10, "currency": "SAR"},
            "date": {"date": "2022-06-16 14:48:20.000000", "timezone_type": 3, "timezone": "Asia/Riyadh"},
            "coupon": {"code": "SARA10"}, "birthday": "1990-05-17", "card": "4111-1111-1111-1111",
            "customer": {"id": "5", "email": "Sara.Q@example.com", "mobile": 966_501_234_567_i64, "name": "سارة"},
        }], "pagination": {"total": 1, "totalPages": 1}});
        let mut recording = Recording::default();
        recording.collect_ids(&body);
        let ids = recording.ids.iter().copied().zip(1_000_000_001..).collect();
        let shown = anonymous("", &body, &ids);
        assert_eq!(
            shown,
            json!({"data": [{
                "id": 1_000_000_002, "reference_id": 1_000_000_003, "total": {"amount": 11.1, "currency": "SAR"},
                "date": {"date": "2022-06-16 14:48:20.000000", "timezone_type": 3, "timezone": "Asia/Riyadh"},
                "coupon": {"code": "XXXX11"}, "birthday": "1111-11-11", "card": "1111-1111-1111-1111",
                "customer": {"id": "1000000001", "email": "Xxxx.X@xxxxxxx.xxx", "mobile": 111_111_111_111_i64, "name": "عععع"},
            }], "pagination": {"total": 1, "totalPages": 1}})
        );
    }
}
