//! Finds tokens in an answer of the token endpoint that is broken JSON. They cannot be asked for again.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::reconcile::ports::Tokens;

/// Words that stand for an absent value.
const ABSENT: [&str; 6] = ["null", "none", "undefined", "nan", "true", "false"];

/// The access token and the refresh token behind their names, in JSON that is broken, in quotes of any kind, or in a form.
pub fn salvaged(text: &str, now: DateTime<Utc>) -> Option<Tokens> {
    let read = |names: [&str; 2]| names.iter().find_map(|name| value(text, name));
    let token = |names| read(names).filter(|token| !ABSENT.contains(&token.to_lowercase().as_str()));
    let secret = |token: Zeroizing<String>| SecretString::from(token.as_str());
    let access = token(["access_token", "accessToken"])?;
    let refresh = token(["refresh_token", "refreshToken"])?;
    let seconds = read(["expires_in", "expiresIn"]).and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0);
    let expires_at = seconds.and_then(TimeDelta::try_seconds).and_then(|span| now.checked_add_signed(span));
    Tokens::new(secret(access), Some(secret(refresh)), expires_at).ok()
}

fn value(text: &str, name: &str) -> Option<Zeroizing<String>> {
    let (_, rest) = text.split_once(name)?;
    let is_form = rest.starts_with('=');
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ':' | '='));
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ',' | '}' | '&' | '<' | ';'));
    // A value of JSON without an end may be cut.
    let value = &rest[..end.or_else(|| is_form.then_some(rest.len()))?];
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
            r#"{"accessToken":"ory_at_1.-_a","refreshToken":"ory_rt_1.-_b","expiresIn":60}"#,
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
        let cut = r#"{"access_token":"ory_at_1.-_a","expires_in":60,"refresh_token":"ory_rt_1"#;
        assert!(salvaged(cut, now).is_none(), "a part of a token is not a token");
        let short = r#"{"access_token":"at","expires_in":60,"refresh_token":"rt",}"#;
        assert_eq!(salvaged(short, now).unwrap().refresh.unwrap().expose_secret(), "rt");
    }
}
