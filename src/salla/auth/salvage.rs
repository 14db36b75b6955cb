//! Finds tokens in an answer of the token endpoint that is broken JSON. They cannot be asked for again.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::reconcile::ports::Tokens;

/// A shorter value is a word such as `null`.
const SHORTEST: usize = 8;

/// The access token and the refresh token behind their names, in JSON that is broken, in quotes of any kind, or in a form.
pub fn salvaged(text: &str, now: DateTime<Utc>) -> Option<Tokens> {
    let token = |name| value(text, name).filter(|token| token.len() >= SHORTEST);
    let secret = |token: Zeroizing<String>| SecretString::from(token.as_str());
    let (access, refresh) = (token("access_token")?, token("refresh_token")?);
    let seconds = value(text, "expires_in").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
    let expires_at = seconds.and_then(TimeDelta::try_seconds).and_then(|span| now.checked_add_signed(span));
    Tokens::new(secret(access), Some(secret(refresh)), expires_at).ok()
}

fn value(text: &str, name: &str) -> Option<Zeroizing<String>> {
    let (_, rest) = text.split_once(name)?;
    let is_form = rest.starts_with('=');
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ':' | '='));
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ',' | '}' | '&' | '<' | ';'));
    let value = &rest[..end.unwrap_or(rest.len())];
    let value =
        if is_form { form_urlencoded::parse(value.as_bytes()).next()?.0.into_owned() } else { value.to_owned() };
    (!value.is_empty()).then(|| Zeroizing::new(value))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn tokens_are_found_in_broken_answers() {
        let now = Utc::now();
        for text in [
            r#"{"access_token":"ory_at_1.-_a","refresh_token":"ory_rt_1.-_b","expires_in":60,}"#,
            r#"{"access_token":"ory_at_1.-_a","expires_in":60,"refresh_token":"ory_rt_1.-_b""#,
            r#"{"x":NaN,"access_token":"ory_at_1.-_a","expires_in":60,"refresh_token":"ory_rt_1.-_b"}"#,
            r#""{\"access_token\":\"ory_at_1.-_a\",\"refresh_token\":\"ory_rt_1.-_b\",\"expires_in\":60}""#,
            "{'access_token': 'ory_at_1.-_a', 'refresh_token': 'ory_rt_1.-_b', 'expires_in': 60}",
            "access_token=ory%5Fat_1.-_a&refresh_token=ory_rt_1.-_b&expires_in=60",
            "Notice: {x} <br>{\"access_token\":\"ory_at_1.-_a\",\"refresh_token\":\"ory_rt_1.-_b\",\"expires_in\":60}",
        ] {
            let tokens = salvaged(text, now).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(tokens.access.expose_secret(), "ory_at_1.-_a", "{text}");
            assert_eq!(tokens.refresh.unwrap().expose_secret(), "ory_rt_1.-_b", "{text}");
            assert_eq!(tokens.expires_at, Some(now + TimeDelta::seconds(60)), "{text}");
        }
        for text in ["", "{}", r#"{"access_token":null,"refresh_token":null}"#, r#"{"access_token":"ory_at_1.-_a"}"#] {
            assert!(salvaged(text, now).is_none(), "{text}");
        }
    }
}
