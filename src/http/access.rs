//! The access control of the API. Callers need a token with the required scope. Without a configured token, only
//! programs of this machine may see data and change state.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use chrono::Utc;

use super::{
    Api, Config,
    limits::{self, Failures},
    problem::Problem,
    proxies::TrustedProxies,
    session::{self, Cookie},
    tokens::{Scope, Token, Tokens},
};
use crate::reconcile::ports::{Actor, RunStore};

/// Whom a guarded request comes from, as an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub Actor);

/// The rule, and who has lately broken it.
#[derive(Debug)]
pub struct Access {
    rule: Rule,
    failures: Failures,
    proxies: TrustedProxies,
}

#[derive(Debug, Clone)]
enum Rule {
    /// Bearers of these.
    Tokens(Tokens),
    /// No token is set, and only this machine can connect.
    Open,
    /// No token is set, and anybody might connect.
    Closed,
}

impl Access {
    /// The rule for a listener on `address`.
    ///
    /// # Errors
    /// When `http.api_tokens` or `http.trusted_proxies` cannot be used.
    pub fn new(config: &Config, address: IpAddr) -> anyhow::Result<Self> {
        let tokens = Tokens::parse(&config.api_token, &config.api_tokens)?;
        let rule = if !tokens.is_empty() {
            Rule::Tokens(tokens)
        } else if address.is_loopback() {
            Rule::Open
        } else {
            Rule::Closed
        };
        let proxies = TrustedProxies::parse(&config.trusted_proxies)?;
        Ok(Self { rule, failures: Failures::default(), proxies })
    }

    /// Whether no caller can see or change anything.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.rule, Rule::Closed)
    }

    /// The tokens, if any is set.
    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        match &self.rule {
            Rule::Tokens(tokens) => Some(tokens),
            Rule::Open | Rule::Closed => None,
        }
    }

    /// The proxies in front of this program.
    pub(crate) fn proxies(&self) -> &TrustedProxies {
        &self.proxies
    }

    /// The token that was given, if it is one. It is compared before the wrong ones of an address are counted, so that a right
    /// one passes whatever others of the address send.
    pub(crate) fn find(&self, given: &[u8], address: IpAddr) -> Result<Option<&Token>, Problem> {
        if let Some(token) = self.tokens().and_then(|tokens| tokens.find(given)) {
            return Ok(Some(token));
        }
        self.failed(address).map(|()| None)
    }

    /// Counts a wrong token or session of an address; an error once it has sent too many.
    pub(crate) fn failed(&self, address: IpAddr) -> Result<(), Problem> {
        let too_many = |wait| limits::too_many("this address has sent too many wrong tokens", wait);
        self.failures.count(address).map_err(too_many)
    }

    /// Whether a request comes with a token or a session that is right. Counts nothing.
    pub(crate) fn recognizes(&self, headers: &HeaderMap) -> bool {
        match &self.rule {
            Rule::Open => is_of_this_machine(headers),
            Rule::Closed => false,
            Rule::Tokens(tokens) => match bearer(headers) {
                Some(given) => tokens.find(given).is_some(),
                None => matches!(session::of_request(tokens, headers, Utc::now()), Cookie::Valid(_)),
            },
        }
    }

    /// Whom a request comes from, and what they may do, which is enough for its method.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap, address: IpAddr) -> Result<Granted, AccessDenied> {
        self.check_scope(scope(method), headers, address)
    }

    /// Returns the caller and its scope, or a refusal if the scope does not include `needed`.
    fn check_scope(&self, needed: Scope, headers: &HeaderMap, address: IpAddr) -> Result<Granted, AccessDenied> {
        match &self.rule {
            Rule::Open | Rule::Closed if needed == Scope::Token => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "tokens of merchants need a bearer token with the scope `token`: set one in http.api_tokens",
            )
            .into()),
            Rule::Open if is_of_this_machine(headers) => Ok(Granted { actor: Actor::Local, scope: Scope::Operate }),
            Rule::Open => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "no API token is configured: only direct requests to localhost are accepted; set http.api_tokens, or use \
                 http://localhost",
            )
            .into()),
            Rule::Closed => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "no API token is configured, and the listener is not on loopback: set http.api_tokens",
            )
            .into()),
            Rule::Tokens(_) => {
                // A request without a token is not a guess.
                let given = bearer(headers).ok_or(AccessDenied::NoToken)?;
                let token = self.find(given, address)?.ok_or_else(unauthorized)?;
                if !token.scope.allows(needed) {
                    let detail = format!("the token {:?} lacks the scope `{}`", token.name, needed.as_str());
                    return Err(Problem::new(StatusCode::FORBIDDEN, detail).with("scope", needed.as_str()).into());
                }
                Ok(Granted { actor: Actor::Token(token.name.clone()), scope: token.scope })
            }
        }
    }
}

/// Whom a request comes from, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub actor: Actor,
    pub scope: Scope,
}

/// Why a request is not let pass.
#[derive(Debug)]
pub(crate) enum AccessDenied {
    /// A token is needed, and none was sent.
    NoToken,
    /// In words.
    Problem(Problem),
}

impl From<Problem> for AccessDenied {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<AccessDenied> for Problem {
    fn from(refused: AccessDenied) -> Self {
        match refused {
            AccessDenied::NoToken => unauthorized(),
            AccessDenied::Problem(problem) => problem,
        }
    }
}

fn unauthorized() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "send a bearer token of http.api_token or http.api_tokens")
}

