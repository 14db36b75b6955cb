//! A refresh token is good once. In every situation around its use, the program does not use it twice.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use nix::sys::signal::Signal;
use salla_reconciler::simulator::{Fault, Gate};
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Engine, Site,
    site::{shop, totals},
    until,
};

on_every_database!(
    four_daemons_renew_a_token_once,
    killed_between_the_answer_and_the_save,
    a_broken_token_answer_is_never_repeated,
    the_old_token_is_used_until_it_expires,
    five_kinds_of_401,
    no_connection_to_the_token_endpoint_is_used_twice,
    a_replaced_token_that_salla_repeats_is_not_shown,
    new_tokens_are_read_as_generously_as_possible,
    a_refused_merchant_is_not_asked_about_again,
    tokens_of_paused_merchants_are_refreshed,
    unreadable_tokens_do_not_stop_other_refreshes,
    a_failing_token_endpoint_ends_at_most_one_installation,
    a_retry_after_of_the_token_endpoint_is_kept,
    new_tokens_are_kept_while_the_database_refuses_writes,
    unsaved_tokens_delay_no_other_merchant,
);

/// A token of a fortnight, on its last hour.
pub async fn expires_soon(site: &Site) {
    let (soon, then) = (Utc::now() + TimeDelta::hours(1), Utc::now() - TimeDelta::days(13));
    site.database.execute("UPDATE credentials SET expires_at = $1, issued_at = $2", [soon.into(), then.into()]).await;
}

async fn state(site: &Site) -> String {
    site.database.text("SELECT state FROM merchants WHERE merchant_id = 1001").await
}

/// How many merchants have tokens that last.
async fn renewed(site: &Site) -> i64 {
    let next_week = (Utc::now() + TimeDelta::days(7)).to_rfc3339();
    site.database.number(&format!("SELECT count(*) FROM credentials WHERE expires_at > '{next_week}'")).await
}

async fn four_daemons_renew_a_token_once(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 3)]).await;
    site.set("SALLA__REQUEST_TIMEOUT", "15s");
    expires_soon(&site).await;
    // While the first of them waits for the answer, the others find the token about to end.
    site.salla.world().token_faults.extend([Fault::Hang(Duration::from_secs(2)), Fault::Hang(Duration::from_secs(2))]);
    let daemons = futures::future::join_all((0..4).map(|_| site.serve())).await;
    for merchant in [1001, 1002] {
        daemons[0].post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
        daemons[0].await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
    }
    until("both are renewed", async || site.salla.world().refreshes == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.salla.world().refreshes, 2);
    assert_eq!(site.salla.world().violations, [""; 0]);
    until("both are saved", async || renewed(&site).await == 2).await;
    assert_eq!(state(&site).await, "active");
}

async fn killed_between_the_answer_and_the_save(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.set("SALLA__REQUEST_TIMEOUT", "15s");
    expires_soon(&site).await;
    let answer = Gate::default();
    site.salla.world().token_faults.push_back(Fault::Hold(answer.clone()));
    let mut daemon = site.serve().await;
    let marked = "SELECT count(*) FROM credentials WHERE refresh_started_at IS NOT NULL";
    until("the refresh is marked", async || site.database.number(marked).await == 1).await;
    // The new tokens come, and cannot be saved.
    let lock = site.database.db.begin().await.unwrap();
    lock.execute_unprepared("UPDATE credentials SET version = version").await.unwrap();
    answer.open();
    until("Salla has answered", async || site.salla.world().refreshes == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.signal(Signal::SIGKILL);
    daemon.wait().await;
    if site.database.is_postgres() {
        // It would go on with the statement of a client that is gone.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'salla-reconciler' AND datname = current_database()";
        lock.execute_unprepared(end).await.unwrap();
    }
    lock.rollback().await.unwrap();

    // Another process waits for the one that may still be at it, and then none tries.
    let daemon = site.serve().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(state(&site).await, "active");
    drop(daemon);
    let long_ago = Utc::now() - TimeDelta::minutes(3);
    site.database.execute("UPDATE credentials SET refresh_started_at = $1", [long_ago.into()]).await;
    let daemon = site.serve().await;
    let told = daemon.await_line(|line| line["message"].as_str().is_some_and(|text| text.contains("outcome"))).await;
    assert_eq!((told["merchant.id"].clone(), told["level"].clone()), (json!(1001), json!("ERROR")), "{told}");
    assert_eq!(state(&site).await, "needs_reauthorization");
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let run = daemon.await_run("", |run| run["status"] == "failed").await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("install the app again"), "{run}");
    assert_eq!(site.salla.world().refreshes, 1);
    assert_eq!(site.salla.world().violations, [""; 0]);
}

