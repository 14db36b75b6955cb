//! The demo, as a newcomer sees it.

use std::{fs, path::Path, process::Stdio, time::Duration};

use fantoccini::Locator;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::support::{
    browser::{Browser, Theme},
    canary::Watch,
};

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
    command.arg("demo").args(args).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_demo_corrects_and_checks_itself() {
    let mut command = demo(&["--once", "--orders", "100"]);
    let output = command.env("RUST_LOG", "trace").output().await.unwrap();
    let watch = Watch::new();
    watch.search("stdout", &output.stdout);
    watch.search("stderr", &output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    for words in [
        "1001 a deleted order     succeeded",
        "1002 no filter by change succeeded",
        "1003 answers 429         succeeded",
        "1004 token expired       succeeded",
        "1005 a broken order      partial",
        "1006 refuses the tokens  failed",
        "Marked as deleted: order",
        "status: ",
        "Checked: for each merchant whose tokens Salla accepts, all readable orders are now the same as in Salla.",
    ] {
        assert!(stdout.contains(words), "{words}: {stdout}");
    }
}

/// Without an API token, the dashboard answers on this machine only.
#[tokio::test]
async fn addresses_of_other_machines_are_refused() {
    let output = demo(&["--listen", "0.0.0.0:0"]).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("the demo has no API token"), "{stderr}");
}

#[tokio::test]
async fn each_listing_corrects_what_was_lost() {
    for listing in ["filter", "sort", "scan"] {
        let args = ["--once", "--merchants", "2", "--orders", "30", "--listing", listing];
        let output = demo(&args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{listing}: {output:?}");
    }
}

/// What the demo prints, without what depends on the time.
async fn corrections(seed: &str) -> String {
    let output = demo(&["--once", "--merchants", "1", "--orders", "60", "--seed", seed]).output().await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().filter(|line| line.starts_with("Corrected")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_seed_decides_what_was_lost() {
    let one = corrections("1").await;
    assert!(!one.is_empty());
    assert_eq!(one, corrections("1").await);
    assert_ne!(one, corrections("2").await);
}

#[tokio::test]
async fn the_demo_shows_a_newcomer_no_log_lines() {
    let output = demo(&["--once", "--orders", "50"]).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.contains("timestamp")), (Some(0), false), "{stderr}");
}

/// Starts a demo that serves, and returns its address.
async fn serving(args: &[&str]) -> (Child, String) {
    let mut child = demo(args).args(["--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the demo ended");
        if let Some(url) = line.trim().strip_suffix("/metrics") {
            let url = url.to_owned();
            // A pipe that is full or closed would stop the demo.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (child, url);
        }
    }
}

async fn interrupt(mut child: Child) {
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

/// The overview has thirty sweeps and two merchants that need attention; a run shows values before and after. With `UPDATE_DOCS`,
/// the pictures of the tutorial are taken.
#[tokio::test]
async fn the_demo_in_a_browser() {
    let (child, url) = serving(&[]).await;
    let browser = Browser::open(1280, Theme::Light).await;
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let runs: Value =
        client.get(format!("{url}/runs?merchant_id=1001&limit=1")).send().await.unwrap().json().await.unwrap();
    let run = format!("/dashboard/runs/{}", runs["runs"][0]["run_id"].as_str().unwrap());
    for (path, picture, texts) in [
        ("/", "demo.png", ["2 merchants need attention", "Last 30 sweeps"]),
        (run.as_str(), "demo-run.png", ["Discrepancies", "→"]),
    ] {
        browser.page.goto(&format!("{url}{path}")).await.unwrap();
        let page = browser.page.find(Locator::Css("body")).await.unwrap().text().await.unwrap();
        for text in texts {
            assert!(page.contains(text), "{path}: no {text:?} in {page}");
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(images.join(picture), browser.page.screenshot().await.unwrap()).unwrap();
        }
    }
    interrupt(child).await;
}

#[tokio::test]
async fn the_demo_serves_until_ctrl_c() {
    let (child, url) = serving(&["--merchants", "1", "--orders", "50"]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut served = false;
    for _ in 0..100 {
        served = client.get(format!("{url}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200);
        if served {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(served);
    let posted = client.post(format!("{url}/runs")).body(r#"{"merchant_id":1001}"#).send().await.unwrap();
    assert_eq!(posted.status(), 202);
    interrupt(child).await;
}
