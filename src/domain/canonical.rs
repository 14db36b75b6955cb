//! JSON in canonical form: keys sorted, numbers normalised, some fields left out. It is written while the document is read,
//! for each record that is new or has changed pays for it (`docs/explanation/performance.md`).

use std::{borrow::Cow, fmt, io::Write as _, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Fields whose value changes while the record does not: countdowns, counters, signed addresses.
const VOLATILE: [&str; 6] = ["pending_payment_ends_at", "read", "unread", "views", "urls", "thumbnail"];

/// What `serde_json` calls the only field of a number of any size.
const NUMBER: &str = "$serde_json::private::Number";

/// The form of a JSON document, as the bytes that are hashed.
///
/// Each value stands behind a tag, and each text behind its length, so that no two documents meet.
///
/// # Errors
/// When it is not JSON.
pub fn canonical(json: &str) -> Result<Vec<u8>, serde_json::Error> {
    Form::of(json).map(|form| form.bytes)
}

/// Its name, and where its bytes are.
type Field<'a> = (Cow<'a, str>, Range<usize>);

/// The form of what has been read. No tree is made of a document: millions of empty lists fit into one answer.
#[derive(Default)]
struct Form<'a> {
    /// The whole document.
    json: &'a str,
    bytes: Vec<u8>,
    /// The fields of the objects that are being read, the innermost's last.
    fields: Vec<Field<'a>>,
    /// Where an object's fields are put in their order.
    sorted: Vec<u8>,
}

impl<'a> Form<'a> {
    fn of(json: &'a str) -> Result<Self, serde_json::Error> {
        // A record needs 1.5 times its size: eight bytes of length before each name and text.
        let mut form = Self { json, bytes: Vec::with_capacity(json.len() + json.len() / 2), ..Self::default() };
        let mut document = serde_json::Deserializer::from_str(json);
        form.deserialize(&mut document)?;
        document.end()?;
        Ok(form)
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A name that stands for a number is a text of `serde_json`; one that an object has is a part of the document.
    #[expect(clippy::ptr_arg, reason = "only a borrowed name can be either")]
    fn is_number(&self, name: &Cow<'_, str>) -> bool {
        let document = self.json.as_bytes().as_ptr_range();
        matches!(name, Cow::Borrowed(text) if *text == NUMBER && !document.contains(&text.as_ptr()))
    }

    fn number(&mut self, number: &str) {
        self.text(b'd', "");
        let start = self.bytes.len();
        normalise(number, &mut self.bytes);
        let length = (self.bytes.len() - start) as u64;
        self.bytes[start - 8..start].copy_from_slice(&length.to_le_bytes());
    }

    /// Puts the fields that follow `first`, whose bytes follow `start`, in the order of their names. Of several of one
    /// name the last stays.
    fn sort(&mut self, first: usize, start: usize) {
        let fields = &mut self.fields[first..];
        if !fields.is_sorted_by(|(one, _), (next, _)| one < next) {
            fields.sort_unstable_by(|(one, at), (other, there)| one.cmp(other).then(at.start.cmp(&there.start)));
            self.sorted.clear();
            for (index, (name, at)) in fields.iter().enumerate() {
                if fields.get(index + 1).is_none_or(|(next, _)| next != name) {
                    self.sorted.extend_from_slice(&self.bytes[at.clone()]);
                }
            }
            self.bytes.truncate(start);
            self.bytes.extend_from_slice(&self.sorted);
        }
        self.fields.truncate(first);
    }
}

/// `1e-2`, `0.01` and `0.010` are one number, and databases rewrite one of them as another. The
/// form is the sign, the digits without zeros at either end, and their power of ten. The code
/// parses by hand, because a decimal type rounds or fails where a database does not.
fn normalise(number: &str, form: &mut Vec<u8>) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = if fraction.is_empty() { Cow::Borrowed(whole) } else { Cow::Owned(format!("{whole}{fraction}")) };
    let led = digits.trim_end_matches('0');
    let significant = led.trim_start_matches('0');
    if significant.is_empty() {
        return form.push(b'0');
    }
    let Ok(exponent) = exponent.parse::<i64>() else {
        return form.extend(number.bytes().map(|byte| byte.to_ascii_lowercase()));
    };
    let power = i128::from(exponent) + (digits.len() - led.len()) as i128 - fraction.len() as i128;
    let sign = if mantissa.starts_with('-') { "-" } else { "" };
    // Nothing fails that is written into memory.
    let _ = write!(form, "{sign}{significant}e{power}");
}

