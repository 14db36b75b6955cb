//! The bearer tokens that are known, with their names. Only the SHA-256 of each token is kept.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// No token is shorter, in characters.
pub const MIN_TOKEN: usize = 16;

/// The name of `http.api_token`.
const DEFAULT: &str = "default";

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything that shows data.
    Read,
    /// That, and everything that changes state.
    Operate,
    /// The access tokens of merchants, and nothing else.
    Token,
}

impl Scope {
    /// The word that the setting and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Token => "token",
        }
    }

    /// Whether this scope includes `needed`. `operate` includes `read`.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        self == needed || (self, needed) == (Self::Operate, Self::Read)
    }
}

/// A token, without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The name in the audit.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    digest: [u8; 32],
}

impl Token {
    /// Its SHA-256. Only the token's holder can compute it.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Every token that is known.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Token>);

/// Why `http.api_tokens` cannot be used. Names the entry by its number, and shows nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} {problem}")]
pub struct InvalidToken {
    entry: usize,
    problem: &'static str,
}

impl Tokens {
    /// Reads `http.api_token`, which has the scope `operate`, and `NAME:SCOPE:TOKEN[,NAME:SCOPE:TOKEN…]`. An empty text
    /// holds none.
    ///
    /// # Errors
    /// When an entry is not such, or repeats the name or the token of another.
    pub fn parse(single: &SecretString, named: &SecretString) -> Result<Self, InvalidToken> {
        let mut tokens = Vec::new();
        if !single.expose_secret().is_empty() {
            let digest = digest(single.expose_secret().as_bytes());
            tokens.push(Token { name: DEFAULT.to_owned(), scope: Scope::Operate, digest });
        }
        let named = named.expose_secret();
        let entries = named.split(',').filter(|_| !named.is_empty());
        for (number, text) in entries.enumerate() {
            let invalid = |problem| InvalidToken { entry: number + 1, problem };
            let token = entry(text.trim()).map_err(invalid)?;
            if tokens.iter().any(|other| other.name == token.name) {
                return Err(invalid("has the name of another token (http.api_token's is `default`)"));
            }
            if tokens.iter().any(|other| other.digest == token.digest) {
                return Err(invalid("has the token of another name"));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Whether no token is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Token> {
        self.0.iter().find(|token| token.name == name)
    }

    /// Finds the token. The time is constant: every token is compared to its last byte.
    #[must_use]
    pub fn find(&self, given: &[u8]) -> Option<&Token> {
        let given = digest(given);
        let mut place = u32::MAX;
        for (index, token) in (0u32..).zip(&self.0) {
            place.conditional_assign(&index, token.digest.ct_eq(&given));
        }
        self.0.get(usize::try_from(place).unwrap_or(usize::MAX))
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn entry(text: &str) -> Result<Token, &'static str> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(scope), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("is not NAME:SCOPE:TOKEN");
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(named) {
        return Err("has a name that is not 1 to 64 letters, digits, `-` and `_`");
    }
    let scope = match scope {
        "read" => Scope::Read,
        "operate" => Scope::Operate,
        "token" => Scope::Token,
        _ => return Err("has a scope that is not `read`, `operate` or `token`"),
    };
    if token.len() < MIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a token that is not at least 16 visible ASCII characters");
    }
    Ok(Token { name: name.to_owned(), scope, digest: digest(token.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(single: &str, named: &str) -> Result<Tokens, InvalidToken> {
        Tokens::parse(&SecretString::from(single), &SecretString::from(named))
    }

    #[test]
    fn each_token_has_its_name_and_scope() {
        let tokens = parse("s3cret", "grafana:read:0123456789abcdef,ci-1:operate:with:colon:abcdef").unwrap();
        for (given, name, scope) in [
            ("s3cret", "default", Scope::Operate),
            ("0123456789abcdef", "grafana", Scope::Read),
            ("with:colon:abcdef", "ci-1", Scope::Operate),
        ] {
            let token = tokens.find(given.as_bytes()).unwrap();
            assert_eq!((token.name.as_str(), token.scope), (name, scope));
        }
        for given in ["", "s3cre", "s3cret ", "grafana:read:0123456789abcdef", "0123456789abcdeF"] {
            assert_eq!(tokens.find(given.as_bytes()), None, "{given}");
        }
        assert!(parse("", "").unwrap().is_empty());
        assert_eq!(parse("", "").unwrap().find(b""), None);
    }

    #[test]
    fn errors_name_the_entry_and_quote_nothing() {
        let good = "a:read:0123456789abcdef";
        for (named, entry, words) in [
            ("canary", 1, "NAME:SCOPE:TOKEN"),
            ("a:read", 1, "NAME:SCOPE:TOKEN"),
            (":read:0123456789abcdef", 1, "name"),
            ("b c:read:0123456789abcdef", 1, "name"),
            ("b:write:0123456789abcdef", 1, "scope"),
            ("b:read:canary", 1, "16"),
            ("b:read:0123456789 abcdef", 1, "visible"),
            ("a:read:0123456789abcdef,", 2, "NAME:SCOPE:TOKEN"),
            ("a:read:0123456789abcdef,a:read:fedcba9876543210", 2, "name of another"),
            ("a:read:0123456789abcdef,b:read:0123456789abcdef", 2, "token of another"),
            ("default:read:0123456789abcdef", 1, "name of another"),
        ] {
            let said = parse("s3cret", named).unwrap_err().to_string();
            assert!(said.starts_with(&format!("entry {entry} ")) && said.contains(words), "{named}: {said}");
            assert!(!said.contains("canary") && !said.contains("0123456789"), "{said}");
        }
        assert!(parse("s3cret", good).is_ok());
    }
}
