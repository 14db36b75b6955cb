//! How stores come into the register and leave it: app events of Salla's, and people over HTTP.

use std::{future::Future, time::Duration};

use base64::Engine as _;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use salla_reconciler::{
    domain::{MerchantId, Trigger},
    reconcile::ports::{CredentialStore, ScheduleStore, SweepDecision},
    simulator::{Fault, Gate},
    store::Store,
    vault::{KeyRing, Vault},
};
use sea_orm::{ConnectionTrait, TransactionTrait};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    Engine, SCHEMA, Site,
    daemon::Daemon,
    site::{KEYS, shop, totals},
};

on_every_database!(
    tokens_of_another_store_are_refused,
    tokens_stored_unchecked_are_checked_before_their_first_use,
    a_token_is_not_used_while_its_owner_may_still_be_confirmed,
    a_refresh_token_of_another_store_is_found_after_its_first_use,
    only_the_first_of_many_unsigned_webhooks_is_logged,
    a_newline_after_a_secret_is_ignored,
    an_import_names_the_field_and_skips_a_byte_order_mark,
    a_store_installs_the_app,
    unsigned_webhooks_are_refused,
    the_webhook_secret_wins_over_the_client_secret,
    repeated_authorizations_take_effect_once,
    an_authorization_does_not_lift_a_pause,
    identical_deliveries_at_two_replicas,
    an_authorization_during_a_refresh,
    events_from_before_an_import,
    an_event_from_the_future_does_not_block_others,
    an_uninstallation_during_a_refresh,
    an_uninstallation_ends_runs,
    events_arrive_in_any_order,
    a_subscription_ends_and_is_renewed,
    unknown_and_unreadable_events_have_no_effect,
    a_database_that_does_not_answer,
    the_register_over_http,
    pushed_tokens_leave_a_pause,
    paging_through_the_register,
    invalid_registrations_are_refused,
    a_pause_cancels_what_the_schedule_queued,
    changes_at_the_same_moment,
    a_pause_at_the_start_of_a_sweep,
    new_tokens_win_over_a_concurrent_refusal,
    an_uninstalled_merchant_on_the_command_line,
);

/// The key of every site, for `SALLA__CLIENT_SECRET` is set to it.
pub const SECRET: &str = "app-secret-canary";

pub fn signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

/// Salla's stamp: a naive time.
fn stamp(at: DateTime<Utc>) -> String {
    (at + TimeDelta::hours(3)).format("%Y-%m-%d %H:%M:%S").to_string()
}

fn event(name: &str, merchant: i64, at: DateTime<Utc>) -> String {
    json!({"event": name, "merchant": merchant, "created_at": stamp(at), "data": {"id": 1}}).to_string()
}

fn authorization(merchant: i64, access: &str, refresh: &str, at: DateTime<Utc>) -> String {
    let data = json!({
        "access_token": access, "refresh_token": refresh, "expires": (at + TimeDelta::days(14)).timestamp(),
        "scope": "orders.read offline_access", "token_type": "bearer",
    });
    json!({"event": "app.store.authorize", "merchant": merchant, "created_at": stamp(at), "data": data}).to_string()
}

/// The event that hands out the store's present tokens.
pub fn installation(site: &Site, merchant: i64, at: DateTime<Utc>) -> String {
    let tokens: Value = serde_json::from_str(&site.salla.registration(merchant).unwrap()).unwrap();
    let token = |name: &str| tokens[name].as_str().unwrap().to_owned();
    authorization(merchant, &token("access_token"), &token("refresh_token"), at)
}

async fn send(daemon: &Daemon, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
    let mut request = daemon.request(Method::POST, "/webhooks/salla").body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (status, _, body) = daemon.answer(request).await;
    (status, body)
}

/// Delivers an event as Salla does, and returns the word for what became of it.
async fn deliver(daemon: &Daemon, body: &str) -> String {
    let headers = [("x-salla-security-strategy", "Signature"), ("x-salla-signature", &signature(SECRET, body))];
    let (status, answer) = send(daemon, &headers, body).await;
    assert_eq!(status, 200, "{answer}");
    answer["result"].as_str().unwrap().to_owned()
}

async fn state(daemon: &Daemon, merchant: i64) -> String {
    let (_, merchant) = daemon.get(&format!("/merchants/{merchant}")).await;
    merchant["state"].as_str().unwrap_or("unknown").to_owned()
}

/// The stored tokens, opened: access, refresh, and whether a refresh is under way.
async fn stored(site: &Site, merchant: i64) -> Option<(String, String, bool)> {
    let store = Store::connect(&site.database.url.clone().into(), SCHEMA, 2, Duration::from_secs(60)).await.unwrap();
    let vault = Vault::new(KeyRing::parse(&KEYS.to_owned().into()).unwrap().into(), store.clone());
    let credentials = vault.load(MerchantId(merchant)).await.unwrap();
    store.close().await.unwrap();
    credentials.map(|credentials| {
        let refresh = credentials.tokens.refresh.unwrap();
        let refresh = refresh.expose_secret().to_owned();
        (credentials.tokens.access.expose_secret().to_owned(), refresh, credentials.refreshing_for.is_some())
    })
}

async fn status_of(site: &Site, run: &Value) -> String {
    let id = run["run_id"].as_str().unwrap();
    let column = if site.database.is_postgres() { "CAST(id AS text)" } else { "lower(hex(id))" };
    let id = if site.database.is_postgres() { id.to_owned() } else { id.replace('-', "") };
    site.database.text(&format!("SELECT status FROM runs WHERE {column} = '{id}'")).await
}

/// How-to, "Onboard merchants".
async fn a_store_installs_the_app(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 3)]).await;
    site.set("SCHEDULE__CRON", "*/2 * * * * *");
    let daemon = site.serve().await;
    assert_eq!(state(&daemon, 1001).await, "unknown");
    assert_eq!(deliver(&daemon, &installation(&site, 1001, Utc::now())).await, "applied");
    // From now on sweeps cover it, with the token of the event.
    daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    site.assert_equal(1001).await;

    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1001, Utc::now())).await, "applied");
    assert_eq!(state(&daemon, 1001).await, "uninstalled");
    assert_eq!(stored(&site, 1001).await, None);
    assert!(site.database.number("SELECT count(*) FROM orders").await >= 3, "its orders stay");
    let (status, problem) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("uninstalled"), "{problem}");
    assert_eq!(daemon.post("/merchants/1001/resume", "").await.0, 409);

    // It comes back, and nothing was lost meanwhile.
    site.salla.world().shop(1001).place(Utc::now());
    let again = Utc::now() + TimeDelta::seconds(1);
    assert_eq!(deliver(&daemon, &installation(&site, 1001, again)).await, "applied");
    assert_eq!(state(&daemon, 1001).await, "active");
    let before = site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await;
    daemon.await_run("merchant_id=1001&status=succeeded", |_| true).await;
    while site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await <= before {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.assert_equal(1001).await;
    assert!(!daemon.log_text().contains("ory_"), "{}", daemon.log_text());
}

