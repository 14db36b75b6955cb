//! A platform that owns the webhook address, or that asks this program for tokens.

use std::process::Stdio;

use chrono::Utc;
use reqwest::{Method, StatusCode};
use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    onboarding::{SECRET, installation, signature},
    support::{Engine, Site, daemon::Daemon, site::shop, until},
    tokens::expires_soon,
};

on_every_database!(
    the_platform_asks_for_a_token,
    a_token_that_cannot_be_used_is_not_shown,
    the_documented_forwarder_passes_app_events_on,
);

const PLATFORM: &str = "platform-canary-0123";
const OPERATOR: &str = "operator-canary-0123";
const READER: &str = "reader-canary-0123";

/// A site with a token of each scope.
async fn with_scopes(engine: Engine) -> Site {
    let mut site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let tokens = format!("platform:token:{PLATFORM},ops:operate:{OPERATOR},grafana:read:{READER}");
    site.set("HTTP__API_TOKENS", &tokens);
    site
}

async fn ask(daemon: &Daemon, path: &str, token: &str) -> (u16, Value) {
    let (status, _, body) = daemon.answer(daemon.request(Method::GET, path).bearer_auth(token)).await;
    (status.as_u16(), body)
}

/// The token of a merchant, by a client whose answers may show it.
async fn shown_token(daemon: &Daemon) -> Option<Value> {
    let address = format!("{}/merchants/1001/token", daemon.url);
    let answer = reqwest::Client::new().get(address).bearer_auth(PLATFORM).send().await.unwrap();
    if answer.status() != 200 {
        return None;
    }
    assert_eq!(answer.headers()["cache-control"], "no-store");
    Some(answer.json().await.unwrap())
}

