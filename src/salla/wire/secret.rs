//! Secrets on their way out. Their buffers are wiped when the last reader is done. A server may
//! repeat a request, so its words are masked.

use std::{borrow::Cow, collections::HashSet};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Before the token.
pub const BEARER: &str = "Bearer ";

/// The text as bytes that a request may own, and that are wiped after use. The copies in the buffers of the connection
/// are not wiped.
pub fn wiped(text: Zeroizing<String>) -> Bytes {
    struct Owner(Zeroizing<String>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    Bytes::from_owner(Owner(text))
}

/// A token as the value of the header `Authorization`.
///
/// # Errors
/// When it holds what no header carries.
pub fn bearer(token: &SecretString) -> Result<HeaderValue, &'static str> {
    let mut text = Zeroizing::new(String::with_capacity(BEARER.len() + token.expose_secret().len()));
    text.push_str(BEARER);
    text.push_str(token.expose_secret());
    let mut bearer =
        HeaderValue::from_maybe_shared(wiped(text)).map_err(|_| "the stored token is not a bearer token")?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// So many characters of a secret in a row, in any spelling, are not shown.
const PIECE: usize = 12;

/// A server's words are looked through up to here; fewer of them are shown.
const LOOKED_THROUGH: usize = 4096;

const MASK: &str = "[secret]";

/// Returns `text` without `secrets` and without pieces of them. They may stand there in plain, in
/// base64, in hex and percent-encoded. A server may repeat a request in its error message.
pub fn masked<'a>(text: &'a str, secrets: &[&str]) -> Cow<'a, str> {
    let text = &text[..text.floor_char_boundary(LOOKED_THROUGH)];
    let spellings: Vec<_> =
        secrets.iter().filter(|secret| !secret.is_empty()).flat_map(|secret| spellings(secret)).collect();
    let bytes = text.as_bytes();
    let mut hidden = vec![false; bytes.len()];
    for spelling in &spellings {
        let length = PIECE.min(spelling.len());
        let pieces: HashSet<&[u8]> = spelling.windows(length).collect();
        for (at, window) in bytes.windows(length).enumerate() {
            if pieces.contains(window) {
                hidden[at..at + length].fill(true);
            }
        }
    }
    if !hidden.contains(&true) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut is_masked = false;
    // Every spelling is ASCII: a character is hidden whole, or not at all.
    for (at, c) in text.char_indices() {
        if !hidden[at] {
            shown.push(c);
        } else if !is_masked {
            shown.push_str(MASK);
        }
        is_masked = hidden[at];
    }
    Cow::Owned(shown)
}

/// A body in which each whole spelling of a secret is masked; `None`: the body holds no secret. JSON stays JSON.
pub fn without_secret(body: &[u8], secret: &str) -> Option<Vec<u8>> {
    let mut masked: Option<Vec<u8>> = None;
    for spelling in spellings(secret).iter().filter(|spelling| spelling.len() >= PIECE) {
        let text = masked.as_deref().unwrap_or(body);
        let places: Vec<usize> = memmem::find_iter(text, spelling.as_slice()).collect();
        if places.is_empty() {
            continue;
        }
        let (mut rest, mut replaced) = (0, Vec::with_capacity(text.len()));
        for place in places {
            replaced.extend_from_slice(&text[rest..place]);
            replaced.extend_from_slice(MASK.as_bytes());
            rest = place + spelling.len();
        }
        replaced.extend_from_slice(&text[rest..]);
        masked = Some(replaced);
    }
    masked
}

/// The ways in which a secret is spelt.
fn spellings(secret: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let percent = |upper: bool| -> String {
        secret.bytes().map(|byte| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") }).collect()
    };
    let except_letters_and_digits = |upper: bool| -> String {
        let spell = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        };
        secret.bytes().map(spell).collect()
    };
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut spellings = vec![
        secret.to_owned(),
        hex::encode(secret),
        hex::encode_upper(secret),
        form,
        percent(false),
        percent(true),
        except_letters_and_digits(false),
        except_letters_and_digits(true),
    ];
    // Base64 spells a text in three ways, by the number of bytes before it. At both ends, the text
    // mixes with its neighbours.
    for before in 0..3 {
        let text = Zeroizing::new([&[0; 3][..before], secret.as_bytes()].concat());
        let (begin, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        spellings.extend(
            [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)].map(|spelt| spelt[begin..end].to_owned()),
        );
    }
    // PHP writes a slash in a JSON string as `\/`.
    let in_json: Vec<_> =
        spellings.iter().filter(|spelt| spelt.contains('/')).map(|spelt| spelt.replace('/', "\\/")).collect();
    spellings.extend(in_json);
    spellings.sort_unstable();
    spellings.dedup();
    spellings.into_iter().filter(|spelt| !spelt.is_empty()).map(|spelt| Zeroizing::new(spelt.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_request_are_masked() {
        assert_eq!(
            masked("ory_rt_1 of s3cret is ory_rt_1", &["ory_rt_1", "s3cret"]),
            "[secret] of [secret] is [secret]"
        );
        assert!(matches!(masked("no such thing", &["ory_rt_1", ""]), Cow::Borrowed("no such thing")));
    }

    #[test]
    fn every_form_of_a_secret_is_masked() {
        let secret = "ory_at_AbC123.xyz-789_LMN/+=";
        for before in ["", "a", "ab"] {
            let text = format!("{before}{secret}");
            for spelt in [
                STANDARD_NO_PAD.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
                hex::encode(&text),
                hex::encode_upper(&text),
                url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
                secret[3..20].to_owned(),
                text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            ] {
                let shown = masked(&format!("لا {spelt} هنا"), &[secret]).into_owned();
                assert!(shown.starts_with("لا ") && shown.contains(MASK) && shown.ends_with(" هنا"), "{spelt}: {shown}");
            }
        }
    }

    #[test]
    fn a_slash_may_be_escaped() {
        // 24 bytes: in base64, the last byte shares no character with a neighbour.
        let secret = "ory_at_Ab/C123???>>>wxyz";
        for spelt in [secret.to_owned(), STANDARD_NO_PAD.encode(secret)] {
            let escaped = spelt.replace('/', "\\/");
            assert_ne!(escaped, spelt, "the test needs a slash");
            let body = format!(r#"{{"data":[{{"id":1,"note":"{escaped}"}}]}}"#);
            let masked = without_secret(body.as_bytes(), secret).map(|body| String::from_utf8(body).unwrap());
            assert_eq!(masked.as_deref(), Some(r#"{"data":[{"id":1,"note":"[secret]"}]}"#), "{escaped}");
        }
    }

    #[test]
    fn a_row_that_repeats_a_secret_stays_json() {
        let secret = "ory_at_AbC123.xyz-789";
        let percent = |hyphen: &str| secret.replace('-', hyphen).replace('_', "%5F").replace('.', "%2E");
        for spelt in [
            secret.to_owned(),
            hex::encode(secret),
            STANDARD_NO_PAD.encode(format!("x{secret}")),
            percent("%2D"),
            percent("%2d").replace("%5F", "%5f").replace("%2E", "%2e"),
        ] {
            let body = format!(r#"{{"data":[{{"id":1,"note":"a {spelt} b"}}]}}"#);
            let masked = String::from_utf8(without_secret(body.as_bytes(), secret).unwrap()).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(&masked).is_ok() && masked.contains(MASK), "{masked}");
        }
        assert!(without_secret(b"{}", secret).is_none());
    }
}
