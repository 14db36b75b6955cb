//! Tokens: renewed once, never shown.

use std::{cell::RefCell, panic::AssertUnwindSafe, time::Duration};

use axum::{
    body::Bytes,
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{TimeDelta, Utc};
use salla_reconciler::{
    config::Config,
    domain::MerchantId,
    reconcile::ports::{Credentials, Tokens},
    simulator::Fault,
    vault::{KeyRing, Vault},
};
use serde_json::{Value, json};
use tokio::process::Command;
use url::form_urlencoded;

use crate::support::{
    Engine, Site,
    canary::Watch,
    daemon::Daemon,
    site::{KEYS, shop, totals},
};

on_every_database!(
    a_token_expires,
    four_processes_refresh_once,
    an_unknown_outcome_is_never_sent_again,
    a_refused_refresh_is_final,
    no_secret_is_shown,
    traces_carry_no_secret,
    the_canary_search_covers_every_output,
    the_register,
);

async fn a_token_expires(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().script(1001, [Fault::TokenEnded]);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 3, 0, 0, 0, 0]);
    assert_eq!(site.salla.world().refreshes, 1);
    // The new tokens were saved: nothing is refreshed again.
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().refreshes, 1);
    assert!(site.salla.world().violations.is_empty());

    // A token is also refreshed before it expires.
    expires_soon(&site).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().refreshes, 2);
    assert!(site.salla.world().violations.is_empty());
}

/// A token of a fortnight, on its last hour.
async fn expires_soon(site: &Site) {
    let (soon, then) = (Utc::now() + TimeDelta::hours(1), Utc::now() - TimeDelta::days(13));
    site.database.execute("UPDATE credentials SET expires_at = $1, issued_at = $2", [soon.into(), then.into()]).await;
}

async fn four_processes_refresh_once(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    expires_soon(&site).await;
    site.salla.world().token_faults.push_back(Fault::Hang(Duration::from_millis(500)));
    let runs = (0..4).map(|_| site.run(&["run", "--json"]));
    let outputs = futures::future::join_all(runs).await;
    // One run at a time a merchant: the others are told so, and none breaks the token.
    assert!(outputs.iter().any(|output| output.code == 0), "{outputs:?}");
    assert_eq!(site.salla.world().refreshes, 1);
    assert!(site.salla.world().violations.is_empty());
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().refreshes, 1);
}

async fn an_unknown_outcome_is_never_sent_again(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().token_faults.push_back(Fault::status(500));
    site.salla.world().script(1001, [Fault::TokenEnded]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("install the app again"));
    let list = site.run(&["merchants", "list", "--json"]).await.object();
    assert_eq!(list["state"], "needs_reauthorization");
    // The same when it had ended by our own clock.
    site.register(1001).await;
    site.salla.world().token_faults.push_back(Fault::status(500));
    let ended = Utc::now() - TimeDelta::hours(1);
    site.database.execute("UPDATE credentials SET expires_at = $1", [ended.into()]).await;
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "needs_reauthorization");
    assert_eq!(site.run(&["merchants", "list", "--json"]).await.object()["state"], "needs_reauthorization");
    // Sweeps leave it alone; a new import repairs it.
    assert!(site.run(&["run", "--json"]).await.exits(0).stdout.is_empty());
    assert_eq!(site.salla.world().refreshes, 0);
    site.register(1001).await;
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).object()["status"], "succeeded");
}