/// Safe methods show, and every other may change something (RFC 9110, 9.2.1).
fn scope(method: &Method) -> Scope {
    if method.is_safe() { Scope::Read } else { Scope::Operate }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// The headers that proxies add. Behind a proxy, everyone can reach a loopback listener.
const FORWARDED: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Whether a request comes from this machine. A page of another site reaches a loopback listener
/// through the browser of its visitor. It uses a host name of the site that points to this machine,
/// or an `Origin` of the site.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    // A page of another port of this machine belongs to another site.
    if sites(headers).any(|site| site != "same-origin" && site != "none") {
        return false;
    }
    let Some(host) = host(headers).filter(|host| is_loopback(host.host())) else {
        return false;
    };
    headers.get_all(header::ORIGIN).iter().all(|origin| is_origin_of(origin, &host))
}

/// Whether a browser says that a form was sent from a page of this very address.
pub(crate) fn is_same_site(headers: &HeaderMap) -> bool {
    let Some(host) = host(headers) else {
        return false;
    };
    if sites(headers).next().is_some() {
        return sites(headers).all(|site| site == "same-origin");
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => is_origin_of(origin, &host),
        _ => false,
    }
}

/// Where a browser says that a request comes from.
fn sites(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    headers.get_all("sec-fetch-site").iter()
}

/// The host that a request names; `None` if it names two hosts, or a user.
fn host(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    host.to_str().ok()?.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'))
}

/// Answers a request that names two hosts or a user, or another host in its first line than in its header (RFC 9112, 3.2).
pub async fn require_one_host(request: Request, next: Next) -> Response {
    let named = request.headers().contains_key(header::HOST);
    let host = host(request.headers());
    let differs = request.uri().authority().is_some_and(|uri| Some(uri) != host.as_ref());
    if named && host.is_none() || differs {
        return Problem::new(StatusCode::BAD_REQUEST, "the request must name one host").into_response();
    }
    next.run(request).await
}

fn is_origin_of(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host.as_str()))
}

fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(name == "localhost" || name.ends_with(".localhost"), |address| address.is_loopback())
}

/// Lets a request pass, with its [`Caller`], or answers it.
pub async fn require<L: RunStore>(State(api): State<Arc<Api<L>>>, request: Request, next: Next) -> Response {
    let needed = scope(request.method());
    require_scope(&api.access, needed, request, next).await
}

/// Lets a request for the token of a merchant pass, if the caller has the scope `token`.
pub async fn require_token_scope<L: RunStore>(
    State(api): State<Arc<Api<L>>>,
    request: Request,
    next: Next,
) -> Response {
    require_scope(&api.access, Scope::Token, request, next).await
}

async fn require_scope(access: &Access, needed: Scope, mut request: Request, next: Next) -> Response {
    let address = limits::caller_address(&request);
    match access.check_scope(needed, request.headers(), address) {
        Ok(granted) => {
            request.extensions_mut().insert(Caller(granted.actor));
            next.run(request).await
        }
        Err(refused) => Problem::from(refused).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "reader-0123456789";

    /// The status of the refusal, if it is one.
    fn check(token: &str, address: [u8; 4], method: &Method, headers: &[(&str, &str)]) -> Option<u16> {
        let named = if token.is_empty() { String::new() } else { format!("reader:read:{READER}") };
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            api_token: token.into(),
            api_tokens: named.into(),
            api_token_file: "".into(),
            api_tokens_file: "".into(),
            requests_per_second: 1,
            trusted_proxies: String::new(),
        };
        let access = Access::new(&config, address.into()).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let refused = access.check(method, &headers, address.into()).err()?;
        Some(Problem::from(refused).into_response().status().as_u16())
    }

    #[test]
    fn scopes_limit_tokens() {
        let check = |method: Method, header: &str| {
            check("s3cret", [0, 0, 0, 0], &method, &[("authorization", header), ("host", "reconciler.example")])
        };
        assert_eq!(check(Method::GET, "Bearer s3cret"), None);
        assert_eq!(check(Method::POST, "bearer s3cret"), None);
        assert_eq!(check(Method::GET, &format!("Bearer {READER}")), None);
        assert_eq!(check(Method::HEAD, &format!("Bearer {READER}")), None);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(check(method, &format!("Bearer {READER}")), Some(403));
        }
        for header in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret ", "Basic s3cret"] {
            assert_eq!(check(Method::GET, header), Some(401), "{header:?}");
        }
    }

    #[test]
    fn without_tokens_only_this_machine_is_answered() {
        let local = [127, 0, 0, 1];
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "a.localhost."] {
            assert_eq!(check("", local, &Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1:8080", "0.0.0.0", "[::2]", "", "a b"] {
            assert_eq!(check("", local, &Method::GET, &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(check("", local, &Method::GET, &[]), Some(403));
        for (origin, refused) in [
            ("http://localhost:8080", None),
            ("https://localhost:8080", None),
            ("http://localhost:3000", Some(403)),
            ("http://example.com", Some(403)),
            ("null", Some(403)),
        ] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(check("", local, &Method::POST, &headers), refused, "{origin}");
        }
        assert_eq!(check("", [0, 0, 0, 0], &Method::GET, &[("host", "localhost")]), Some(403));
    }
}
