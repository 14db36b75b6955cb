//! The settings.
//!
//! Where they come from, in rising order: `config/default.toml` (compiled in), the file of the
//! environment `SALLA_RECONCILER_ENV`, the file of `--config`, and the variables
//! `SALLA_RECONCILER__SECTION__KEY`. Each adapter owns its section.

mod cdc;
mod database;
mod environment;
mod error;
mod layers;
mod modes;
mod secret_file;
mod secrets;
mod target;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroizing;

pub use error::ConfigError;
pub use layers::{DEFAULTS, keys, variable};

use crate::{domain::Setting, http, outbox, reconcile, salla, schedule, store, telemetry, vault};

/// All settings. `config/default.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Config {
    pub database: store::Config,
    pub salla: salla::Config,
    pub schedule: schedule::Config,
    pub reconcile: reconcile::Config,
    pub http: http::Config,
    pub vault: vault::Config,
    pub privacy: salla::PrivacyConfig,
    pub shutdown: Shutdown,
    pub cdc: outbox::Config,
    pub telemetry: telemetry::Config,
    pub retention: Retention,
    pub target: store::TargetConfig,
    #[serde(skip)]
    pub files_with_secrets: Vec<(&'static str, PathBuf)>,
}

/// The section `shutdown`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Shutdown {
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
}

/// The section `retention`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key")]
pub struct Retention {
    #[serde(deserialize_with = "duration")]
    pub runs: Duration,
}

impl Config {
    /// Loads and checks the settings.
    ///
    /// # Errors
    /// One line that names the key, where its value came from, and the fix.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut layers = layers::Layers::read(file)?;
        let mut config: Self = layers.deserialize()?;
        config.read_secrets(&mut layers)?;
        config.check().map_err(|(key, problem, fix)| layers.error(key, &problem, fix))?;
        Ok(config)
    }

    /// The defaults without the environment.
    ///
    /// # Errors
    /// Never: a test loads them.
    pub fn defaults() -> Result<Self, ConfigError> {
        layers::Layers::defaults()?.deserialize()
    }

    /// Checks the rules that the types do not express.
    fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        for (key, url) in [("salla.api_url", &self.salla.api_url), ("salla.token_url", &self.salla.token_url)] {
            if names_somebody(url) {
                let problem = "contains a user name or a password, which is not used".to_owned();
                return Err((key, problem, "remove the part before the @"));
            }
            if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(url)) {
                return Err((
                    key,
                    "would send tokens over a connection that is not encrypted".to_owned(),
                    "use https; plain http is accepted for loopback addresses only",
                ));
            }
        }
        check_proxy(self.salla.proxy.expose_secret())?;
        let url = self.database.url.expose_secret();
        database::check(url, &self.database.schema)?;
        if !(self.salla.limit_share > 0.0 && self.salla.limit_share <= 1.0) {
            let problem = "is out of range".to_owned();
            return Err(("salla.limit_share", problem, "use a number above 0, up to 1"));
        }
        if self.reconcile.resources.is_empty() {
            let fix = "write at least one, such as orders";
            return Err(("reconcile.resources", "names nothing".to_owned(), fix));
        }
        let share = self.reconcile.max_deletion_ratio;
        if !(0.0..=1.0).contains(&share) {
            return Err(("reconcile.max_deletion_ratio", "is out of range".to_owned(), "use a number from 0 to 1"));
        }
        self.check_traces()?;
        cdc::check(&self.cdc, url)?;
        target::names(&self.target, url, self.privacy.customer_fields)?;
        self.check_secrets()?;
        for (key, number) in [
            ("salla.max_attempts", self.salla.max_attempts),
            ("salla.requests_per_minute", self.salla.requests_per_minute),
            ("http.requests_per_second", self.http.requests_per_second),
            ("salla.max_requests_per_minute", self.salla.max_requests_per_minute),
            ("salla.customer_requests_per_10_minutes", self.salla.customer_requests_per_10_minutes),
            ("reconcile.concurrency", self.reconcile.concurrency),
            ("reconcile.page_size", self.reconcile.page_size),
        ] {
            if number == 0 {
                return Err((key, "is 0, so that nothing would be done".to_owned(), "use 1 or more"));
            }
        }
        for (key, span) in
            [("salla.request_timeout", self.salla.request_timeout), ("reconcile.lease", self.reconcile.lease)]
        {
            if span < Duration::from_secs(1) {
                return Err((key, "is shorter than a second".to_owned(), "use 1s or more"));
            }
        }
        Ok(())
    }

    fn check_secrets(&self) -> Result<(), (&'static str, String, &'static str)> {
        if self.privacy.has_weak_key() {
            let is_set = !self.privacy.pseudonym_key.expose_secret().is_empty();
            let problem =
                if is_set { "is too short: pseudonyms could be guessed" } else { "is not set, and pseudonyms need it" };
            let problem = problem.to_owned();
            let fix = "set at least 32 random characters: openssl rand -base64 32";
            return Err(("privacy.pseudonym_key", problem, fix));
        }
        if let Some(problem) = self.vault.problem() {
            return Err(problem);
        }
        if !self.http.api_token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "contains a character that a header cannot carry, such as a space or a newline".to_owned();
            return Err(("http.api_token", problem, "use visible ASCII characters only"));
        }
        let token = self.http.api_token.expose_secret();
        if !token.is_empty() && token.len() < http::MIN_TOKEN {
            let problem = format!("has fewer than {} characters", http::MIN_TOKEN);
            return Err(("http.api_token", problem, "use at least 16 visible ASCII characters: openssl rand -hex 32"));
        }
        if let Err(error) = http::TrustedProxies::parse(&self.http.trusted_proxies) {
            let fix = "use addresses or networks such as 10.0.0.0/8, separated by commas";
            return Err(("http.trusted_proxies", error.to_string(), fix));
        }
        http::Tokens::parse(&self.http.api_token, &self.http.api_tokens)
            .map(|_| ())
            .map_err(|error| ("http.api_tokens", error.to_string(), "use NAME:SCOPE:TOKEN[,NAME:SCOPE:TOKEN…]"))
    }

    fn check_traces(&self) -> Result<(), (&'static str, String, &'static str)> {
        let traces = self.telemetry.otlp_endpoint.expose_secret();
        let traces_url = url::Url::parse(traces).ok().filter(url::Url::has_host);
        if traces_url.as_ref().is_some_and(names_somebody) {
            return Err((
                "telemetry.otlp_endpoint",
                "contains a user name or a password, which the exporter would log and not use".to_owned(),
                "set OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20…",
            ));
        }
        if !traces.is_empty() && traces_url.is_none() {
            return Err((
                "telemetry.otlp_endpoint",
                "is not an address".to_owned(),
                "write it like http://localhost:4318, or remove it",
            ));
        }
        Ok(())
    }
}

