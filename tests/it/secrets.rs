//! Tokens: encrypted at rest, renewed once, never shown.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::Fault;

use crate::support::{
    Engine, Site,
    site::{KEYS, shop, totals},
};

on_every_database!(
    a_token_expires,
    four_processes_refresh_once,
    an_unknown_outcome_is_never_sent_again,
    a_refused_refresh_is_final,
    a_token_that_cannot_be_read_fails_its_run,
    keys_are_rotated,
    no_secret_is_ever_shown,
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

    // Ahead of its end, too.
    expires_soon(&site).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().refreshes, 2);
    assert!(site.salla.world().violations.is_empty());
}

/// A token of a fortnight, on its last hour.
async fn expires_soon(site: &Site) {
    let (soon, then) = (Utc::now() + TimeDelta::hours(1), Utc::now() - TimeDelta::days(13));
    site.database.execute("UPDATE credentials SET expires_at = $1, obtained_at = $2", [soon.into(), then.into()]).await;
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
    // Sweeps leave it alone; a new import mends it.
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

async fn a_token_that_cannot_be_read_fails_its_run(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    site.database.execute("UPDATE credentials SET access_token = (SELECT access_token FROM credentials WHERE merchant_id = 1002) WHERE merchant_id = 1001", []).await;
    let output = site.run(&["run", "--json"]).await.exits(1);
    let run = output.objects().into_iter().find(|run| run["merchant_id"] == 1001).unwrap();
    assert_eq!(run["error"]["kind"], "token_unreadable");
    assert!(run["error"]["message"].as_str().unwrap().contains("merchant 1001"), "{run}");

    let other = site.run(&["keys", "generate", "--id", "other"]).await.exits(0);
    site.set("VAULT__KEYS", other.stdout.trim());
    let run = site.reconcile(1002, &[]).await;
    assert_eq!(run["error"]["kind"], "token_unreadable");
    assert!(run["error"]["message"].as_str().unwrap().contains(r#"key "test""#), "{run}");
    site.database.execute("DELETE FROM credentials", []).await;
    assert_eq!(site.reconcile(1002, &[]).await["error"]["kind"], "no_token");
}

async fn keys_are_rotated(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    let new = site.run(&["keys", "generate", "--id", "new"]).await.exits(0).stdout;
    assert!(new.starts_with("new:"));
    site.set("VAULT__KEYS", &format!("{},{KEYS}", new.trim()));
    assert!(site.run(&["keys", "rotate"]).await.exits(0).stdout.contains("2 encrypted anew"));
    assert!(site.run(&["keys", "rotate"]).await.exits(0).stdout.contains("2 were already"));
    site.set("VAULT__KEYS", new.trim());
    site.run(&["run"]).await.exits(0);
}

/// Canaries are sown as tokens, keys and secrets, and looked for in every log line at trace level, every
/// answer, every error and every row.
async fn no_secret_is_ever_shown(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 3), shop(1002, 0, 1)]).await;
    site.set("HTTP__API_TOKEN", "operator-canary");
    site.salla.world().script(1001, [Fault::TokenEnded, Fault::Truncated]);
    site.salla.world().always.insert(1002, Fault::status(401));
    let mut shown = String::new();
    for args in [&["run", "--json"][..], &["run"], &["merchants", "list"], &["check"], &["migrate", "status"]] {
        let mut command = site.command(args);
        let output = command.env("RUST_LOG", "trace").output().await.unwrap();
        shown += &String::from_utf8_lossy(&output.stdout);
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    let bad = site.import(r#"{"merchant_id":1001,"access_token":"ory_at_bad","refresh":"ory_rt_bad"}"#).await;
    shown += &(bad.stdout + &bad.stderr);
    let daemon = site.serve().await;
    for path in ["/runs", "/merchants", "/healthz", "/metrics"] {
        shown += &daemon.get(path).await.1.to_string();
    }
    shown += &daemon.log_text();
    for table in ["merchants", "credentials", "runs", "discrepancies", "watermarks", "audit"] {
        let json = if site.database.is_postgres() {
            format!("SELECT row_to_json(t)::text FROM {table} t")
        } else {
            dump(&site, table).await
        };
        for row in site.database.rows(&json).await {
            shown += &row.try_get_by_index::<String>(0).unwrap();
        }
    }
    assert!(shown.contains("needs_reauthorization") && shown.contains("v1.test."), "the canary test saw too little");
    let key = KEYS.split_once(':').unwrap().1;
    for canary in ["ory_at_", "ory_rt_", "app-secret-canary", "operator-canary", key] {
        assert!(
            !shown.contains(canary),
            "{canary} was shown: {}",
            &shown[shown.find(canary).unwrap().saturating_sub(200)..][..400]
        );
    }
}

/// SQL that writes each row of a table as one text.
async fn dump(site: &Site, table: &str) -> String {
    let columns = site.database.rows(&format!("SELECT name FROM pragma_table_info('{table}')")).await;
    let columns: Vec<String> =
        columns.iter().map(|row| format!("quote({})", row.try_get_by_index::<String>(0).unwrap())).collect();
    format!("SELECT CAST({} AS TEXT) FROM {table}", columns.join(" || ' ' || "))
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
    let bad = site.import("{\"merchant_id\":5,\"access_token\":\"a\"}\nnonsense\n").await.exits(1);
    assert!(bad.stderr.contains("line 2 is not imported; the 1 before it are"), "{}", bad.stderr);
    for token in ["", "two\\nlines", "ünïcode"] {
        let line = format!(r#"{{"merchant_id":5,"access_token":"{token}"}}"#);
        assert!(site.import(&line).await.exits(1).stderr.contains("access_token"), "{token}");
    }
    assert!(site.run(&["merchants", "import", "nowhere.jsonl"]).await.exits(1).stderr.contains("nowhere.jsonl"));
}
