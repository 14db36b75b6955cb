//! `healthcheck`: asks a running daemon how it is.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, bail};

use super::Exit;
use crate::config::Config;

/// Exit code 0 when the daemon answers that it makes progress.
pub async fn healthcheck(config: &Config) -> anyhow::Result<Exit> {
    let mut address = config.http.listen;
    if address.ip().is_unspecified() {
        // A daemon that listens everywhere listens here.
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    if address.port() == 0 {
        bail!("http.listen has port 0, so the daemon's port is unknown; set a port");
    }
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let answer = client
        .get(format!("http://{address}/healthz"))
        .send()
        .await
        .with_context(|| format!("no daemon answers at {address} (http.listen)"))?;
    if !answer.status().is_success() {
        bail!("the daemon at {address} answers {}", answer.status());
    }
    say!("ok");
    Ok(Exit::Success)
}