async fn a_broken_token_answer_is_never_repeated(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().script(1001, [Fault::TokenEnded]);
    site.salla.world().token_faults.push_back(Fault::CutOff);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("outcome"), "{run}");
    site.reconcile(1001, &[]).await;
    assert_eq!(site.salla.world().violations, [""; 0]);
    assert_eq!(state(&site).await, "needs_reauthorization");
}

async fn the_old_token_is_used_until_it_expires(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3)]).await;
    expires_soon(&site).await;
    site.salla.world().token_faults.push_back(Fault::status(502));
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(state(&site).await, "needs_reauthorization");
    // Every way to a run leads on: by name, all of them, and the schedule's.
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.run(&["run", "--json"]).await.exits(0).object()["status"], "succeeded");
    site.set("SCHEDULE__CRON", "*/2 * * * * *");
    let daemon = site.serve().await;
    daemon.await_run("status=succeeded", |run| run["trigger"] == "schedule").await;
    drop(daemon);
    assert_eq!(site.salla.world().refreshes, 0);
    // When it has ended, it has.
    let ended = Utc::now() - TimeDelta::minutes(1);
    let long_ago = Utc::now() - TimeDelta::minutes(3);
    site.database
        .execute("UPDATE credentials SET expires_at = $1, refresh_started_at = $2", [ended.into(), long_ago.into()])
        .await;
    assert!(site.run(&["run", "--json"]).await.exits(0).stdout.is_empty());
    site.salla.world().script(1001, [Fault::TokenEnded]);
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "needs_reauthorization");
    assert_eq!(site.salla.world().refreshes, 0);
}

fn unauthorized(message: &str) -> Fault {
    let body = json!({"status": 401, "success": false, "error": {"code": "Unauthorized", "message": message}});
    Fault::Answer {
        status: 401,
        headers: vec![("content-type", "application/json".to_owned())],
        body: body.to_string(),
    }
}

async fn five_kinds_of_401(engine: Engine) {
    for (message, kind, state_then) in [
        ("The User is not exists.", "needs_reauthorization", "needs_reauthorization"),
        ("عفوا لا يمكنك تسجيل الدخول, حسابك غير مفعل", "needs_reauthorization", "needs_reauthorization"),
        ("The access token should have access to one of those scopes: orders.read", "missing_scope", "active"),
    ] {
        let site = Site::new(engine, [shop(1001, 0, 3)]).await;
        site.salla.world().script(1001, [unauthorized(message)]);
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], kind, "{run}");
        assert_eq!(state(&site).await, state_then, "{message}");
        assert_eq!(site.salla.world().refreshes, 0, "{message}");
    }
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    // A proxy's own refusal says nothing about the token.
    let proxy = Fault::Answer {
        status: 401,
        headers: vec![("content-type", "text/html".to_owned())],
        body: "<h1>no".to_owned(),
    };
    let gateway = Fault::Answer {
        status: 401,
        headers: vec![("content-type", "application/json".to_owned())],
        body: r#"{"message":"Unauthorized"}"#.to_owned(),
    };
    site.salla.world().script(1001, [proxy, gateway]);
    for _ in 0..2 {
        assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "salla_request_rejected");
        assert_eq!(site.salla.world().refreshes, 0);
    }
    // The one that is worth a refresh; once, even where it does not help, which may be a moment's trouble.
    site.salla.world().script(1001, [Fault::TokenEnded]);
    assert_eq!(totals(&site.reconcile(1001, &[]).await), [3, 3, 0, 0, 0, 0]);
    assert_eq!(site.salla.world().refreshes, 1);
    site.salla.world().script(1001, [Fault::TokenEnded, Fault::TokenEnded]);
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "salla_request_rejected");
    assert_eq!(site.salla.world().refreshes, 2);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    // And the fifth: the refresh token itself was used before.
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.import(r#"{"merchant_id":1001,"access_token":"ended","refresh_token":"ory_rt_1001_0"}"#).await.exits(0);
    let run = site.reconcile(1001, &[]).await;
    assert!(run["error"]["message"].as_str().unwrap().contains("invalid_grant"), "{run}");
    assert_eq!(state(&site).await, "needs_reauthorization");
}