async fn a_refused_refresh_is_final(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.import(r#"{"merchant_id":1001,"access_token":"stale","refresh_token":"ory_rt_1001_0"}"#).await.exits(0);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("invalid_grant"), "{run}");
}

/// Looks for secrets in special situations. In every other test, `support::canary` looks for them.
async fn no_secret_is_shown(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 1)]).await;
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    // Salla and its token endpoint repeat what they were sent.
    let description = |words: &str| json!({"status": 400, "success": false, "error": {"code": 400, "message": words}});
    let echo = |status, words: &str| Fault::Answer {
        status,
        headers: vec![("content-type", "application/json".into())],
        body: description(words).to_string(),
    };
    let issued: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
    let (access, refresh) = (issued["access_token"].as_str().unwrap(), issued["refresh_token"].as_str().unwrap());
    site.salla.world().script(1001, [echo(422, &format!("no {access} here"))]);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "salla_request_rejected");
    assert!(run["error"]["message"].as_str().unwrap().contains("no [secret] here"), "{run}");
    site.salla.world().script(1001, [Fault::TokenEnded]);
    let words = format!("invalid_grant: {refresh} of app-secret-canary");
    site.salla.world().token_faults.push_back(echo(401, &words));
    let run = site.reconcile(1001, &[]).await;
    assert!(run["error"]["message"].as_str().unwrap().contains("[secret] of [secret]"), "{run}");
    for args in [&["run"][..], &["merchants", "list"], &["check"], &["migrate", "status"]] {
        site.run(args).await;
    }
    // Input that cannot be used is not quoted.
    site.import(r#"{"merchant_id":1001,"access_token":"ory_at_bad","refresh":"ory_rt_bad"}"#).await.exits(1);
    site.import(r#"{"merchant_id":"ory_at_bad"}"#).await.exits(1);
    let daemon = site.serve().await;
    for path in ["/runs", "/merchants", "/healthz", "/metrics", "/nowhere?token=x"] {
        daemon.get(path).await;
        daemon.call_with_token(path, "operator-canary-0123").await;
        daemon.call_with_token(path, "another-one").await;
    }
}

/// At trace level, the spans of every library also go to the collector.
async fn traces_carry_no_secret(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let (sink, mut sent) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let collector = axum::Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| {
            let _ = sink.send(body);
            std::future::ready(())
        }),
    );
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, collector).await });
    site.set("TELEMETRY__OTLP_ENDPOINT", &format!("http://{address}"));
    site.salla.world().script(1001, [Fault::TokenEnded]);
    site.run(&["run"]).await.exits(0);
    server.abort();
    let mut spans = Vec::new();
    while let Ok(body) = sent.try_recv() {
        site.watch.search("a trace", &body);
        spans.extend(body);
    }
    let spans = String::from_utf8_lossy(&spans);
    assert!(spans.contains("merchant.id"), "no span of a run came");
    assert!(!spans.contains("first_name"), "a customer's data is in a trace");
}

#[tokio::test]
async fn bad_settings_are_not_quoted() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    let file = site.folder.path().join("mine.toml");
    for text in [
        "[salla]\nclient_secret = file-canary\n",
        "[salla]\nclient_secret = \"file-canary\n",
        "[salla]\nclient_secret = [\"file-canary\"]\n",
        "[salla.client_secret]\nvalue = \"file-canary\"\n",
        "[vault]\nkeys = \"dmF1bHQta2V5LWNhbmFyeS0zMi1ieXRlcy1sb25nISE:k\"\n",
        "[vault]\nkeys = \"k:file-canary\"\n",
        "[database]\nurl = \"mysql://user:file-canary@host/x\"\n",
        "[salla]\napi_url = \"http://user:file-canary@api.salla.dev\"\n",
        "[salla]\ntoken_url = \"https://user:file-canary@accounts.salla.sa\"\n",
        "[telemetry]\notlp_endpoint = \"user:file-canary@host\"\n",
        "[telemetry]\notlp_endpoint = \"http://user:file-canary@host\"\n",
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.args(["--config", file.to_str().unwrap(), "check"]).env_clear().current_dir(site.folder.path());
        let output = site.output(command, "").await.exits(78);
        assert!(output.stderr.contains("mine.toml") && output.stderr.lines().count() == 1, "{text}: {output:?}");
    }
    // A server that is not there, with a password.
    let mut site = site;
    site.set("DATABASE__URL", "postgres://user:lost-canary@127.0.0.1:1/x");
    let output = site.run(&["run"]).await.exits(1);
    assert!(output.stderr.contains("database.url"), "{}", output.stderr);
    // An address that cannot be read: the driver would quote what it takes for a port.
    for url in [
        "postgres://user:lost-canary@127.0.0.1:x/x",
        "postgres://user:a/lost-canary@127.0.0.1/x",
        "postgres://user:lost?canary-0123@127.0.0.1/x",
        "postgres://user:lost#canary-0123@127.0.0.1/x",
        "postgres://user:12/lost-canary@127.0.0.1/x",
        "postgres://user:a b-canary@127.0.0.1/x?lost-canary=1",
    ] {
        site.set("DATABASE__URL", url);
        for command in [&["run"][..], &["serve"], &["check"], &["migrate", "up"]] {
            let output = site.run(command).await;
            assert!(matches!(output.code, 1 | 78), "{url}: {output:?}");
            let told = format!("{}{}", output.stdout, output.stderr);
            assert!(told.contains("database.url") && told.contains("percent-encode"), "{url}: {told}");
            assert!(!told.contains("canary"), "{url}: {told}");
        }
    }
    site.set("DATABASE__URL", &site.database.url.clone());
    // A collector that is not there, with credentials as the exporter takes them.
    site.set("TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut command = site.command(&["run"]);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20traces-canary");
    site.output(command, "").await.exits(0);
}