async fn unsigned_webhooks_are_refused(engine: Engine) {
    let mut site = Site::unregistered(engine, []).await;
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    let daemon = site.serve().await;
    let body =
        r#"{"event": "app.installed", "merchant": 1001, "created_at": "2026-11-25 12:00:00", "data": "body-canary"}"#;
    let right = signature(SECRET, body);
    let base64 = base64::engine::general_purpose::STANDARD.encode(hex::decode(&right).unwrap());
    let reserialised = serde_json::from_str::<Value>(body).unwrap().to_string();
    let (strategy, sign) = ("x-salla-security-strategy", "x-salla-signature");
    let bearer = format!("Bearer {SECRET}");
    for headers in [
        &[(sign, right.as_str())][..],
        &[(sign, right.to_uppercase().as_str()), (strategy, "Signature")],
        &[("authorization", SECRET)],
        &[("authorization", bearer.as_str()), (strategy, "Token")],
    ] {
        assert_eq!(send(&daemon, headers, body).await, (StatusCode::OK, json!({"result": "ignored"})), "{headers:?}");
    }
    let other = signature("another secret", body);
    let of_reserialised = signature(SECRET, &reserialised);
    let wrong: [&[(&str, &str)]; 13] = [
        &[],
        &[(sign, &other)],
        &[(sign, &base64)],
        &[(sign, &of_reserialised)],
        &[(sign, "")],
        &[(sign, &right[..62])],
        &[(sign, &right), (strategy, "Token")],
        &[("authorization", SECRET), (strategy, "Signature")],
        &[("authorization", SECRET), (strategy, "none")],
        &[("authorization", &SECRET[1..])],
        &[("authorization", "Bearer operator-canary-0123"), (strategy, "Token")],
        &[(sign, &right), (strategy, "whatever")],
        &[(sign, &other), ("authorization", SECRET)],
    ];
    for headers in wrong {
        let (status, problem) = send(&daemon, headers, body).await;
        assert_eq!(status, 401, "{headers:?}: {problem}");
    }
    // One byte, and the same JSON in other bytes.
    assert_eq!(send(&daemon, &[(sign, &right)], &body.replace("1001", "1002")).await.0, 401);
    assert_eq!(send(&daemon, &[(sign, &right)], &reserialised).await.0, 401);
    let (_, metrics) = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        r#"webhooks_total{event="app.installed",result="ignored"} 4"#,
        r#"webhooks_total{event="other",result="unauthorized"} 15"#,
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let log = daemon.log_text();
    assert_eq!(log.matches("webhook refused: wrong signature").count(), 1, "the rest is told once a minute");
    assert!(log.contains(r#""source":"127.0.0.1""#), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// Tokens of store 1002 under the id of store 1001, on each way in.
async fn tokens_of_another_store_are_refused(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 2), shop(1002, 0, 3)]).await;
    let words = "belongs to merchant 1002, not to merchant 1001";
    let mut swapped: Value = serde_json::from_str(&site.salla.registration(1002).unwrap()).unwrap();
    swapped["merchant_id"] = json!(1001);
    let import = site.import(&swapped.to_string()).await.exits(1);
    assert!(format!("{}{}", import.stdout, import.stderr).contains(words), "{import:?}");

    let daemon = site.serve().await;
    let mut body = swapped.clone();
    body.as_object_mut().unwrap().remove("merchant_id");
    let (status, _, problem) = daemon.call(Method::PUT, "/merchants/1001", Some(&body.to_string())).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    let token = |name: &str| swapped[name].as_str().unwrap().to_owned();
    let event = authorization(1001, &token("access_token"), &token("refresh_token"), Utc::now());
    let headers = [("x-salla-security-strategy", "Signature"), ("x-salla-signature", &signature(SECRET, &event))];
    let (status, problem) = send(&daemon, &headers, &event).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(site.database.number("SELECT count(*) FROM merchants").await, 0);
    assert_eq!(site.database.number("SELECT count(*) FROM credentials").await, 0);

    // The right ones are confirmed, on each way in.
    let confirmed = "SELECT count(*) FROM credentials WHERE owner_confirmed";
    site.register(1001).await;
    assert_eq!(deliver(&daemon, &installation(&site, 1002, Utc::now())).await, "applied");
    assert_eq!(site.database.number(confirmed).await, 2);
    drop(daemon);

    // Where Salla does not answer, the tokens are kept and the operator is told.
    site.set("SALLA__TOKEN_URL", "http://127.0.0.1:9/oauth2/token");
    let import = site.import(&site.salla.registration(1001).unwrap()).await.exits(0);
    assert!(format!("{}{}", import.stdout, import.stderr).contains("does not say which merchant"), "{import:?}");
    assert_eq!(site.database.number(confirmed).await, 1);
}

/// Salla did not answer when they were stored. Nothing is read with them.
async fn tokens_stored_unchecked_are_checked_before_their_first_use(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 2), shop(1002, 0, 3)]).await;
    let right = site.salla.token_url();
    site.set("SALLA__TOKEN_URL", "http://127.0.0.1:9/oauth2/token");
    let mut swapped: Value = serde_json::from_str(&site.salla.registration(1002).unwrap()).unwrap();
    swapped["merchant_id"] = json!(1001);
    site.import(&swapped.to_string()).await.exits(0);
    site.import(&site.salla.registration(1002).unwrap()).await.exits(0);
    site.set("SALLA__TOKEN_URL", &right);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("the token belongs to merchant 1002"), "{run}");
    assert_eq!(site.salla.world().seen.len(), 0, "nothing was read");
    let state = "SELECT state FROM merchants WHERE merchant_id = 1001";
    assert_eq!(site.database.text(state).await, "needs_reauthorization");
    assert_eq!(site.reconcile(1002, &[]).await["status"], "succeeded");
}