/// Never show the value: it may hold a password.
fn check_proxy(proxy: &str) -> Result<(), (&'static str, String, &'static str)> {
    let known = ["http", "https", "socks5", "socks5h"];
    let is_proxy = |url: url::Url| known.contains(&url.scheme()) && url.has_host();
    if proxy.is_empty() || url::Url::parse(proxy).is_ok_and(is_proxy) {
        return Ok(());
    }
    let fix = "write it like http://user:password@host:3128 or socks5://host:1080, or remove it";
    Err(("salla.proxy", "is not the address of a proxy".to_owned(), fix))
}

/// Whether there is a user or a password in it.
fn names_somebody(url: &url::Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Reads `30s`, `24h`, `90d`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let span = humantime::parse_duration(&String::deserialize(input)?).ok();
    span.filter(|span| *span <= Duration::from_secs(3650 * 86400))
        .ok_or_else(|| D::Error::custom("must be a duration such as 30s, 24h or 90d, up to ten years"))
}

/// Reads what a text can be parsed to. Its own error may quote the text, which may be a secret under a wrong name.
pub(crate) fn parsed<'de, D: Deserializer<'de>, T: Setting>(input: D) -> Result<T, D::Error> {
    String::deserialize(input)?.parse().map_err(|_| D::Error::custom(format!("must be {}", T::takes())))
}

/// Reads a text without the white space around it: a secret from a file often ends with a new line.
pub(crate) fn trimmed<'de, D: Deserializer<'de>, T: From<String>>(input: D) -> Result<T, D::Error> {
    let text = Zeroizing::new(String::deserialize(input)?);
    Ok(T::from(secret_file::trimmed(&text).to_owned()))
}

impl Setting for SocketAddr {
    fn takes() -> String {
        "an address and a port, such as 127.0.0.1:8080".to_owned()
    }
}

impl Setting for url::Url {
    fn takes() -> String {
        "an address, such as https://api.salla.dev/admin".to_owned()
    }
}

impl Setting for chrono_tz::Tz {
    fn takes() -> String {
        "an IANA time zone, such as Asia/Riyadh".to_owned()
    }
}