/// A text that is borrowed if it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Texts)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Form<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Form<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.bytes.push(b'n');
        Ok(())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<(), E> {
        self.bytes.push(if flag { b't' } else { b'f' });
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.number(&number.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.number(&number.to_string());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(b's', text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.bytes.push(b'[');
        while seq.next_element_seed(&mut *self)?.is_some() {}
        self.bytes.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (first, start) = (self.fields.len(), self.bytes.len() + 1);
        self.bytes.push(b'{');
        let mut is_first = true;
        while let Some(Text(name)) = map.next_key()? {
            if is_first && self.is_number(&name) {
                let Text(number) = map.next_value()?;
                self.bytes.truncate(start - 1);
                self.number(&number);
                return Ok(());
            }
            is_first = false;
            if VOLATILE.contains(&&*name) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let from = self.bytes.len();
            self.text(b'k', &name);
            map.next_value_seed(&mut *self)?;
            self.fields.push((name, from..self.bytes.len()));
        }
        self.sort(first, start);
        self.bytes.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn feed_text(form: &mut Vec<u8>, tag: u8, text: &str) {
        form.push(tag);
        form.extend((text.len() as u64).to_le_bytes());
        form.extend(text.bytes());
    }

    /// Builds the form from a tree of owned values. The maps of the tree sort their fields.
    fn by_way_of_a_tree(form: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Null => form.push(b'n'),
            Value::Bool(false) => form.push(b'f'),
            Value::Bool(true) => form.push(b't'),
            Value::Number(number) => {
                let mut digits = Vec::new();
                normalise(number.as_str(), &mut digits);
                feed_text(form, b'd', std::str::from_utf8(&digits).unwrap());
            }
            Value::String(text) => feed_text(form, b's', text),
            Value::Array(items) => {
                form.push(b'[');
                items.iter().for_each(|item| by_way_of_a_tree(form, item));
                form.push(b']');
            }
            Value::Object(fields) => {
                form.push(b'{');
                for (name, value) in fields.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str())) {
                    feed_text(form, b'k', name);
                    by_way_of_a_tree(form, value);
                }
                form.push(b'}');
            }
        }
    }

    fn both(json: &str) -> [Option<Vec<u8>>; 2] {
        let tree = serde_json::from_str::<Value>(json).map(|value| {
            let mut form = Vec::new();
            by_way_of_a_tree(&mut form, &value);
            form
        });
        [canonical(json).ok(), tree.ok()]
    }

    fn json() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            Just(r#""read""#.to_owned()),
            Just(r#""\u0646\n\"""#.to_owned()),
            Just("\"a\"".to_owned()),
            any::<String>().prop_map(|text| Value::String(text).to_string()),
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|flag| flag.to_string()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,22})?",
            text.clone(),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let fields = prop::collection::vec((text.clone(), inner.clone()), 0..6);
            let items = prop::collection::vec(inner, 0..6);
            prop_oneof![
                items.prop_map(|items| format!("[{}]", items.join(","))),
                fields.prop_map(|fields| {
                    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name} :{value}")).collect();
                    format!("{{{}}}", fields.join(", "))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_a_tree_of_values_gives(json in json()) {
            let [canonical, tree] = both(&json);
            prop_assert!(canonical.is_some());
            prop_assert_eq!(canonical, tree);
        }

        #[test]
        fn invalid_json_is_refused(json in json(), at in any::<prop::sample::Index>()) {
            let broken: String = json.chars().take(at.index(json.len())).collect();
            let [canonical, tree] = both(&broken);
            prop_assert_eq!(canonical, tree);
        }
    }

    #[test]
    fn an_object_whose_first_field_is_named_like_a_number_is_an_object() {
        let name = r#""$serde_json::private::Number""#;
        let documents = [
            format!(r#"{{{name}:"5"}}"#),
            format!(r#"{{{name}:{{"x":1}}}}"#),
            format!(r#"{{{name}:"5","b":1}}"#),
            "5".to_owned(),
            "\"5\"".to_owned(),
        ];
        let forms = documents.map(|json| canonical(&json).unwrap());
        for (at, form) in forms.iter().enumerate() {
            assert!(!forms[..at].contains(form), "{at}");
        }
        let escaped = format!(r#"{{{}:"5"}}"#, name.replace('$', "\\u0024"));
        assert_eq!(canonical(&escaped).unwrap(), forms[0]);
        assert_ne!(canonical(&format!(r#"{{"a":{{{name}:"5"}}}}"#)).unwrap(), canonical(r#"{"a":5}"#).unwrap());
    }

    #[test]
    fn the_last_of_repeated_fields_counts() {
        for json in [r#"{"a":1,"b":2,"a":3}"#, r#"{"a":[1,{"c":1,"c":2}],"a":[1,{"c":2,"d":1,"c":1}]}"#] {
            let [canonical, tree] = both(json);
            assert_eq!(canonical, tree, "{json}");
        }
    }

    #[test]
    fn an_object_that_names_a_number_later_is_an_object() {
        for json in
            [r#"{"read":1,"$serde_json::private::Number":"5"}"#, r#"{"a":1,"$serde_json::private::Number":"5"}"#]
        {
            let [canonical, tree] = both(json);
            assert_eq!(canonical, tree, "{json}");
            assert_ne!(canonical.unwrap(), super::canonical("5").unwrap(), "{json}");
        }
    }

    #[test]
    fn many_small_values_take_little_memory() {
        for small in ["[]", "{}", "null"] {
            let json = format!("[{}]", vec![small; 1 << 20].join(","));
            let Form { bytes, fields, sorted, .. } = Form::of(&json).unwrap();
            let held = bytes.capacity() + sorted.capacity() + fields.capacity() * size_of::<Field<'_>>();
            assert!(held < 2 * json.len(), "{small}: {held}");
        }
    }

    #[test]
    fn it_is_as_deep_as_serde_json_goes() {
        for depth in [126, 127, 128, 5000] {
            let [canonical, tree] = both(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
            assert_eq!(canonical, tree, "{depth}");
        }
    }
}