/// A token of another merchant would overwrite this merchant's orders, and mark the others deleted.
async fn a_token_is_not_used_while_its_owner_may_still_be_confirmed(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 2), shop(1002, 0, 3)]).await;
    let mut swapped: Value = serde_json::from_str(&site.salla.registration(1002).unwrap()).unwrap();
    swapped["merchant_id"] = json!(1001);
    for status in [429, 500, 503] {
        site.salla.world().owner_status = Some(status);
        site.import(&swapped.to_string()).await.exits(0);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], "salla_unavailable", "{status}: {run}");
        assert!(run["error"]["message"].as_str().unwrap().contains("cannot be confirmed"), "{run}");
        assert_eq!(site.salla.world().seen.len(), 0, "nothing was read");
    }
    let right = site.salla.token_url();
    site.set("SALLA__TOKEN_URL", "http://127.0.0.1:9/oauth2/token");
    site.import(&swapped.to_string()).await.exits(0);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "salla_unavailable", "no connection: {run}");
    assert_eq!(site.salla.world().seen.len(), 0, "nothing was read");
    site.set("SALLA__TOKEN_URL", &right);
    // A server without such an address cannot say it, now or later.
    site.salla.world().owner_status = Some(404);
    site.import(&site.salla.registration(1001).unwrap()).await.exits(0);
    let run = site.run(&["run", "--merchant", "1001", "--json"]).await.exits(0);
    assert!(run.stderr.contains("the token is used unchecked"), "{}", run.stderr);
    site.salla.world().owner_status = None;
    site.import(&swapped.to_string()).await.exits(1);
}

/// The access token is the store's, so Salla confirms it at the import. The refresh token is another store's.
async fn a_refresh_token_of_another_store_is_found_after_its_first_use(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 2), shop(1002, 0, 3)]).await;
    let mut mixed: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
    let other: Value = serde_json::from_str(&site.salla.registration(1002).unwrap()).unwrap();
    mixed["refresh_token"] = other["refresh_token"].clone();
    site.import(&mixed.to_string()).await.exits(0);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    let end = "UPDATE credentials SET expires_at = '2026-01-01T00:00:00Z'";
    site.database.execute(end, []).await;
    let (seen, stored) = (site.salla.world().seen.len(), "SELECT count(*) FROM orders");
    let run = site.reconcile(1001, &["--full"]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("the token belongs to merchant 1002"), "{run}");
    assert_eq!(site.salla.world().seen.len(), seen, "nothing was read with the token");
    assert_eq!(site.database.number(stored).await, 2);

    // The right pair is confirmed after a refresh, and Salla is not asked again for it.
    site.import(&site.salla.registration(1001).unwrap()).await.exits(0);
    site.database.execute(end, []).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.database.number("SELECT count(*) FROM credentials WHERE owner_confirmed").await, 1);
}

async fn only_the_first_of_many_unsigned_webhooks_is_logged(engine: Engine) {
    let mut site = Site::unregistered(engine, []).await;
    site.set("HTTP__REQUESTS_PER_SECOND", "100000");
    let daemon = site.serve().await;
    let body = event("order.created", 1001, Utc::now());
    for number in 0..300 {
        let (headers, body) = match number % 3 {
            0 => (vec![], body.clone()),
            1 => (vec![("x-salla-signature", "f7bc")], body.clone()),
            _ => (vec![("x-salla-security-strategy", "Token")], "{".to_owned()),
        };
        assert_eq!(send(&daemon, &headers, &body).await.0, 401);
    }
    let lines = daemon.log_text().matches("webhook refused: wrong signature").count();
    assert_eq!(lines, 1, "{}", daemon.log_text());
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = r#"webhooks_total{event="other",result="unauthorized"} 300"#;
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
}

