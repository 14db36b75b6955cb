//! The demo, as a newcomer sees it.

use std::{process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::canary::Watch;

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
    command.arg("demo").args(args).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_demo_corrects_and_checks_itself() {
    let mut command = demo(&["--once", "--merchants", "3", "--orders", "200"]);
    let output = command.env("RUST_LOG", "trace").output().await.unwrap();
    let watch = Watch::new();
    watch.search("stdout", &output.stdout);
    watch.search("stderr", &output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    for words in ["1001", "1003", "succeeded", "Checked: every order of every merchant is now the same as in Salla."] {
        assert!(stdout.contains(words), "{stdout}");
    }
}

#[tokio::test]
async fn the_demo_shows_a_newcomer_no_log_lines() {
    let output = demo(&["--once", "--merchants", "2", "--orders", "50"]).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.contains("timestamp")), (Some(0), false), "{stderr}");
}

#[tokio::test]
async fn the_demo_serves_until_ctrl_c() {
    let mut child = demo(&["--merchants", "1", "--orders", "50", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("the demo ended");
        if let Some(url) = line.trim().strip_suffix("/metrics") {
            break url.to_owned();
        }
    };
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
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
