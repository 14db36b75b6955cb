//! JSON in canonical form: keys sorted, numbers normalised, some fields left out. Texts are borrowed from the document,
//! for what a fingerprint costs is what a record costs that has not changed (`docs/performance.md`).

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

/// Fields whose value changes though nobody changed the record: countdowns, counters, signed addresses.
const VOLATILE: [&str; 6] = ["pending_payment_ends_at", "read", "unread", "views", "urls", "thumbnail"];

/// What `serde_json` calls the only field of a number of any size.
const NUMBER: &str = "$serde_json::private::Number";

/// A value, without what is volatile in it.
#[derive(Debug)]
pub enum Canonical<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// As it was spelt.
    Number(Cow<'a, str>),
    /// Without its escapes.
    Text(Cow<'a, str>),
    /// In their order.
    Items(Vec<Self>),
    /// By name; of several of one name the last.
    Fields(Vec<(Cow<'a, str>, Self)>),
}

impl Canonical<'_> {
    /// Each value is fed behind a tag, and each text behind its length, so that no two documents meet.
    pub fn feed(&self, hasher: &mut Sha256) {
        match self {
            Self::Null => hasher.update(b"n"),
            Self::Flag(false) => hasher.update(b"f"),
            Self::Flag(true) => hasher.update(b"t"),
            Self::Number(number) => feed_text(hasher, b'd', &normalised(number)),
            Self::Text(text) => feed_text(hasher, b's', text),
            Self::Items(items) => {
                hasher.update(b"[");
                items.iter().for_each(|item| item.feed(hasher));
                hasher.update(b"]");
            }
            Self::Fields(fields) => {
                hasher.update(b"{");
                for (name, value) in fields {
                    feed_text(hasher, b'k', name);
                    value.feed(hasher);
                }
                hasher.update(b"}");
            }
        }
    }
}

fn feed_text(hasher: &mut Sha256, tag: u8, text: &str) {
    let mut head = [tag; 9];
    head[1..].copy_from_slice(&(text.len() as u64).to_le_bytes());
    hasher.update(head);
    hasher.update(text);
}

/// `1e-2`, `0.01` and `0.010` are one number, and databases rewrite the one as the other: its digits without the
/// zeros at either end, and the power of ten that they count. By hand, for a decimal type rounds or gives up where
/// a database does not.
fn normalised(number: &str) -> String {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = if fraction.is_empty() { Cow::Borrowed(whole) } else { Cow::Owned(format!("{whole}{fraction}")) };
    let led = digits.trim_end_matches('0');
    let significant = led.trim_start_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let Ok(exponent) = exponent.parse::<i64>() else {
        return number.to_ascii_lowercase();
    };
    let power = i128::from(exponent) + (digits.len() - led.len()) as i128 - fraction.len() as i128;
    format!("{}{significant}e{power}", if mantissa.starts_with('-') { "-" } else { "" })
}

/// A text that is borrowed where it has no escapes.
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

impl<'de> Deserialize<'de> for Canonical<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Canonical<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Number(number.to_string().into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Number(number.to_string().into()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Canonical<'de>, E> {
        Ok(Canonical::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Canonical<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Canonical::Items(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Canonical<'de>, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, Canonical<'de>)> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if name == NUMBER && fields.is_empty() {
                return map.next_value::<Text<'de>>().map(|Text(number)| Canonical::Number(number));
            }
            if VOLATILE.contains(&&*name) {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.push((name, map.next_value()?));
            }
        }
        // The last of a name comes first, and stays.
        fields.reverse();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        fields.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Ok(Canonical::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The form by way of a tree of owned values, which sorts by itself.
    fn by_way_of_a_tree(hasher: &mut Sha256, value: &Value) {
        match value {
            Value::Null => hasher.update(b"n"),
            Value::Bool(false) => hasher.update(b"f"),
            Value::Bool(true) => hasher.update(b"t"),
            Value::Number(number) => feed_text(hasher, b'd', &normalised(number.as_str())),
            Value::String(text) => feed_text(hasher, b's', text),
            Value::Array(items) => {
                hasher.update(b"[");
                items.iter().for_each(|item| by_way_of_a_tree(hasher, item));
                hasher.update(b"]");
            }
            Value::Object(fields) => {
                hasher.update(b"{");
                for (name, value) in fields.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str())) {
                    feed_text(hasher, b'k', name);
                    by_way_of_a_tree(hasher, value);
                }
                hasher.update(b"}");
            }
        }
    }

    fn both(json: &str) -> [Option<Vec<u8>>; 2] {
        let (mut one, mut other) = (Sha256::new(), Sha256::new());
        let canonical = serde_json::from_str::<Canonical<'_>>(json).map(|value| value.feed(&mut one));
        let tree = serde_json::from_str::<Value>(json).map(|value| by_way_of_a_tree(&mut other, &value));
        [canonical.ok().map(|()| one.finalize().to_vec()), tree.ok().map(|()| other.finalize().to_vec())]
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
        fn what_is_no_json_is_none(json in json(), at in any::<prop::sample::Index>()) {
            let broken: String = json.chars().take(at.index(json.len())).collect();
            let [canonical, tree] = both(&broken);
            prop_assert_eq!(canonical, tree);
        }
    }

    #[test]
    fn of_several_fields_of_a_name_the_last_counts() {
        for json in [r#"{"a":1,"b":2,"a":3}"#, r#"{"a":[1,{"c":1,"c":2}],"a":[1,{"c":2,"d":1,"c":1}]}"#] {
            let [canonical, tree] = both(json);
            assert_eq!(canonical, tree, "{json}");
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