#[tokio::test]
async fn debug_output_has_no_secret() {
    let watch = Watch::new();
    let mut config = Config::defaults().unwrap();
    config.database.url = "postgres://user:debug-canary@host/x".into();
    config.salla.client_secret = "debug-canary".into();
    config.http.api_token = "debug-canary".into();
    config.vault.keys = KEYS.into();
    config.telemetry.otlp_endpoint = "http://user:debug-canary@host".into();
    watch.sow_key(KEYS);
    let ring = KeyRing::parse(&config.vault.keys).unwrap();
    let tokens = Tokens {
        access: "debug-canary".into(),
        refresh: Some("debug-canary".into()),
        expires_at: None,
        owner_confirmed: false,
    };
    let vault = Vault::new(KeyRing::parse(&config.vault.keys).unwrap().into(), ());
    let sealed = vault.seal(MerchantId(1001), &tokens).await.unwrap();
    let credentials =
        Credentials { tokens: tokens.clone(), issued_at: Utc::now(), version: 1, refreshing_for: None, refused: false };
    let shown = format!("{config:?} {config:#?} {ring:?} {vault:?} {tokens:?} {sealed:?} {credentials:#?}");
    assert!(shown.contains("REDACTED") && shown.contains("v1.test."), "{shown}");
    watch.search("what Debug shows", shown.as_bytes());
}

/// A leak is planted in every channel, and found in each.
async fn the_canary_search_covers_every_output(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let leaks = RefCell::new(Vec::new());
    let found = |channel: &str, name: &str| {
        let mut leaks = leaks.borrow_mut();
        leaks.extend(site.watch.take());
        let fits = |leak: &String| leak.contains(&format!("{name} is shown in {channel}: "));
        let leak = leaks.iter().find(|leak| fits(leak)).unwrap_or_else(|| panic!("{channel}, {name}: {leaks:?}"));
        assert!(leak.contains("left […] right") || name.contains("in hex"), "it is shown again, or too little: {leak}");
    };
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).kill_on_drop(true);
        command
    };
    site.output(sh("echo left ory_at_1001_9 right"), "").await;
    found("stdout", "an access token (as it is)");
    site.output(sh("echo left ory_rt_1001_9 right >&2"), "").await;
    found("stderr", "a refresh token (as it is)");

    let leaky = axum::Router::new()
        .route("/head", get(|| async { [("x-leak", "left ory_at_1001_9 right")] }))
        .route("/body", get(|| async { "left app-secret-canary right" }));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, leaky).await });
    let script = format!(
        r#"echo '{{"http.listen":"{address}"}}' >&2; echo left ory_rt_1001_9 right
           echo '{{"timestamp":"x","level":"TRACE","message":"left vault-key-canary-32-bytes-long!! right"}}' >&2; exec sleep 60"#
    );
    let daemon = Daemon::start(sh(&script), site.watch.clone()).await;
    daemon.get("/head").await;
    found("the head of an HTTP answer", "an access token (as it is)");
    daemon.get("/body").await;
    found("an HTTP answer", "SALLA__CLIENT_SECRET (as it is)");
    drop(daemon);
    server.abort();
    found("stdout", "a refresh token (as it is)");
    found("the log", "the bytes of the vault's key \"test\" (as it is)");

    let (table, blob, bytes) = if site.database.is_postgres() {
        ("the table salla.leaky", "BYTEA", "'\\x")
    } else {
        ("the table leaky", "BLOB", "x'")
    };
    site.database.execute(&format!("CREATE TABLE leaky (words TEXT, bytes {blob})"), []).await;
    site.database.execute("INSERT INTO leaky VALUES ('left ory_at_1001_9 right', NULL)", []).await;
    site.search_tables();
    found(table, "an access token (as it is)");
    let hex = hex::encode("ory_rt_1001_9");
    site.database.execute(&format!("UPDATE leaky SET words = 'x', bytes = {bytes}{hex}'"), []).await;
    site.search_tables();
    found(table, "a refresh token (in hex)");
    site.database.execute("DROP TABLE leaky", []).await;
}

