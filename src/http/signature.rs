//! Checks whether a webhook comes from Salla. The sender must prove that it knows the secret of the
//! app. The Partners Portal offers two ways, a signature and a token. A signature covers the exact
//! bytes of the body. Every comparison takes the same time, however much of it fits.

use axum::http::{HeaderMap, header};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const STRATEGY: &str = "x-salla-security-strategy";
const SIGNATURE: &str = "x-salla-signature";

/// The secret that Salla and this program share.
#[derive(Debug, Clone)]
pub struct WebhookSecret(Option<SecretString>);

/// What a request proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It knows the secret.
    Given,
    /// It does not.
    Wrong,
    /// No secret is configured.
    NoSecret,
}

impl WebhookSecret {
    /// The first of these that is set.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        Self(secrets.into_iter().find(|secret| !secret.expose_secret().is_empty()).cloned())
    }

    /// Looks at what a request brings.
    #[must_use]
    pub fn check(&self, headers: &HeaderMap, body: &[u8]) -> Proof {
        let Some(secret) = &self.0 else {
            return Proof::NoSecret;
        };
        let secret = secret.expose_secret().as_bytes();
        let strategy = headers.get(STRATEGY).map(|value| value.as_bytes().to_ascii_lowercase());
        let given = match (strategy.as_deref(), headers.get(SIGNATURE), headers.get(header::AUTHORIZATION)) {
            (Some(b"signature") | None, Some(signature), _) => signed(secret, signature.as_bytes(), body),
            (Some(b"token") | None, _, Some(token)) => same(secret, token.as_bytes()),
            _ => false,
        };
        if given { Proof::Given } else { Proof::Wrong }
    }
}

/// Hex, in either case, of the HMAC-SHA256 of the body.
fn signed(secret: &[u8], signature: &[u8], body: &[u8]) -> bool {
    let Ok(signature) = hex::decode(signature) else {
        return false;
    };
    // A key of any length will do.
    Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(body).verify_slice(&signature).is_ok())
}

/// The secret itself, with or without `Bearer`.
fn same(secret: &[u8], authorization: &[u8]) -> bool {
    let bearer = authorization.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let token = bearer.map_or(authorization, |(_, token)| token);
    Sha256::digest(token).ct_eq(&Sha256::digest(secret)).into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(headers: &[(&'static str, &str)], body: &str) -> Proof {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        WebhookSecret::new([&SecretString::default(), &"key".into()]).check(&map, body.as_bytes())
    }

    #[test]
    fn a_known_signature() {
        // The example of Wikipedia's article on HMAC.
        let body = "The quick brown fox jumps over the lazy dog";
        let signature = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        assert_eq!(check(&[(SIGNATURE, signature)], body), Proof::Given);
        assert_eq!(check(&[(SIGNATURE, &signature.to_uppercase()), (STRATEGY, "Signature")], body), Proof::Given);
        assert_eq!(check(&[(SIGNATURE, signature), (STRATEGY, "Token")], body), Proof::Wrong);
        assert_eq!(check(&[(SIGNATURE, signature), ("authorization", "key")], "another body"), Proof::Wrong);
        for wrong in ["", "f7bc", &format!("{signature}00"), &signature[1..]] {
            assert_eq!(check(&[(SIGNATURE, wrong)], body), Proof::Wrong, "{wrong}");
        }
    }

    #[test]
    fn the_secret_itself() {
        for (value, proof) in [
            ("key", Proof::Given),
            ("Bearer key", Proof::Given),
            ("bearer key", Proof::Given),
            ("Basic key", Proof::Wrong),
            ("ke", Proof::Wrong),
            ("keys", Proof::Wrong),
            ("Bearer ", Proof::Wrong),
            ("", Proof::Wrong),
        ] {
            assert_eq!(check(&[("authorization", value)], "x"), proof, "{value}");
            assert_eq!(check(&[("authorization", value), (STRATEGY, "token")], "x"), proof, "{value}");
            for strategy in ["Signature", "none", ""] {
                assert_eq!(check(&[("authorization", value), (STRATEGY, strategy)], "x"), Proof::Wrong, "{strategy}");
            }
        }
        assert_eq!(check(&[], "x"), Proof::Wrong);
    }

    #[test]
    fn an_empty_secret_opens_nothing() {
        let none = WebhookSecret::new([&SecretString::default()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(""));
        assert_eq!(none.check(&headers, b""), Proof::NoSecret);
    }
}
