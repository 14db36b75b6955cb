//! Where connections go: to Salla, and nowhere else.

use std::time::Duration;

use http::{HeaderValue, header};
use reqwest::{Proxy, redirect::Policy};
use secrecy::ExposeSecret;

use crate::salla::config::Config;

/// The client that connects to Salla. It connects only to the hosts of the two addresses, and
/// through the proxy if one is set. Answers and environment variables do not change that.
///
/// # Errors
/// When the TLS of this machine cannot be set up, or the proxy's address cannot be used.
pub fn plain_client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    builder(config)?.build()
}

/// The same without idle connections. A server may close an idle connection at any time, also while
/// the next request is on its way. For a refresh token, the outcome would then be unknown.
///
/// # Errors
/// As [`plain_client`].
pub fn token_client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    builder(config)?.pool_max_idle_per_host(0).build()
}

fn builder(config: &Config) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    let mut headers = http::HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    // Salla names things in this language; another one would make every row look changed.
    headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static("ar"));
    let client = reqwest::Client::builder()
        .user_agent(concat!("salla-reconciler/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(Policy::none())
        .https_only([&config.api_url, &config.token_url].iter().all(|url| url.scheme() == "https"))
        .no_proxy()
        .gzip(true)
        .connect_timeout(config.request_timeout.min(Duration::from_secs(5)))
        .timeout(config.request_timeout);
    match config.proxy.expose_secret() {
        "" => Ok(client),
        proxy => Ok(client.proxy(Proxy::all(proxy)?)),
    }
}
