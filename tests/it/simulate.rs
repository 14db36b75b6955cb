//! Only the simulated Salla: stores that sell, webhooks of which some are lost, and a real daemon that corrects it.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use axum::{Router, extract::State, http::HeaderMap, routing::post};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{
    onboarding::signature,
    support::{Engine, Site, cluster::free_port, until},
};

on_every_database!(lost_webhooks_are_corrected, stores_register_themselves);

const SECRET: &str = "simulated-secret";

/// A running `simulate`.
struct Simulation {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    settings: BTreeMap<String, String>,
    url: String,
}

impl Simulation {
    async fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.arg("simulate").args(args).env_clear().stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut settings, mut url) = (BTreeMap::new(), None);
        while url.is_none() {
            let line = lines.next_line().await.unwrap().expect("the simulation ended");
            if let Some((key, value)) =
                line.strip_prefix("export SALLA_RECONCILER__").and_then(|set| set.split_once('='))
            {
                settings.insert(key.to_owned(), value.to_owned());
            }
            url = line
                .strip_prefix("curl -fsS ")
                .and_then(|rest| rest.split_once("/merchants.jsonl"))
                .map(|(url, _)| url.to_owned());
        }
        Self { child, lines, settings, url: url.unwrap() }
    }

    async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        answer.text().await.unwrap()
    }

    /// The orders of a store by id, as its API lists them.
    async fn orders(&self, merchant: i64) -> BTreeMap<i64, Value> {
        let lines = self.get("/merchants.jsonl").await;
        let shop = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let token = shop.into_iter().find(|shop| shop["merchant_id"] == merchant).unwrap()["access_token"].clone();
        let mut orders = BTreeMap::new();
        for page in 1.. {
            let request = reqwest::Client::new().get(format!("{}/admin/v2/orders?page={page}&per_page=60", self.url));
            let answer: Value =
                request.bearer_auth(token.as_str().unwrap()).send().await.unwrap().json().await.unwrap();
            let rows = answer["data"].as_array().unwrap();
            // Some ids are strings.
            let id = |row: &Value| row["id"].to_string().trim_matches('"').parse::<i64>().unwrap();
            orders.extend(rows.iter().map(|row| (id(row), row.clone())));
            if page >= answer["pagination"]["totalPages"].as_i64().unwrap() {
                break;
            }
        }
        orders
    }

    /// Ends it by Ctrl-C, and returns the rest of the output.
    async fn end(mut self) -> Vec<String> {
        kill(Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
        let mut rest = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest.push(line);
        }
        assert_eq!(self.child.wait().await.unwrap().code(), Some(0));
        rest
    }
}

/// A consumer of webhooks: it checks the signature, and hands the bodies on.
async fn consumer() -> (String, UnboundedReceiver<Value>) {
    async fn receive(State(bodies): State<UnboundedSender<Value>>, headers: HeaderMap, body: String) {
        assert_eq!(headers["x-salla-signature"], signature(SECRET, &body), "{body}");
        bodies.send(serde_json::from_str(&body).unwrap()).unwrap();
    }
    let (sender, bodies) = unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(
        async move { axum::serve(listener, Router::new().route("/", post(receive)).with_state(sender)).await },
    );
    (address, bodies)
}