async fn an_import_names_the_field_and_skips_a_byte_order_mark(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    for (line, words) in [
        (r#"{"access_token":"import-canary-0123"}"#, "`merchant_id` is missing"),
        (r#"{"merchant_id":1001,"refresh_token":"import-canary-0123"}"#, "`access_token` is missing"),
        (
            r#"{"merchant_id":"import-canary-0123","access_token":"a"}"#,
            "`merchant_id` cannot be read (column 35); write a number such as 1001",
        ),
        (
            r#"{"merchant_id":1001,"access_token":"a","expires_at":"import-canary-0123"}"#,
            "write an RFC 3339 time such as",
        ),
        (
            r#"{"merchant_id":1001,"acces_token":"import-canary-0123"}"#,
            "has an unknown field (column 33); allowed: merchant_id, ",
        ),
        (r#"["import-canary-0123"]"#, "is not a JSON object"),
        (r#"{"access_token":"import-canary-0123""#, "is not valid JSON (column "),
    ] {
        let told = site.import(line).await.exits(1).stderr;
        assert!(told.contains(words) && told.contains("line 1") && !told.contains("canary"), "{line}: {told}");
    }
    let lines = [1001, 1002].map(|store| site.salla.registration(store).unwrap()).join("\r\n");
    site.import(&format!("\u{feff}{lines}\r\n")).await.exits(0);
    assert_eq!(site.database.number("SELECT count(*) FROM merchants").await, 2);
}

/// As `echo` writes it into a file, and a portal into a clipboard.
async fn a_newline_after_a_secret_is_ignored(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 1)]).await;
    site.set("SALLA__CLIENT_ID", " app\r\n");
    site.set("SALLA__CLIENT_SECRET", "app-secret-canary\r\n");
    let daemon = site.serve().await;
    assert_eq!(deliver(&daemon, &installation(&site, 1001, Utc::now())).await, "applied");
    drop(daemon);
    site.set("SALLA__WEBHOOK_SECRET", "webhook-canary-0123\n");
    let daemon = site.serve().await;
    let body = event("app.updated", 1001, Utc::now());
    let proof = signature("webhook-canary-0123", &body);
    let headers = [("x-salla-security-strategy", "Signature"), ("x-salla-signature", proof.as_str())];
    assert_eq!(send(&daemon, &headers, &body).await.0, 200);
}

async fn the_webhook_secret_wins_over_the_client_secret(engine: Engine) {
    let mut site = Site::unregistered(engine, []).await;
    let (sign, body) = ("x-salla-signature", r#"{"event":"app.installed"}"#);
    // A separate webhook secret takes the place of the secret of the app.
    site.set("SALLA__WEBHOOK_SECRET", "webhook-canary");
    let daemon = site.serve().await;
    assert_eq!(send(&daemon, &[(sign, &signature(SECRET, body))], body).await.0, 401);
    assert_eq!(send(&daemon, &[(sign, &signature("webhook-canary", body))], body).await.0, 200);
    drop(daemon);
    site.unset("SALLA__WEBHOOK_SECRET");
    site.unset("SALLA__CLIENT_SECRET");
    let daemon = site.serve().await;
    let (status, problem) = send(&daemon, &[(sign, &signature("", body)), ("authorization", "")], body).await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("salla.webhook_secret"), "{problem}");
}

async fn repeated_authorizations_take_effect_once(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    let now = Utc::now();
    let first = authorization(1001, "ory_at_1", "ory_rt_1", now - TimeDelta::minutes(2));
    assert_eq!(deliver(&daemon, &first).await, "applied");
    assert_eq!(deliver(&daemon, &authorization(1001, "ory_at_2", "ory_rt_2", now)).await, "applied");
    let present = Some(("ory_at_2".to_owned(), "ory_rt_2".to_owned(), false));
    assert_eq!(stored(&site, 1001).await, present);
    // A replay, one that was made before, and one that somebody kept for a day.
    let before = authorization(1001, "ory_at_0", "ory_rt_0", now - TimeDelta::minutes(1));
    let stale = authorization(1001, "ory_at_9", "ory_rt_9", now - TimeDelta::hours(25));
    for (body, result) in [(&first, "replayed"), (&before, "outdated"), (&before, "replayed"), (&stale, "stale")] {
        assert_eq!(deliver(&daemon, body).await, result);
        assert_eq!(stored(&site, 1001).await, present, "{result}");
    }
    // Tokens of yesterday register no merchant.
    assert_eq!(deliver(&daemon, &stale.replace("1001", "1002")).await, "stale");
    assert_eq!(state(&daemon, 1002).await, "unknown");
    // A store whose tokens are refused needs nothing else.
    site.database.execute("UPDATE merchants SET state = 'needs_reauthorization'", []).await;
    let newer = authorization(1001, "ory_at_3", "ory_rt_3", now + TimeDelta::seconds(1));
    assert_eq!(deliver(&daemon, &newer).await, "applied");
    assert_eq!(state(&daemon, 1001).await, "active");
    // Two authorizations come at once, again and again. The stored tokens are of one of them.
    // Neither counts as older, although their time stamps lie ahead of the clock and are cut down
    // to it.
    for n in [10, 20, 30, 40, 50] {
        let made = now + TimeDelta::hours(1);
        let [one, other] =
            [n, n + 1].map(|n| authorization(1001, &format!("ory_at_{n}"), &format!("ory_rt_{n}"), made));
        let results = tokio::join!(deliver(&daemon, &one), deliver(&daemon, &other));
        assert_eq!(results, ("applied".to_owned(), "applied".to_owned()));
        let (access, refresh, _) = stored(&site, 1001).await.unwrap();
        let of_one = |n| access == format!("ory_at_{n}") && refresh == format!("ory_rt_{n}");
        assert!(of_one(n) || of_one(n + 1), "{access} {refresh}");
    }
}

async fn an_authorization_does_not_lift_a_pause(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    assert_eq!(daemon.post("/merchants/1001/pause", "").await.1["state"], "paused");
    for (name, second) in [("app.uninstalled", 2), ("app.store.authorize", 3)] {
        let at = Utc::now() + TimeDelta::seconds(second);
        let body = if name == "app.uninstalled" {
            event(name, 1001, at)
        } else {
            authorization(1001, "ory_at_n", "ory_rt_n", at)
        };
        assert_eq!(deliver(&daemon, &body).await, "applied");
    }
    assert_eq!(state(&daemon, 1001).await, "paused", "though it was uninstalled and installed again");
    assert_eq!(stored(&site, 1001).await.unwrap().0, "ory_at_n");
    assert_eq!(daemon.post("/merchants/1001/resume", "").await.1["state"], "active");
    // A person's import does.
    daemon.post("/merchants/1001/pause", "").await;
    site.register(1001).await;
    assert_eq!(state(&daemon, 1001).await, "active");
}

async fn identical_deliveries_at_two_replicas(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let (one, other) = (site.serve().await, site.serve().await);
    for merchant in 1..=5 {
        let body = authorization(merchant, "ory_at_x", "ory_rt_x", Utc::now());
        let deliveries = [&one, &other, &one, &other].map(|daemon| deliver(daemon, &body));
        let mut results = futures::future::join_all(deliveries).await;
        results.sort();
        assert_eq!(results, ["applied", "replayed", "replayed", "replayed"]);
        assert_eq!(state(&one, merchant).await, "active");
    }
    assert_eq!(site.database.number("SELECT count(*) FROM webhook_events").await, 5);
}

/// A token of a fortnight, on its last hour.
async fn expires_soon(site: &Site) {
    let (soon, then) = (Utc::now() + TimeDelta::hours(1), Utc::now() - TimeDelta::days(13));
    site.database.execute("UPDATE credentials SET expires_at = $1, issued_at = $2", [soon.into(), then.into()]).await;
}

async fn await_refresh(site: &Site) {
    let patience = Instant::now() + Duration::from_secs(20);
    while site.database.number("SELECT count(*) FROM credentials WHERE refresh_started_at IS NOT NULL").await == 0 {
        assert!(Instant::now() < patience, "no refresh was begun");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn an_authorization_during_a_refresh(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let event = Some(("ory_at_event".to_owned(), "ory_rt_event".to_owned(), false));
    // The refresh goes well; then Salla refuses it, which says nothing about the new tokens.
    for (refresh_token, result) in [("ory_rt_1001_1", "renewed"), ("ory_rt_of_nobody", "refused")] {
        site.import(&format!(r#"{{"merchant_id":1001,"access_token":"old","refresh_token":"{refresh_token}"}}"#))
            .await
            .exits(0);
        let gate = Gate::default();
        site.salla.world().token_faults.push_back(Fault::Hold(gate.clone()));
        expires_soon(&site).await;
        let mut daemon = site.serve().await;
        await_refresh(&site).await;
        let event_at = Utc::now() + TimeDelta::seconds(i64::from(result == "refused"));
        assert_eq!(deliver(&daemon, &authorization(1001, "ory_at_event", "ory_rt_event", event_at)).await, "applied");
        let asked = site.salla.world().refreshes;
        // A process that is asked to end ends once the refresh is through.
        daemon.signal(Signal::SIGTERM);
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
        assert_eq!(daemon.wait().await, Some(0));
        assert_eq!(site.salla.world().refreshes - asked, usize::from(result == "renewed"), "{result}");
        assert_eq!(stored(&site, 1001).await, event, "{result}: the event's tokens stay");
    }
    assert_eq!(state(&site.serve().await, 1001).await, "active");
}

async fn an_uninstallation_during_a_refresh(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.set("RECONCILE__LEASE", "8s");
    // The answer is held until the run has heard of its end, which is when its lease is to be renewed.
    site.set("SALLA__REQUEST_TIMEOUT", "30s");
    let daemon = site.serve().await;
    // The first of the two, the run or the refresher, waits for Salla.
    let gate = Gate::default();
    site.salla.world().script(1001, [Fault::Hold(gate.clone())]);
    site.salla.world().token_faults.push_back(Fault::Hold(gate.clone()));
    expires_soon(&site).await;
    let (_, run) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    await_refresh(&site).await;
    // A run that is not claimed yet would be cancelled without a log line.
    daemon.await_run("merchant_id=1001", |run| run["status"] == "running").await;
    // Out and in again, before the refresh of the tokens from before is answered.
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1001, Utc::now())).await, "applied");
    assert_eq!(status_of(&site, &run).await, "cancelled");
    assert_eq!(stored(&site, 1001).await, None);
    // A run that does not know it yet might wait for another's refresh, and find tokens that this Salla does not know.
    daemon.await_line(|line| line["message"].as_str().is_some_and(|said| said.contains("or it ended"))).await;
    let again = Utc::now() + TimeDelta::seconds(1);
    assert_eq!(deliver(&daemon, &authorization(1001, "ory_at_new", "ory_rt_new", again)).await, "applied");
    gate.open();
    daemon.await_line(|line| line["message"] == "token refreshed").await;
    assert_eq!(stored(&site, 1001).await, Some(("ory_at_new".to_owned(), "ory_rt_new".to_owned(), false)));
    assert_eq!(state(&daemon, 1001).await, "active");
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 0, "the cancelled run writes nothing");
}

async fn an_uninstallation_ends_runs(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 40), shop(1002, 0, 40)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__CONCURRENCY", "1");
    for merchant in [1001, 1002] {
        site.salla.world().always.insert(merchant, Fault::Hang(Duration::from_millis(100)));
    }
    let daemon = site.serve().await;
    let (_, running) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("merchant_id=1001", |run| run["totals"]["fetched"].as_u64() > Some(1)).await;
    let (_, queued) = daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    for (merchant, run) in [(1002, &queued), (1001, &running)] {
        assert_eq!(deliver(&daemon, &event("app.uninstalled", merchant, Utc::now())).await, "applied");
        assert_eq!(status_of(&site, run).await, "cancelled");
        assert_eq!(state(&daemon, merchant).await, "uninstalled");
    }
    let written = site.database.number("SELECT count(*) FROM orders").await;
    daemon.await_line(|line| line["message"].as_str().unwrap_or("").contains("or it ended")).await;
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, written, "nothing is written afterwards");
    assert_eq!(status_of(&site, &running).await, "cancelled");
    assert_eq!(site.salla.world().requests_for(1002), 0);
    assert!(site.database.rows("SELECT * FROM watermarks").await.is_empty());
}

