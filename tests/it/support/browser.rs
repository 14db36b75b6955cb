//! A real Chromium, driven by its own driver.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;

use super::{child_process::Companion, cluster::free_port};

/// The driver, and a separate browser.
pub struct Browser {
    pub page: Client,
    _driver: Companion,
    _profile: TempDir,
}

/// High enough for most pages.
const HEIGHT: u32 = 1800;

/// How the page is to look.
#[derive(Debug, Clone, Copy)]
pub enum Theme {
    Light,
    Dark,
}

impl Browser {
    /// One whose window is so wide, of a person who likes `theme`.
    pub async fn open(width: u32, theme: Theme) -> Self {
        let port = free_port();
        let driver = Companion::start("chromedriver", &[format!("--port={port}")]);
        let profile = tempfile::tempdir().unwrap();
        fs::set_permissions(profile.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let preferred = match theme {
            Theme::Dark => 0,
            Theme::Light => 1,
        };
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            // It reaches this machine, and nothing else.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".to_owned(),
            format!("--blink-settings=preferredColorScheme={preferred}"),
            format!("--window-size={width},{HEIGHT}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        // A window is not narrower than 500: a phone is made by its own measures.
        let phone =
            (width < 500).then(|| json!({"deviceMetrics": {"width": width, "height": HEIGHT, "pixelRatio": 2.0}}));
        let mut options = json!({"args": args});
        if let Some(phone) = phone {
            options["mobileEmulation"] = phone;
        }
        let wanted = json!({"goog:chromeOptions": options});
        let address = format!("http://127.0.0.1:{port}");
        let mut tries = 0;
        loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder.capabilities(wanted.as_object().unwrap().clone()).connect(&address).await {
                Ok(page) => return Self { page, _driver: driver, _profile: profile },
                Err(error) if tries == 100 => panic!("no session with chromedriver: {error}"),
                // It has not opened its port yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            tries += 1;
        }
    }

    /// What a script in the page gives.
    pub async fn run(&self, script: &str) -> serde_json::Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    pub async fn close(self) {
        self.page.close().await.unwrap();
    }
}
