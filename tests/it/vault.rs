//! Tokens at rest: keys that change while everything runs, and texts that somebody laid hands on.

use std::process::Stdio;

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::Simulator;

use crate::support::{
    Engine, Site,
    site::{KEYS, shop},
};

on_every_database!(
    rotating_the_vault_key,
    a_rotation_during_refreshes_loses_no_token,
    a_killed_rotation_can_be_repeated,
    a_key_that_is_missing_or_wrong_is_named,
    a_modified_ciphertext_does_not_decrypt,
);

/// How-to, "Rotate keys and secrets".
async fn rotating_the_vault_key(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    let new = site.new_key("new").await;
    site.set("VAULT__KEYS", &format!("{KEYS},{new}"));
    let daemon = site.serve().await;
    site.set("VAULT__KEYS", &format!("{new},{KEYS}"));
    let rotated = site.run(&["keys", "rotate"]).await.exits(0).stdout;
    assert!(rotated.contains(r#"2 re-encrypted under "new", 0 were already, 0 cannot be read"#), "{rotated}");
    assert!(rotated.contains(r#"Tokens: 4 under "new", none under "test", which can be removed"#), "{rotated}");
    assert!(site.run(&["keys", "rotate"]).await.exits(0).stdout.contains("0 re-encrypted"));
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    drop(daemon);

    let check = site.run(&["check"]).await.exits(0).stdout;
    assert!(
        check.contains(r#"can be read; tokens by key: 4 under "new", none under "test", which can be removed"#),
        "{check}"
    );
    site.set("VAULT__KEYS", &new);
    site.run(&["run"]).await.exits(0);
    assert!(site.run(&["check"]).await.exits(0).stdout.contains(r#"can be read; tokens by key: 4 under "new""#));
}

async fn a_rotation_during_refreshes_loses_no_token(engine: Engine) {
    let merchants = 1001..1041;
    let mut site = Site::unregistered(engine, merchants.clone().map(|merchant| shop(merchant, 0, 1))).await;
    let lines: Vec<String> = merchants.clone().filter_map(|merchant| site.salla.registration(merchant)).collect();
    site.import(&lines.join("\n")).await.exits(0);
    let (soon, then) = (Utc::now() + TimeDelta::hours(1), Utc::now() - TimeDelta::days(13));
    site.database.execute("UPDATE credentials SET expires_at = $1, issued_at = $2", [soon.into(), then.into()]).await;

    let new = site.new_key("new").await;
    // The daemon still seals under the old key, so that texts change under the rotation's hands in both directions.
    site.set("VAULT__KEYS", &format!("{KEYS},{new}"));
    let daemon = site.serve().await;
    site.set("VAULT__KEYS", &format!("{new},{KEYS}"));
    for merchant in merchants.clone() {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    let mut ended = 0;
    while ended < merchants.clone().count() {
        site.run(&["keys", "rotate"]).await.exits(0);
        ended = daemon.get("/runs?status=succeeded&limit=100").await.1["runs"].as_array().unwrap().len();
        let failed = daemon.get("/runs?status=failed").await.1;
        assert_eq!(failed["runs"].as_array().unwrap().len(), 0, "{failed}");
    }
    drop(daemon);
    site.run(&["keys", "rotate"]).await.exits(0);
    site.set("VAULT__KEYS", &new);
    // The stored tokens are the ones that Salla issued last: none is refused, and none needs another refresh.
    site.run(&["run"]).await.exits(0);
    let world = site.salla.world();
    assert_eq!(world.refreshes, 40);
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

async fn a_killed_rotation_can_be_repeated(engine: Engine) {
    const MERCHANTS: i64 = 500;
    let mut site = Site::unregistered(engine, []).await;
    let line =
        |id: i64| format!(r#"{{"merchant_id":{id},"access_token":"ory_at_{id}_1","refresh_token":"ory_rt_{id}_1"}}"#);
    site.import(&(1..=MERCHANTS).map(line).collect::<Vec<_>>().join("\n")).await.exits(0);
    let new = site.new_key("new").await;
    site.set("VAULT__KEYS", &format!("{new},{KEYS}"));
    let under_new =
        "SELECT count(*) FROM credentials WHERE access_token LIKE 'v1.new.%' AND refresh_token LIKE 'v1.new.%'";
    let torn = "SELECT count(*) FROM credentials WHERE substr(access_token, 1, 7) <> substr(refresh_token, 1, 7)";

    let mut at_least = 20;
    for _ in 0..3 {
        let mut child = site.command(&["keys", "rotate"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while site.database.number(under_new).await < at_least && child.try_wait().unwrap().is_none() {}
        child.kill().await.unwrap();
        let done = site.database.number(under_new).await;
        assert!((at_least..MERCHANTS).contains(&done), "it was not killed midway: {done}");
        assert_eq!(site.database.number(torn).await, 0, "a merchant's tokens are under two keys");
        at_least = done + 20;
    }
    let output = site.run(&["keys", "rotate"]).await.exits(0).stdout;
    assert!(output.contains(r#"Tokens: 1000 under "new", none under "test""#), "{output}");
    site.set("VAULT__KEYS", &new);
    assert!(site.run(&["check"]).await.exits(0).stdout.contains("the tokens of all 500 merchant(s) can be read"));
}

async fn a_key_that_is_missing_or_wrong_is_named(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 1)]).await;
    let (other, wrong) = (site.new_key("other").await, site.new_key("test").await);
    for (keys, words) in [
        (other.clone(), r#"merchant 1001 cannot be read: it is encrypted with key "test", which is not in vault.keys"#),
        (
            wrong.clone(),
            r#"merchant 1001 cannot be read: decryption with key "test" failed: the key was replaced under the same id"#,
        ),
        (
            format!("{other},{wrong}"),
            r#"merchant 1001 cannot be read: decryption with key "test" failed: the key was replaced under the same id"#,
        ),
    ] {
        site.set("VAULT__KEYS", &keys);
        let before = site.database.text("SELECT access_token || refresh_token FROM credentials").await;
        let run = site.run(&["run", "--json"]).await.exits(1);
        assert_eq!(run.object()["error"]["kind"], "token_decryption_failed");
        assert!(run.object()["error"]["message"].as_str().unwrap().contains(words), "{run:?}");
        let line = run.stderr.lines().find(|line| line.contains("run ended")).unwrap();
        assert!(line.contains(&words.replace('"', r#"\""#)), "{line}");
        let check = site.run(&["check"]).await.exits(1).stdout;
        assert!(check.contains("FAIL  vault") && check.contains(words), "{check}");
        let rotate = site.run(&["keys", "rotate"]).await.exits(1);
        assert!(rotate.stderr.contains(words) && rotate.stdout.contains("1 cannot be read"), "{rotate:?}");
        let after = site.database.text("SELECT access_token || refresh_token FROM credentials").await;
        assert_eq!(before, after, "what cannot be read was touched");
    }
    assert!(site.salla.world().seen.is_empty(), "Salla was asked with a token that could not be read");
    site.set("VAULT__KEYS", KEYS);
    site.run(&["run"]).await.exits(0);
    site.database.execute("DELETE FROM credentials", []).await;
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "no_token");
}

async fn a_modified_ciphertext_does_not_decrypt(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    let of = async |merchant: i64| {
        let read = async |column: &str| {
            site.database.text(&format!("SELECT {column} FROM credentials WHERE merchant_id = {merchant}")).await
        };
        (read("access_token").await, read("refresh_token").await)
    };
    let ((access, refresh), (others_access, others_refresh)) = (of(1001).await, of(1002).await);
    let mut changed = vec![
        ("another store's access token", others_access.clone(), refresh.clone()),
        ("another store's refresh token", access.clone(), others_refresh.clone()),
        ("another store's row", others_access, others_refresh),
        ("the two of them swapped", refresh.clone(), access.clone()),
        ("one token twice", access.clone(), access.clone()),
        ("no text at all", String::new(), refresh.clone()),
        ("a token in the clear", "plain".to_owned(), refresh.clone()),
        ("cut off", access[..access.len() - 8].to_owned(), refresh.clone()),
    ];
    // One character in the version, the key's id, the nonce, the text, and its tag.
    let nonce = access.match_indices('.').nth(1).unwrap().0 + 5;
    for at in [1, 4, nonce, nonce + 40, access.len() - 10] {
        changed.push(("a changed character", flipped(&access, at), refresh.clone()));
        changed.push(("a changed character", access.clone(), flipped(&refresh, at)));
    }
    for (what, first, second) in changed {
        put(&site, &first, &second).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], "token_decryption_failed", "{what}: {run}");
        assert!(run["error"]["message"].as_str().unwrap().contains("merchant 1001"), "{what}: {run}");
    }
    assert_eq!(seen(&site.salla), 0, "Salla was asked with a token that somebody laid hands on");
    put(&site, &access, &refresh).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
}

async fn put(site: &Site, access: &str, refresh: &str) {
    let sql = "UPDATE credentials SET access_token = $1, refresh_token = $2 WHERE merchant_id = 1001";
    site.database.execute(sql, [access.into(), refresh.into()]).await;
}

/// The text with another character in one place.
fn flipped(text: &str, at: usize) -> String {
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

fn seen(salla: &Simulator) -> usize {
    salla.world().seen.len()
}