#[test]
fn the_canary_search_knows_every_encoding() {
    let secret = "ory_at_1001_9/app-secret-canary";
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{secret}");
        for spelling in [
            STANDARD.encode(&text),
            URL_SAFE_NO_PAD.encode(&text),
            hex::encode(&text),
            hex::encode_upper(&text),
            format!("{:?}", text.as_bytes()),
            form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            text.replace('_', "%5F").replace('/', "%2F").replace('-', "%2D"),
        ] {
            let watch = Watch::new();
            watch.search("a place", format!("left {spelling} right").as_bytes());
            let panic = std::panic::catch_unwind(AssertUnwindSafe(|| drop(watch)));
            let told = *panic.expect_err(&spelling).downcast::<String>().unwrap();
            assert!(!told.contains("49, 48"), "{spelling} is shown again: {told}");
            assert!(
                told.contains("an access token") && told.contains("a place: left ") && told.contains("[…]"),
                "{spelling}: {told}"
            );
        }
    }
    let watch = Watch::new();
    watch.search("a place", b"left, right, and ory_x");
    assert!(watch.take().is_empty());
}

async fn the_register(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 1)]).await;
    let table = site.run(&["merchants", "list"]).await.exits(0).stdout;
    assert!(table.contains("1001") && table.contains("متجر") && table.contains("never"), "{table}");
    site.run(&["merchants", "pause", "1002"]).await.exits(0);
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).objects().len(), 1);
    site.run(&["run", "--merchant", "1002"]).await.exits(0);
    site.run(&["merchants", "resume", "1002"]).await.exits(0);
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).objects().len(), 2);
    site.run(&["merchants", "remove", "1001"]).await.exits(0);
    assert_eq!(site.database.number("SELECT count(*) FROM orders WHERE merchant_id = 1001").await, 2);
    assert_eq!(site.database.number("SELECT count(*) FROM credentials").await, 1);
    let gone = site.run(&["merchants", "pause", "1001"]).await.exits(1);
    assert!(gone.stderr.contains("merchant 1001 is not registered"), "{}", gone.stderr);
    let unknown = site.run(&["run", "--json", "--merchant", "1001"]).await.exits(1).object();
    assert_eq!(unknown["error"]["kind"], "unknown_merchant");
    for nonsense in ["nonsense", r#"[5,null,"a",null,null]"#] {
        let bad = site.import(&format!("{{\"merchant_id\":5,\"access_token\":\"a\"}}\n{nonsense}\n")).await.exits(1);
        assert!(bad.stderr.contains("line 2 is not imported; the 1 line(s) before it are"), "{}", bad.stderr);
    }
    for token in ["", "two\\nlines", "ünïcode"] {
        let line = format!(r#"{{"merchant_id":5,"access_token":"{token}"}}"#);
        assert!(site.import(&line).await.exits(1).stderr.contains("access_token"), "{token}");
    }
    assert!(site.run(&["merchants", "import", "nowhere.jsonl"]).await.exits(1).stderr.contains("nowhere.jsonl"));
}