async fn events_arrive_in_any_order(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    let now = Utc::now();
    let ago = |minutes| now - TimeDelta::minutes(minutes);
    // An unknown merchant is uninstalled, and the authorization from before comes late.
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1, ago(1))).await, "unknown_merchant");
    assert_eq!(deliver(&daemon, &authorization(1, "ory_at", "ory_rt", ago(2))).await, "outdated");
    assert_eq!(state(&daemon, 1).await, "unknown");
    assert_eq!(deliver(&daemon, &authorization(1, "ory_at", "ory_rt", now)).await, "applied");
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1, ago(3))).await, "outdated");
    assert_eq!(state(&daemon, 1).await, "active");
    // Within one second, the later one to arrive counts.
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1, now)).await, "applied");
    assert_eq!(state(&daemon, 1).await, "uninstalled");
    // Without a stamp it is news, once.
    let unstamped = r#"{"event":"app.store.authorize","merchant":"1","data":{"access_token":"a","refresh_token":"r"}}"#;
    assert_eq!(deliver(&daemon, unstamped).await, "applied");
    assert_eq!(deliver(&daemon, unstamped).await, "replayed");
    assert_eq!(state(&daemon, 1).await, "active");
}

async fn a_subscription_ends_and_is_renewed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let daemon = site.serve().await;
    let now = Utc::now() - TimeDelta::minutes(10);
    let events = [
        ("app.subscription.started", "active"),
        // A cancelled subscription is paid to its end. A trial that ends because a subscription began ends nothing.
        ("app.subscription.canceled", "active"),
        ("app.trial.expired", "active"),
        ("app.subscription.expired", "subscription_expired"),
        ("app.subscription.renewed", "active"),
        ("app.subscription.expired", "subscription_expired"),
        ("app.trial.started", "active"),
        ("app.trial.expired", "subscription_expired"),
    ];
    for (second, (name, expected)) in events.into_iter().enumerate() {
        deliver(&daemon, &event(name, 1001, now + TimeDelta::seconds(i64::try_from(second).unwrap()))).await;
        assert_eq!(state(&daemon, 1001).await, expected, "after {name}");
    }
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).stdout, "", "sweeps leave it alone");
    assert!(stored(&site, 1001).await.is_some(), "its tokens stay");
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded", "by hand it runs");
    // New tokens do not renew a subscription.
    let at = |second| now + TimeDelta::seconds(second);
    deliver(&daemon, &installation(&site, 1001, at(20))).await;
    assert_eq!(state(&daemon, 1001).await, "subscription_expired");
    assert_eq!(daemon.get("/merchants?state=subscription_expired").await.1["merchants"][0]["merchant_id"], 1001);
    // A person's pause is a person's to lift.
    daemon.post("/merchants/1001/pause", "").await;
    assert_eq!(deliver(&daemon, &event("app.subscription.renewed", 1001, at(30))).await, "applied");
    assert_eq!(state(&daemon, 1001).await, "paused");
    daemon.post("/merchants/1001/resume", "").await;
    deliver(&daemon, &event("app.subscription.expired", 1001, at(40))).await;
    assert_eq!(daemon.post("/merchants/1001/resume", "").await.1["state"], "active", "should the renewal be lost");
    // A subscription does not bring back an uninstalled app.
    deliver(&daemon, &event("app.uninstalled", 1001, at(50))).await;
    deliver(&daemon, &event("app.subscription.started", 1001, at(60))).await;
    assert_eq!(state(&daemon, 1001).await, "uninstalled");
}