/// An endpoint that answers one request on each connection, and hangs up on the second. Returns its port.
async fn hangs_up_on_the_second_request(endpoint: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&endpoint).await.unwrap();
            tokio::spawn(async move {
                let (mut question, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
                let mut answered = false;
                loop {
                    tokio::select! {
                        asked = client.read(&mut question) => match asked {
                            Ok(1..) if answered => return,
                            Ok(length @ 1..) => server.write_all(&question[..length]).await.unwrap(),
                            _ => return,
                        },
                        told = server.read(&mut answer) => match told {
                            Ok(length @ 1..) => {
                                client.write_all(&answer[..length]).await.unwrap();
                                answered = true;
                            }
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    port
}

async fn no_connection_to_the_token_endpoint_is_used_twice(engine: Engine) {
    let mut site = Site::new(engine, (1..=6).map(|store| shop(store, 0, 1))).await;
    let endpoint = site.salla.token_url().trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let port = hangs_up_on_the_second_request(endpoint).await;
    site.set("SALLA__TOKEN_URL", &format!("http://127.0.0.1:{port}/oauth2/token"));
    let daemon = site.serve().await;
    for store in 1..=6 {
        site.salla.world().script(store, [Fault::TokenEnded]);
        daemon.post("/runs", &format!(r#"{{"merchant_id":{store}}}"#)).await;
        daemon.await_run(&format!("merchant_id={store}"), |run| run["status"] == "succeeded").await;
    }
    assert_eq!(site.salla.world().refreshes, 6);
    assert_eq!(site.database.number("SELECT count(*) FROM merchants WHERE state = 'active'").await, 6);
}

/// Salla refuses the token, and repeats it after it was renewed.
async fn a_replaced_token_that_salla_repeats_is_not_shown(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    let sent = "ory_at_1001_1";
    assert!(site.salla.registration(1001).unwrap().contains(sent));
    let answer = unauthorized(&format!("The access token is invalid: echo {sent} of {}", hex::encode(sent)));
    site.salla.world().script(1001, [answer.clone(), answer]);
    let output = site.run(&["run", "--json", "--merchant", "1001"]).await;
    assert_eq!(site.salla.world().refreshes, 1);
    let told = format!("{}{}", output.stdout, output.stderr);
    assert!(told.contains("echo [secret] of [secret]"), "{told}");
    assert!(!told.contains(sent) && !told.contains(&hex::encode(sent)), "{told}");
}

/// The tokens in a 200 cannot be asked for again.
async fn new_tokens_are_read_as_generously_as_possible(engine: Engine) {
    let plain = r#"{"access_token":"AT","refresh_token":"RT","expires_in":1209599}"#;
    for body in [
        format!("\u{feff}{plain}"),
        format!("\r\n  {plain}\n"),
        plain.replace("1209599", "\"1209599\""),
        plain.replace("1209599", "\"\""),
        plain.replace("1209599", "null").replace('}', r#","scope":["a"],"token_type":7,"extra":{"a":[1]}}"#),
        format!(r#"{{"status":200,"success":true,"data":{plain}}}"#),
        plain.replace('}', ",}"),
        plain.replace('}', ""),
        "access_token=AT&refresh_token=RT&expires_in=1209599".to_owned(),
    ] {
        let site = Site::new(engine, [shop(1001, 0, 3)]).await;
        let body = body.replace("AT", "ory_at_1001_77").replace("RT", "ory_rt_1001_77");
        {
            let mut world = site.salla.world();
            let headers = vec![("content-type", "application/json".to_owned())];
            world.token_faults.push_back(Fault::Answer { status: 200, headers, body: body.clone() });
            world.shop(1001).set_tokens("ory_at_1001_77", "ory_rt_1001_77");
        }
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{body}: {run}");
        assert_eq!(state(&site).await, "active", "{body}");
        // The refresh token was read too.
        site.salla.world().script(1001, [Fault::TokenEnded]);
        assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded", "{body}");
        assert_eq!(site.salla.world().violations, [""; 0]);
    }
}

async fn a_refused_merchant_is_not_asked_about_again(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.salla.world().script(1001, [unauthorized("The User is not exists.")]);
    site.reconcile(1001, &[]).await;
    let asked = site.salla.world().requests_for(1001);
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "needs_reauthorization", "{run}");
    assert_eq!(run["requests"], 0);
    assert!(site.run(&["run", "--json"]).await.exits(0).stdout.is_empty());
    expires_soon(&site).await;
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "failed" && run["trigger"] == "http").await;
    assert_eq!(site.salla.world().requests_for(1001), asked);
    assert_eq!(site.salla.world().refreshes, 0);
    // New tokens are another matter.
    site.register(1001).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
}

async fn tokens_of_paused_merchants_are_refreshed(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 3)]).await;
    site.run(&["merchants", "pause", "1001"]).await.exits(0);
    expires_soon(&site).await;
    let _daemon = site.serve().await;
    until("it is renewed", async || renewed(&site).await == 1).await;
    assert_eq!(site.salla.world().refreshes, 1);
    assert_eq!(state(&site).await, "paused");
}

/// A token endpoint that loses answers costs one merchant's tokens, not a dozen.
async fn a_failing_token_endpoint_ends_at_most_one_installation(engine: Engine) {
    let site = Site::new(engine, (1..=8).map(|store| shop(store, 0, 1))).await;
    let unknown = Fault::Answer { status: 500, headers: Vec::new(), body: String::new() };
    site.salla.world().token_faults.extend((0..8).map(|_| unknown.clone()));
    for store in 1..=8 {
        site.salla.world().script(store, [Fault::TokenEnded]);
    }
    let daemon = site.serve().await;
    for store in 1..=8 {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{store}}}"#)).await;
    }
    until("every store was asked for", async || (1..=8).all(|store| site.salla.world().requests_for(store) > 0)).await;
    until("no run is held", async || {
        site.database.number("SELECT count(*) FROM runs WHERE status = 'running'").await == 0
    })
    .await;
    assert_eq!(site.salla.world().token_faults.len(), 7, "one refresh was sent");
    let lost = "SELECT count(*) FROM merchants WHERE state = 'needs_reauthorization'";
    assert_eq!(site.database.number(lost).await, 1);
    let waiting = "SELECT count(*) FROM runs WHERE status = 'queued' AND error_kind IS NULL";
    assert_eq!(site.database.number(waiting).await, 7, "the others wait for it, and are not failed");
}

/// The run waits as long as the token endpoint asks for, and needs no person to go on.
async fn a_retry_after_of_the_token_endpoint_is_kept(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let busy = Fault::Answer { status: 429, headers: vec![("retry-after", "3600".to_owned())], body: String::new() };
    site.salla.world().token_faults.push_back(busy);
    site.salla.world().script(1001, [Fault::TokenEnded]);
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("it was asked", async || site.salla.world().token_faults.is_empty()).await;
    until("the run waits", async || {
        site.database.number("SELECT count(*) FROM runs WHERE status = 'queued'").await == 1
    })
    .await;
    let waits = if site.database.is_postgres() {
        "SELECT CAST(extract(epoch FROM scheduled_at - now()) AS bigint) FROM runs"
    } else {
        "SELECT CAST(strftime('%s', scheduled_at) - strftime('%s', 'now') AS INTEGER) FROM runs"
    };
    let waits = site.database.number(waits).await;
    assert!((3500..=3700).contains(&waits), "{waits} s");
    assert_eq!(state(&site).await, "active");
    assert_eq!(site.salla.world().refreshes, 0);
}

/// The new tokens are nowhere but in this process: it goes on trying for as long as it lives.
async fn new_tokens_are_kept_while_the_database_refuses_writes(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let (begin, end) = if site.database.is_postgres() {
        site.database
            .execute(
                "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$",
                [],
            )
            .await;
        (
            "CREATE TRIGGER no_room BEFORE UPDATE OF access_token ON credentials FOR EACH ROW EXECUTE FUNCTION nothing()",
            "DROP TRIGGER no_room ON credentials",
        )
    } else {
        (
            "CREATE TRIGGER no_room BEFORE UPDATE OF access_token ON credentials BEGIN SELECT RAISE(ABORT, 'disk full'); END",
            "DROP TRIGGER no_room",
        )
    };
    expires_soon(&site).await;
    site.database.execute(begin, []).await;
    let daemon = site.serve().await;
    let in_vain = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|message| message.contains("new tokens could not be written"))
    };
    until("it tries again", async || daemon.log().iter().filter(|line| in_vain(line)).count() > 2).await;
    site.database.execute(end, []).await;
    until("they are saved", async || renewed(&site).await == 1).await;
    assert_eq!(site.salla.world().refreshes, 1);
    assert_eq!(state(&site).await, "active");
}