async fn lost_webhooks_are_corrected(engine: Engine) {
    let (address, mut bodies) = consumer().await;
    let args = ["--listen", "127.0.0.1:0", "--stores", "2", "--orders", "30", "--every", "100ms", "--seed", "7"];
    let simulation = Simulation::start(&[&args[..], &["--webhooks", &address, "--lose", "30%"]].concat()).await;
    let mut site = Site::unregistered(engine, []).await;
    for (key, value) in &simulation.settings {
        site.set(key, value);
    }
    site.import(&simulation.get("/merchants.jsonl").await).await.exits(0);
    site.run(&["run", "--full"]).await.exits(0);
    let mut events = BTreeMap::<String, u64>::new();
    while events.values().sum::<u64>() < 60 {
        let body = bodies.recv().await.unwrap();
        assert!([1001, 1002].contains(&body["merchant"].as_i64().unwrap()), "{body}");
        *events.entry(body["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(events["app.store.authorize"], 2);
    assert!(events["order.created"] > 5 && events["order.updated"] > 5, "{events:?}");

    // An order that is the same before and after the run must stand in the database.
    let before = simulation.orders(1001).await;
    site.run(&["run"]).await.exits(0);
    let after = simulation.orders(1001).await;
    let rows = site
        .database
        .rows("SELECT salla_order_id, status FROM orders WHERE merchant_id = 1001 AND deleted_at IS NULL")
        .await;
    let stored: BTreeMap<i64, String> = rows
        .iter()
        .map(|row| (row.try_get("", "salla_order_id").unwrap(), row.try_get("", "status").unwrap()))
        .collect();
    let settled: Vec<_> = before.iter().filter(|(id, order)| after.get(id) == Some(order)).collect();
    assert!(settled.len() > 20, "{} of {}", settled.len(), before.len());
    for (id, order) in settled {
        assert_eq!(stored.get(id).map(String::as_str), order["status"]["slug"].as_str(), "order {id}");
    }
    let drift = site.run(&["report", "--json"]).await.exits(0).objects();
    assert!(
        drift.iter().all(|drift| drift["missing"].as_u64() > Some(0) && drift["stale"].as_u64() > Some(0)),
        "{drift:?}"
    );

    let rest = simulation.end().await;
    let lost = rest.iter().filter(|line| line.contains(" lost: order.") && line.contains(", merchant 100")).count();
    let summary = rest.last().unwrap();
    assert!(lost > 5 && summary.starts_with("Webhooks: ") && summary.ends_with(" 0 refused."), "{lost} {summary}");
    assert!(summary.contains(&format!("{lost} lost")), "{lost} {summary}");
}

async fn stores_register_themselves(engine: Engine) {
    let port = free_port();
    let mut site = Site::unregistered(engine, []).await;
    site.set("SALLA__API_URL", &format!("http://127.0.0.1:{port}/admin"));
    site.set("SALLA__TOKEN_URL", &format!("http://127.0.0.1:{port}/oauth2/token"));
    site.set("SALLA__CLIENT_ID", "simulated");
    site.set("SALLA__CLIENT_SECRET", SECRET);
    let daemon = site.serve().await;
    let (listen, webhooks) = (format!("127.0.0.1:{port}"), format!("{}/webhooks/salla", daemon.url));
    let args = ["--listen", &listen, "--stores", "2", "--orders", "5", "--listing", "sort", "--webhooks", &webhooks];
    let simulation = Simulation::start(&args).await;
    until("both stores are registered", async || {
        site.database.number("SELECT count(*) FROM merchants WHERE state = 'active'").await == 2
    })
    .await;
    daemon.post("/runs", r#"{"merchant_id":1002,"full":true}"#).await;
    let run = daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
    assert_eq!((&run["listing"], run["totals"]["created"].as_u64() >= Some(5)), (&"scan".into(), true), "{run}");
    simulation.end().await;
}

#[tokio::test]
async fn the_same_seed_gives_the_same_stores() {
    let mut seen = Vec::new();
    for seed in ["1", "1", "2"] {
        let args = ["--listen", "127.0.0.1:0", "--stores", "1", "--orders", "20", "--every", "1h", "--seed", seed];
        let simulation = Simulation::start(&args).await;
        let orders = simulation.orders(1001).await;
        seen.push(
            orders.values().map(|order| (order["total"].to_string(), order["status"].to_string())).collect::<Vec<_>>(),
        );
        simulation.end().await;
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test]
async fn a_store_answers_429_beyond_its_limit() {
    let args = ["--listen", "127.0.0.1:0", "--stores", "1", "--orders", "1", "--every", "1h"];
    let simulation = Simulation::start(&args).await;
    let lines = simulation.get("/merchants.jsonl").await;
    let shop: Value = serde_json::from_str(lines.trim()).unwrap();
    let mut statuses = BTreeMap::<u16, u32>::new();
    for _ in 0..140 {
        let request = reqwest::Client::new().get(format!("{}/admin/v2/orders", simulation.url));
        let answer = request.bearer_auth(shop["access_token"].as_str().unwrap()).send().await.unwrap();
        *statuses.entry(answer.status().as_u16()).or_default() += 1;
    }
    assert!(statuses[&200] >= 120 && statuses[&429] > 0, "{statuses:?}");
    simulation.end().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
    let output = tokio::time::timeout(
        Duration::from_secs(20),
        command.args(["simulate", "--listen", &address]).env_clear().output(),
    );
    let output = output.await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}