async fn unknown_and_unreadable_events_have_no_effect(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    let order = json!({"event": "order.created", "merchant": 1001, "data": {"notes": "x".repeat(200_000)}}).to_string();
    assert_eq!(deliver(&daemon, &order).await, "ignored", "larger than what people may send");
    assert_eq!(deliver(&daemon, r#"{"event":"product.updated","merchant":[]}"#).await, "ignored");
    assert_eq!(deliver(&daemon, &event("app.installed", 1001, Utc::now())).await, "ignored");
    assert_eq!(site.database.number("SELECT count(*) FROM webhook_events").await, 0, "they cost the database nothing");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        "",
        "nonsense-canary",
        "{",
        &nested,
        r#"{"merchant":1001}"#,
        r#"{"event":"app.uninstalled","merchant":"canary"}"#,
        r#"{"event":"app.uninstalled","merchant":99999999999999999999}"#,
        r#"{"event":"app.store.authorize","merchant":1001,"data":{"access_token":"canary two"}}"#,
        r#"{"event":"app.store.authorize","merchant":1001,"data":{"token":"canary"}}"#,
    ] {
        let (status, problem) = send(&daemon, &[("x-salla-signature", &signature(SECRET, body))], body).await;
        assert_eq!(status, 400, "{problem}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    assert_eq!(daemon.get("/webhooks/salla").await.0, 405);
    let log = daemon.log_text();
    assert!(log.contains("cannot be read") && !log.contains("canary"), "{log}");
    let (_, metrics) = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        r#"webhooks_total{event="other",result="ignored"} 2"#,
        r#"webhooks_total{event="other",result="malformed"} 5"#,
        r#"webhooks_total{event="app.store.authorize",result="malformed"} 2"#,
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let huge = "x".repeat((1 << 20) + 1);
    assert_eq!(send(&daemon, &[("x-salla-signature", &signature(SECRET, &huge))], &huge).await.0, 413);
}

async fn a_database_that_does_not_answer(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    let body = authorization(1001, "ory_at", "ory_rt", Utc::now());
    let headers = [("x-salla-signature", &*signature(SECRET, &body))];
    let hold = if site.database.is_postgres() { "LOCK TABLE webhook_events" } else { "DELETE FROM webhook_events" };
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared(hold).await.unwrap();
    let began = Instant::now();
    let (status, problem) = send(&daemon, &headers, &body).await;
    assert_eq!(status, 503, "{problem}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    lock.rollback().await.unwrap();
    // Salla tries again.
    let patience = Instant::now() + Duration::from_secs(30);
    while send(&daemon, &headers, &body).await.0 != 200 {
        assert!(Instant::now() < patience, "{}", daemon.log_text());
    }
    assert_eq!(state(&daemon, 1001).await, "active");
    assert!(!daemon.log_text().contains("ory_"));
}

async fn the_register_over_http(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 2)]).await;
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    let daemon = site.serve().await;
    for (method, path) in [
        (Method::GET, "/merchants"),
        (Method::GET, "/merchants/1001"),
        (Method::PUT, "/merchants/1001"),
        (Method::PUT, "/merchants/1001/token"),
        (Method::POST, "/merchants/1001/pause"),
        (Method::POST, "/merchants/1001/resume"),
    ] {
        assert_eq!(daemon.call(method.clone(), path, Some("{}")).await.0, 401, "{method} {path}");
    }
    drop(daemon);
    site.unset("HTTP__API_TOKEN");
    let daemon = site.serve().await;
    let mut line: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
    line.as_object_mut().unwrap().remove("merchant_id");
    let (status, headers, merchant) = daemon.call(Method::PUT, "/merchants/1001", Some(&line.to_string())).await;
    assert_eq!((status.as_u16(), headers["location"].to_str().unwrap()), (201, "/merchants/1001"));
    let shown =
        json!({"merchant_id": 1001, "name": line["name"], "state": "active", "watermark": null, "watermarks": {}});
    assert_eq!(merchant, shown);
    assert_eq!(daemon.get("/merchants/1001").await, (StatusCode::OK, shown.clone()));
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [2, 2, 0, 0, 0, 0]);
    let (status, headers, again) =
        daemon.call(Method::PUT, "/merchants/1001", Some(r#"{"access_token":"ory_at_put"}"#)).await;
    assert_eq!((status.as_u16(), headers.get("location")), (200, None));
    assert_eq!((&again["name"], again["watermark"].is_string()), (&line["name"], true), "{again}");

    let (status, paused) = daemon.post("/merchants/1001/pause", "").await;
    assert_eq!((status.as_u16(), &paused["state"]), (200, &json!("paused")));
    assert_eq!(daemon.post("/merchants/1001/pause", "").await.0, 200, "twice is no harm");
    assert_eq!(daemon.post("/merchants/1001/resume", "").await.1["state"], "active");
    for action in ["pause", "resume"] {
        assert_eq!(daemon.post(&format!("/merchants/4242/{action}"), "").await.0, 404);
        assert_eq!(daemon.post(&format!("/merchants/x/{action}"), "").await.0, 400);
    }
    site.database.execute("UPDATE merchants SET state = 'needs_reauthorization'", []).await;
    let (status, problem) = daemon.post("/merchants/1001/resume", "").await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("install the app again"), "{problem}");
    // A pause over it changes nothing about that.
    assert_eq!(daemon.post("/merchants/1001/pause", "").await.1["state"], "paused");
    assert_eq!(daemon.post("/merchants/1001/resume", "").await.0, 409);
    daemon.call(Method::PUT, "/merchants/1001", Some(r#"{"access_token":"ory_at_put"}"#)).await;
    assert_eq!(state(&daemon, 1001).await, "active");

    assert!(!daemon.log_text().contains("ory_"), "{}", daemon.log_text());
}

/// A platform refreshes the tokens and pushes them here.
async fn pushed_tokens_leave_a_pause(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let daemon = site.serve().await;
    let line: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
    let body = json!({"access_token": line["access_token"]}).to_string();
    let push = async |path: &str, body: &str| {
        let (status, _, merchant) = daemon.call(Method::PUT, path, Some(body)).await;
        (status.as_u16(), merchant["state"].as_str().unwrap_or_default().to_owned())
    };
    daemon.post("/merchants/1001/pause", "").await;
    assert_eq!(push("/merchants/1001/token", &body).await, (200, "paused".to_owned()));
    daemon.post("/merchants/1001/resume", "").await;
    site.database.execute("UPDATE merchants SET state = 'needs_reauthorization'", []).await;
    assert_eq!(push("/merchants/1001/token", &body).await, (200, "active".to_owned()));
    // Without a refresh token, this program refreshes nothing.
    assert_eq!(site.database.number("SELECT count(*) FROM credentials WHERE refresh_token IS NULL").await, 1);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [2, 2, 0, 0, 0, 0]);
    site.database.execute("UPDATE merchants SET state = 'uninstalled'", []).await;
    assert_eq!(push("/merchants/1001/token", &body).await.0, 409);
    for (path, body, status) in [
        ("/merchants/4242/token", r#"{"access_token":"ory_at_put"}"#, 404),
        ("/merchants/x/token", &body, 400),
        ("/merchants/1001/token", r#"{"access_token":"a","name":"b"}"#, 400),
        ("/merchants/1001/token", r#"{"access_token":"a b"}"#, 422),
    ] {
        assert_eq!(push(path, body).await.0, status, "{path} {body}");
    }
    let audit = "SELECT count(*) FROM audit WHERE action = 'merchant.tokens'";
    assert_eq!(site.database.number(audit).await, 2);
    assert!(!daemon.log_text().contains(line["access_token"].as_str().unwrap()));
}

async fn paging_through_the_register(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    for id in 1001..=1007 {
        daemon.call(Method::PUT, &format!("/merchants/{id}"), Some(r#"{"access_token":"ory_at_put"}"#)).await;
    }
    daemon.post("/merchants/1003/pause", "").await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, body) = daemon.get(&format!("/merchants?limit=3{cursor}")).await;
        let page = body["merchants"].as_array().unwrap().clone();
        assert!(page.len() <= 3);
        seen.extend(page.iter().map(|merchant| merchant["merchant_id"].as_i64().unwrap()));
        let Some(next) = body["next_cursor"].as_i64() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (1001..=1007).collect::<Vec<i64>>());
    let (_, paused) = daemon.get("/merchants?state=paused").await;
    assert_eq!((&paused["merchants"][0]["merchant_id"], &paused["next_cursor"]), (&json!(1003), &Value::Null));
    for query in ["limit=0", "limit=501", "state=sleepy", "cursor=x", "page=2"] {
        assert_eq!(daemon.get(&format!("/merchants?{query}")).await.0, 400, "{query}");
    }
}

async fn invalid_registrations_are_refused(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    let long = format!(r#"{{"access_token":"canary{}"}}"#, "x".repeat(9000));
    let name = format!(r#"{{"access_token":"canary","name":"{}"}}"#, "ن".repeat(201));
    for (path, body, status) in [
        ("/merchants/1001", "", 400),
        ("/merchants/1001", "canary", 400),
        ("/merchants/1001", r#"[null,"canary",null,null]"#, 400),
        ("/merchants/1001", r#"{"access_token":"canary","surprise-canary":1}"#, 400),
        ("/merchants/1001", r#"{"access_token":["canary"]}"#, 400),
        ("/merchants/1001", r#"{"refresh_token":"canary"}"#, 400),
        ("/merchants/1001", r#"{"access_token":"canary","expires_at":"canary"}"#, 400),
        ("/merchants/x", r#"{"access_token":"canary"}"#, 400),
        ("/merchants/1001", r#"{"access_token":""}"#, 422),
        ("/merchants/1001", r#"{"access_token":"canary","refresh_token":""}"#, 422),
        ("/merchants/1001", r#"{"access_token":"canary two"}"#, 422),
        ("/merchants/1001", r#"{"access_token":"cänary"}"#, 422),
        ("/merchants/1001", r#"{"access_token":"canary","expires_at":"-9999-01-01T00:00:00Z"}"#, 422),
        ("/merchants/1001", &long, 422),
        ("/merchants/1001", &name, 422),
        ("/merchants/1001", r#"{"access_token":"canary","name":"nul \u0000 canary"}"#, 422),
    ] {
        let (got, headers, problem) = daemon.call(Method::PUT, path, Some(body)).await;
        assert_eq!(got, status, "{body}: {problem}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    assert_eq!(daemon.get("/merchants").await.1["merchants"], json!([]));
    assert_eq!(daemon.call(Method::PUT, "/merchants/1001", Some(&"x".repeat(70_000))).await.0, 413);
    assert!(!daemon.log_text().contains("canary"), "{}", daemon.log_text());
}

async fn a_pause_cancels_what_the_schedule_queued(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 30), shop(1002, 0, 1)]).await;
    // One place, and somebody is in it for long.
    site.set("RECONCILE__CONCURRENCY", "1");
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(300)));
    site.set("SCHEDULE__CRON", "*/2 * * * * *");
    let daemon = site.serve().await;
    daemon.await_run("merchant_id=1001&status=running", |_| true).await;
    daemon.await_run("merchant_id=1002&status=queued", |run| run["trigger"] == "schedule").await;
    let (status, by_hand) = daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    let queued = |trigger: &str| {
        format!("SELECT count(*) FROM runs WHERE merchant_id = 1002 AND status = 'queued' AND trigger {trigger} 'http'")
    };
    daemon.post("/merchants/1002/pause", "").await;
    assert_eq!(site.database.number(&queued("<>")).await, 0);
    assert!(
        site.database.number("SELECT count(*) FROM runs WHERE merchant_id = 1002 AND status = 'cancelled'").await > 0
    );
    // The schedule's run stood in the way of one by hand, or it did not: now nothing does.
    if status == StatusCode::CONFLICT {
        assert_eq!(daemon.post("/runs", r#"{"merchant_id":1002}"#).await.0, 202, "{by_hand}");
    }
    assert_eq!(site.database.number(&queued("=")).await, 1);
    daemon.post("/merchants/1002/pause", "").await;
    assert_eq!(site.database.number(&queued("=")).await, 1, "a person asked for it");
}

/// In any order of arrival, the result is one that some order of the requests leads to.
async fn changes_at_the_same_moment(engine: Engine) {
    let site = Site::unregistered(engine, []).await;
    let daemon = site.serve().await;
    for merchant in 1..=4 {
        let path = format!("/merchants/{merchant}");
        let put = || daemon.call(Method::PUT, &path, Some(r#"{"access_token":"ory_at_put"}"#));
        let mut statuses = futures::future::join_all((0..4).map(|_| put())).await;
        statuses.sort_by_key(|answer| answer.0);
        let statuses: Vec<u16> = statuses.iter().map(|answer| answer.0.as_u16()).collect();
        assert_eq!(statuses, [200, 200, 200, 201]);
        let (pause, run) = (format!("{path}/pause"), format!(r#"{{"merchant_id":{merchant}}}"#));
        let uninstalled = event("app.uninstalled", merchant, Utc::now());
        let (result, _, (status, _)) =
            tokio::join!(deliver(&daemon, &uninstalled), daemon.post(&pause, ""), daemon.post("/runs", &run));
        assert_eq!(result, "applied");
        assert!([202, 409].contains(&status.as_u16()), "{status}");
        assert_eq!(state(&daemon, merchant).await, "uninstalled");
        let left =
            format!("SELECT count(*) FROM runs WHERE merchant_id = {merchant} AND status IN ('queued', 'running')");
        assert_eq!(site.database.number(&left).await, 0);
        assert_eq!(stored(&site, merchant).await, None);
    }
}

/// A change that another process has begun, which ends while `meanwhile` is under way.
async fn during<T>(site: &Site, change: &str, meanwhile: impl Future<Output = T>) -> T {
    let txn = site.database.db.begin().await.unwrap();
    txn.execute_unprepared(change).await.unwrap();
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        txn.commit().await.unwrap();
    };
    tokio::join!(meanwhile, end).0
}

async fn a_pause_at_the_start_of_a_sweep(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    let store = Store::connect(&site.database.url.clone().into(), SCHEMA, 2, Duration::from_secs(60)).await.unwrap();
    let firing = SweepDecision::Run { trigger: Trigger::Schedule, spread: Duration::ZERO };
    let fire = store.record_sweep(Utc::now(), "pattern", firing);
    let runs = during(&site, "UPDATE merchants SET state = 'paused' WHERE merchant_id = 1001", fire).await.unwrap();
    assert_eq!(runs.map(|fired| fired.runs), Some(1));
    store.enqueue_deferred().await.unwrap();
    assert_eq!(site.database.number("SELECT merchant_id FROM runs").await, 1002);
}

async fn new_tokens_win_over_a_concurrent_refusal(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let store = Store::connect(&site.database.url.clone().into(), SCHEMA, 2, Duration::from_secs(60)).await.unwrap();
    let version = store.load(MerchantId(1001)).await.unwrap().unwrap().version;
    let replace = "UPDATE merchants SET name = 'new'; UPDATE credentials SET version = version + 2";
    during(&site, replace, store.revoked(MerchantId(1001), version)).await.unwrap();
    assert_eq!(site.database.text("SELECT state FROM merchants").await, "active");
    store.revoked(MerchantId(1001), version + 2).await.unwrap();
    assert_eq!(site.database.text("SELECT state FROM merchants").await, "needs_reauthorization");
}

async fn an_uninstalled_merchant_on_the_command_line(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 1)]).await;
    let daemon = site.serve().await;
    deliver(&daemon, &event("app.uninstalled", 1001, Utc::now())).await;
    drop(daemon);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "no_token", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("uninstalled"), "{run}");
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).objects().len(), 1);
    for command in ["pause", "resume"] {
        let refused = site.run(&["merchants", command, "1001"]).await.exits(1);
        assert!(refused.stderr.contains("uninstalled"), "{}", refused.stderr);
    }
    let list = site.run(&["merchants", "list"]).await.exits(0).stdout;
    assert!(list.contains("uninstalled: the merchant uninstalled the app"), "{list}");
    let check = site.run(&["check"]).await.exits(0).stdout;
    assert!(check.contains("1 uninstalled (the merchant uninstalled the app"), "{check}");
    site.register(1001).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
}

/// An event from before an import by hand says nothing about the import.
async fn events_from_before_an_import(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    for body in [
        authorization(1001, "ory_at_before", "ory_rt_before", Utc::now() - TimeDelta::hours(4)),
        event("app.uninstalled", 1001, Utc::now() - TimeDelta::hours(4)),
    ] {
        assert_eq!(deliver(&daemon, &body).await, "outdated");
    }
    assert_eq!(state(&daemon, 1001).await, "active");
    assert_ne!(stored(&site, 1001).await.unwrap().0, "ory_at_before");
    // Stamps say no zone, and may seem to lie three hours back.
    let wrong_zone = Utc::now() - TimeDelta::hours(3) + TimeDelta::minutes(1);
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1001, wrong_zone)).await, "applied");
}

async fn an_event_from_the_future_does_not_block_others(engine: Engine) {
    let site = Site::unregistered(engine, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let far = Utc::now() + TimeDelta::days(365);
    assert_eq!(deliver(&daemon, &authorization(1001, "ory_at_far", "ory_rt_far", far)).await, "applied");
    let now = Utc::now() + TimeDelta::seconds(1);
    assert_eq!(deliver(&daemon, &event("app.uninstalled", 1001, now)).await, "applied");
    assert_eq!(state(&daemon, 1001).await, "uninstalled");
}

/// Strangers who dribble what they send keep Salla waiting for nothing, and do not go unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end() {
    let site = Site::unregistered(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let address = daemon.url.strip_prefix("http://").unwrap().to_owned();
    let mut held = Vec::new();
    for length in std::iter::repeat_n(900_000, 40).chain(std::iter::repeat_n(60_000, 40)) {
        let mut stranger = TcpStream::connect(&address).await.unwrap();
        let head = format!("POST /webhooks/salla HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{{");
        stranger.write_all(head.as_bytes()).await.unwrap();
        held.push(stranger);
    }
    let began = Instant::now();
    assert_eq!(deliver(&daemon, &installation(&site, 1001, Utc::now())).await, "applied");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut answer = [0; 12];
    held[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    daemon
        .await_line(|line| line["message"].as_str().is_some_and(|text| text.contains("was not received in time")))
        .await;
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = r#"salla_reconciler_webhooks_total{event="other",result="late"}"#;
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");
}

/// The program keeps little of a head, because everyone may open a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_header_is_refused() {
    let site = Site::unregistered(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let address = daemon.url.strip_prefix("http://").unwrap().to_owned();
    for (length, status) in [(8_000, "200"), (40_000, "431")] {
        let mut stranger = TcpStream::connect(&address).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nx-long: {}\r\n\r\n", "a".repeat(length));
        // It may be refused before all of it is sent.
        let _ = stranger.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        stranger.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"));
    }
}