async fn unsaved_tokens_delay_no_other_merchant(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2)]).await;
    site.set("SHUTDOWN__GRACE", "2s");
    if site.database.is_postgres() {
        let refuse = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS \
                      $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$";
        site.database.execute(refuse, []).await;
        let trigger = "CREATE TRIGGER no_room BEFORE UPDATE OF access_token ON credentials FOR EACH ROW \
                       WHEN (NEW.merchant_id = 1001) EXECUTE FUNCTION nothing()";
        site.database.execute(trigger, []).await;
    } else {
        let trigger = "CREATE TRIGGER no_room BEFORE UPDATE OF access_token ON credentials WHEN NEW.merchant_id = 1001 \
                       BEGIN SELECT RAISE(ABORT, 'disk full'); END";
        site.database.execute(trigger, []).await;
    }
    expires_soon(&site).await;
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let in_vain = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|message| message.contains("new tokens could not be written"))
    };
    daemon.await_line(in_vain).await;
    daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
    daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
    assert_eq!(renewed(&site).await, 1);
    assert_eq!(site.salla.world().refreshes, 2);
    assert_eq!(site.salla.world().violations, [""; 0]);
    // If the process ends meanwhile, the log says what this costs.
    let mut daemon = daemon;
    daemon.signal(Signal::SIGTERM);
    daemon.wait().await;
    assert!(daemon.log_text().contains("new tokens are not stored"), "{}", daemon.log_text());
}

/// More of them than are renewed at once, all of them ending first.
async fn unreadable_tokens_do_not_stop_other_refreshes(engine: Engine) {
    let mut site = Site::unregistered(engine, [shop(1001, 0, 1)]).await;
    let lines: Vec<String> = (2001..=2060)
        .map(|merchant| {
            json!({"merchant_id": merchant, "access_token": "a-canary", "refresh_token": "r-canary", "expires_at": Utc::now()})
                .to_string()
        })
        .collect();
    site.import(&lines.join("\n")).await.exits(0);
    expires_soon(&site).await;
    let key = site.new_key("other").await;
    site.set("VAULT__KEYS", &key);
    site.register(1001).await;
    let (later, then) = (Utc::now() + TimeDelta::hours(2), Utc::now() - TimeDelta::days(13));
    let sql = "UPDATE credentials SET expires_at = $1, issued_at = $2 WHERE merchant_id = 1001";
    site.database.execute(sql, [later.into(), then.into()]).await;
    site.run(&["merchants", "pause", "1001"]).await.exits(0);
    let _daemon = site.serve().await;
    until("its token is renewed", async || site.salla.world().refreshes == 1).await;
}