async fn the_platform_asks_for_a_token(engine: Engine) {
    let site = with_scopes(engine).await;
    expires_soon(&site).await;
    let daemon = site.serve().await;
    until("the token is refreshed", async || {
        let shown = shown_token(&daemon).await;
        let current = site.salla.world().shop(1001).tokens().0.to_owned();
        shown.is_some_and(|shown| shown["access_token"] == current.as_str()) && site.salla.world().refreshes == 1
    })
    .await;
    let shown = shown_token(&daemon).await.unwrap();
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["access_token", "expires_at"], "the refresh token is never shown");
    let ends = shown["expires_at"].as_str().unwrap().parse::<chrono::DateTime<Utc>>().unwrap();
    assert!(ends > Utc::now() + chrono::TimeDelta::days(7));

    for (path, token, status) in [
        ("/merchants/1001/token", OPERATOR, 403),
        ("/merchants/1001/token", READER, 403),
        ("/merchants/1001/token", "wrong-canary-01234", 401),
        ("/merchants/1001", PLATFORM, 403),
        ("/runs", PLATFORM, 403),
        ("/", PLATFORM, 403),
        ("/merchants/4242/token", PLATFORM, 404),
        ("/merchants/x/token", PLATFORM, 400),
    ] {
        let (answered, body) = ask(&daemon, path, token).await;
        assert_eq!(answered, status, "{path} {token}: {body}");
        assert!(!body.to_string().contains("ory_"), "{body}");
    }
    let put = daemon.request(Method::PUT, "/merchants/1001/token").bearer_auth(PLATFORM);
    assert_eq!(daemon.answer(put.body(r#"{"access_token":"ory_at_put"}"#)).await.0, 403);
    let sign_in = daemon.request(Method::POST, "/dashboard/sign-in").header("sec-fetch-site", "same-origin");
    let sign_in = sign_in.header("content-type", "application/x-www-form-urlencoded").body(format!("token={PLATFORM}"));
    let (status, headers, _) = daemon.answer(sign_in).await;
    assert!(status == 401 && headers.get("set-cookie").is_none(), "the scope opens no page: {status}");

    let reads = site.database.number("SELECT count(*) FROM audit WHERE action = 'merchant.token_read' AND actor = 'token:platform' AND merchant_id = 1001").await;
    assert!(reads >= 2, "{reads}");
    let current = site.salla.world().shop(1001).tokens().0.to_owned();
    assert!(!daemon.log_text().contains(&current) && !daemon.log_text().contains("ory_"));
}

async fn a_token_that_cannot_be_used_is_not_shown(engine: Engine) {
    let site = with_scopes(engine).await;
    let daemon = site.serve().await;
    let detail = async |path: &str| {
        let (status, body) = ask(&daemon, path, PLATFORM).await;
        (status, body["detail"].as_str().unwrap_or_default().to_owned())
    };
    // Without a refresh token, an expired access token is of no use.
    site.database
        .execute(
            "UPDATE credentials SET refresh_token = NULL, expires_at = $1",
            [(Utc::now() - chrono::TimeDelta::hours(1)).into()],
        )
        .await;
    let (status, text) = detail("/merchants/1001/token").await;
    assert!(status == 409 && text.contains("expired"), "{status} {text}");
    site.database.execute("UPDATE credentials SET revoked_at = $1", [Utc::now().into()]).await;
    let (status, text) = detail("/merchants/1001/token").await;
    assert!(status == 409 && text.contains("install the app again"), "{status} {text}");
    site.database.execute("DELETE FROM credentials", []).await;
    let (status, text) = detail("/merchants/1001/token").await;
    assert!(status == 409 && text.contains("no token is stored"), "{status} {text}");
    assert_eq!(site.database.number("SELECT count(*) FROM audit WHERE action = 'merchant.token_read'").await, 0);

    // Without a token of that scope, the address is closed, even for programs of this machine.
    let mut open = Site::new(engine, [shop(1001, 0, 2)]).await;
    let daemon = open.serve().await;
    let (status, body) = daemon.get("/merchants/1001/token").await;
    assert!(status == 403 && body["detail"].as_str().unwrap().contains("scope `token`"), "{body}");
    drop(daemon);
    open.set("HTTP__API_TOKEN", OPERATOR);
    let daemon = open.serve().await;
    assert_eq!(daemon.call_with_token("/merchants/1001/token", OPERATOR).await, 403);

    // The token endpoint does not answer, and the old token has ended: try again.
    let site = with_scopes(engine).await;
    site.database
        .execute("UPDATE credentials SET expires_at = $1", [(Utc::now() - chrono::TimeDelta::hours(1)).into()])
        .await;
    site.salla.world().token_faults.extend((0..20).map(|_| Fault::status(429)));
    let daemon = site.serve().await;
    let (status, body) = ask(&daemon, "/merchants/1001/token", PLATFORM).await;
    assert!(status == 503 && body["detail"].as_str().unwrap().contains("try again"), "{status} {body}");
}

/// The program of `docs/how-to/onboard-merchants.md` that owns the webhook address.
async fn forwarder(reconciler: &str) -> (Child, String) {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-to/onboard-merchants.md")).unwrap();
    let code = page.split("```js\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let mut child = Command::new("node")
        .args(["--input-type=module", "--eval", code])
        .env("RECONCILER_URL", reconciler)
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    (child, line)
}

async fn forward(address: &str, body: &str, signed: &str) -> StatusCode {
    let request = reqwest::Client::new().post(address).body(body.to_owned());
    let request = request.header("x-salla-security-strategy", "Signature").header("content-type", "application/json");
    request.header("x-salla-signature", signature(SECRET, signed)).send().await.unwrap().status()
}

async fn the_documented_forwarder_passes_app_events_on(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 2)]).await;
    let mut daemon = site.serve().await;
    let (_forwarder, address) = forwarder(&daemon.url).await;
    // Spaces and escapes that another program would write differently.
    let event = installation(&site, 1001, Utc::now()).replace(':', " :  ").replace("bearer", "\\u0062earer");
    let event = event.replace(" :  //", "://");
    assert_eq!(forward(&address, &event, &event).await, 200);
    let (status, merchant) = daemon.get("/merchants/1001").await;
    assert_eq!((status.as_u16(), &merchant["state"]), (200, &json!("active")), "{merchant}");
    // Written again, the body has another signature.
    let parsed: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(forward(&address, &parsed.to_string(), &event).await, 401);
    let order = json!({"event": "order.created", "merchant": 1001, "data": {"id": 1}}).to_string();
    assert_eq!(forward(&address, &order, &order).await, 200, "the platform keeps it");
    let (_, metrics) = daemon.get("/metrics").await;
    assert!(!metrics.as_str().unwrap().contains("event=\"order.created\""), "{metrics}");

    // A client that goes away inside a body ends nothing.
    use tokio::io::AsyncWriteExt as _;
    let place = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    for _ in 0..2 {
        let mut client = tokio::net::TcpStream::connect(&place).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf a body").await.unwrap();
        client.set_zero_linger().unwrap();
    }
    assert_eq!(forward(&address, &"x".repeat(2 << 20), "x").await, 413);
    assert_eq!(forward(&address, &order, &order).await, 200, "it still answers");

    // Salla repeats an event that the reconciler has not taken.
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait().await;
    assert_eq!(forward(&address, &event, &event).await, 503);
}
