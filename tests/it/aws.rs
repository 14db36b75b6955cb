//! Tokens under a key in AWS KMS, and in AWS Secrets Manager: the same promises as with keys of one's own.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use salla_reconciler::simulator::{Fault, Gate};
use serde_json::{Value, json};

use crate::{
    support::{
        Engine, Site,
        aws::{Aws, aws},
        proxy::{Mode, Proxy},
        site::shop,
        until,
    },
    tokens::expires_soon,
};

on_every_database!(
    each_merchant_has_its_data_key,
    tokens_move_between_backends,
    runs_wait_while_kms_is_unavailable,
    a_refresh_needs_kms_before_and_not_after,
    secrets_manager_keeps_the_tokens,
    four_daemons_refresh_a_secret_once,
    new_tokens_are_kept_while_secrets_manager_is_unavailable,
    a_secret_is_deleted_and_restored_with_its_merchant,
);

/// A site with a separate KMS key, the ARN of the key, and the proxy before AWS.
async fn under_kms(engine: Engine, stores: &[i64]) -> (Site, String, Proxy) {
    let mut site = Site::unregistered(engine, stores.iter().map(|&id| shop(id, 0, 2))).await;
    let (key, proxy) = turn_to_kms(&mut site).await;
    site.unset("VAULT__KEYS");
    for &id in stores {
        site.register(id).await;
    }
    (site, key, proxy)
}

async fn turn_to_kms(site: &mut Site) -> (String, Proxy) {
    let key = aws().await.new_key().await;
    let proxy = aws().await.proxy().await;
    aws().await.lend(site, Some(proxy.port));
    site.set("VAULT__BACKEND", "kms");
    site.set("VAULT__KMS_KEY", &key);
    (key, proxy)
}

/// A site whose tokens are in Secrets Manager, and what its secrets' names begin with.
async fn in_secrets_manager(engine: Engine, stores: &[i64]) -> (Site, String, Proxy) {
    let mut site = Site::unregistered(engine, stores.iter().map(|&id| shop(id, 0, 2))).await;
    let prefix = format!("test/{}/", uuid());
    let proxy = aws().await.proxy().await;
    aws().await.lend(&mut site, Some(proxy.port));
    site.set("VAULT__BACKEND", "secrets_manager");
    site.set("VAULT__SECRETS_PREFIX", &prefix);
    site.unset("VAULT__KEYS");
    for &id in stores {
        site.register(id).await;
    }
    (site, prefix, proxy)
}

fn uuid() -> String {
    format!("{:x}", Utc::now().timestamp_nanos_opt().unwrap() ^ i64::from(std::process::id()))
}

fn key_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

/// What the database holds of a store's tokens.
async fn stored(site: &Site, merchant: i64) -> (String, String) {
    let sql = format!("SELECT access_token || ' ' || refresh_token FROM credentials WHERE merchant_id = {merchant}");
    let both = site.database.text(&sql).await;
    let (access, refresh) = both.split_once(' ').unwrap();
    (access.to_owned(), refresh.to_owned())
}

async fn put(site: &Site, merchant: i64, (access, refresh): (&str, &str)) {
    let sql = format!("UPDATE credentials SET access_token = $1, refresh_token = $2 WHERE merchant_id = {merchant}");
    site.database.execute(&sql, [access.into(), refresh.into()]).await;
}

/// The version that the database names.
async fn named(site: &Site, merchant: i64) -> String {
    let (access, refresh) = stored(site, merchant).await;
    assert_eq!(access, refresh);
    access.strip_prefix("sm1.").unwrap().to_owned()
}

async fn each_merchant_has_its_data_key(engine: Engine) {
    let (site, key, _proxy) = under_kms(engine, &[1001, 1002]).await;
    let ((access, refresh), (other_access, other_refresh)) = (stored(&site, 1001).await, stored(&site, 1002).await);
    let wrapped = |text: &str| {
        let parts: Vec<String> = text.split('.').map(str::to_owned).collect();
        assert_eq!((parts[0].as_str(), parts[1].as_str(), parts.len()), ("kms1", key_id(&key), 5), "{text}");
        parts[2].clone()
    };
    assert_eq!(wrapped(&access), wrapped(&refresh));
    assert_ne!(wrapped(&access), wrapped(&other_access));
    for store in [1001, 1002] {
        assert_eq!(site.reconcile(store, &[]).await["status"], "succeeded");
    }
    let check = site.run(&["check"]).await.exits(0).stdout;
    assert!(
        check.contains(&format!(
            "the tokens of all 2 merchant(s) can be read; tokens by key: 4 under {:?}",
            key_id(&key)
        )),
        "{check}"
    );

    // Bound to the store by KMS, to which of the two by the cipher, and to the key by its name.
    let moved = |text: &str| text.replace(&wrapped(text), &wrapped(&access));
    let (foreign, renamed) = (moved(&other_access), access.replace(key_id(&key), "another-key"));
    for (what, first, second) in [
        ("another store's row", other_access.as_str(), other_refresh.as_str()),
        ("another store's text under this one's key", foreign.as_str(), refresh.as_str()),
        ("the two of them swapped", refresh.as_str(), access.as_str()),
        ("another key's name", renamed.as_str(), refresh.as_str()),
        ("cut off", &access[..access.len() - 8], refresh.as_str()),
        ("half of it", "kms1.key", refresh.as_str()),
        ("not a wrapped key", "kms1.key.!.nonce.text", refresh.as_str()),
    ] {
        put(&site, 1001, (first, second)).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], "token_decryption_failed", "{what}: {run}");
        assert_eq!(site.run(&["check"]).await.exits(1).stdout.matches("FAIL  vault").count(), 1, "{what}");
    }
    put(&site, 1001, (&access, &refresh)).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
}

/// How-to, "Tokens in AWS".
async fn tokens_move_between_backends(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 2), shop(1002, 0, 2)]).await;
    let (aws, prefix) = (aws().await, format!("test/{}/", uuid()));
    aws.lend(&mut site, None);
    site.set("VAULT__SECRETS_PREFIX", &prefix);
    let (first, second) = (aws.new_key().await, aws.new_key().await);
    let secret = format!("{prefix}1001");
    let mut before = r#""test""#.to_owned();
    for (backend, kms_key, shown) in [
        ("kms", first.as_str(), format!("{:?}", key_id(&first))),
        ("kms", second.as_str(), format!("{:?}", key_id(&second))),
        ("secrets_manager", "", r#""AWS Secrets Manager""#.to_owned()),
        ("kms", second.as_str(), format!("{:?}", key_id(&second))),
        ("secrets_manager", first.as_str(), r#""AWS Secrets Manager""#.to_owned()),
        ("local", "", r#""test""#.to_owned()),
    ] {
        site.set("VAULT__BACKEND", backend);
        site.set("VAULT__KMS_KEY", kms_key);
        // Tokens that another token backend has sealed are still read.
        assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded", "{backend}");
        let check = site.run(&["check"]).await.exits(0).stdout;
        assert!(check.contains(&format!("4 under {before}")), "{check}");
        let rotated = site.run(&["keys", "rotate"]).await.exits(0).stdout;
        assert!(
            rotated.contains(&format!("2 re-encrypted under {shown}, 0 were already, 0 cannot be read")),
            "{rotated}"
        );
        assert!(rotated.contains(&format!("Tokens: 4 under {shown}")), "{rotated}");
        assert!(site.run(&["keys", "rotate"]).await.exits(0).stdout.contains("0 re-encrypted"));
        assert_eq!(site.run(&["run"]).await.code, 0);
        assert_eq!(aws.is_kept(&secret).await, backend == "secrets_manager", "{backend}");
        before = shown;
    }
    assert_eq!(site.salla.world().refreshes, 0);
}

async fn waits(site: &Site) -> bool {
    site.database.number("SELECT count(*) FROM runs WHERE status = 'queued' AND error_kind IS NULL").await == 1
}

/// Lets the waiting run be taken up now.
async fn take_up(site: &Site) {
    site.database.execute("UPDATE runs SET scheduled_at = queued_at WHERE status = 'queued'", []).await;
}

async fn runs_wait_while_kms_is_unavailable(engine: Engine) {
    let (site, _, proxy) = under_kms(engine, &[1001]).await;
    proxy.set(Mode::Refuse);
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let told = daemon.await_line(|line| line["message"] == "token store unavailable").await;
    assert_eq!(told["level"], "ERROR");
    assert!(told["error"].as_str().unwrap().contains("AWS KMS does not answer"), "{told}");
    until("the run waits", async || waits(&site).await).await;
    let metrics = daemon.get("/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("salla_reconciler_token_store_errors_total 1"), "{metrics}");
    assert_eq!(site.salla.world().seen.len(), 0);
    // Each caller that waits gets an answer.
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["error"]["kind"], "token_store_unavailable", "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains("AWS KMS does not answer"), "{run}");
    let check = site.run(&["check"]).await.exits(1).stdout;
    assert!(check.contains("FAIL  vault: AWS KMS does not answer"), "{check}");
    let rotate = site.run(&["keys", "rotate"]).await.exits(1).stderr;
    assert!(rotate.contains("AWS KMS does not answer"), "{rotate}");
    let line = site.salla.registration(1001).unwrap();
    let import = site.import(&line).await.exits(1).stderr;
    assert!(import.contains("AWS KMS does not answer"), "{import}");
    let put = Some(r#"{"access_token":"ory_at_put"}"#);
    let (status, _, answer) = daemon.call(reqwest::Method::PUT, "/merchants/1001", put).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("token store unavailable"), "{answer}");

    proxy.set(Mode::Pass);
    take_up(&site).await;
    let run = daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(run["trigger"], "http");
}

async fn a_refresh_needs_kms_before_and_not_after(engine: Engine) {
    // Tokens under a key of one's own, which the next refresh takes to KMS.
    let mut site = Site::new(engine, [shop(1001, 0, 2)]).await;
    let (key, proxy) = turn_to_kms(&mut site).await;
    site.set("SALLA__REQUEST_TIMEOUT", "15s");
    expires_soon(&site).await;
    let ended = Utc::now() - TimeDelta::minutes(1);
    site.database.execute("UPDATE credentials SET expires_at = $1", [ended.into()]).await;

    proxy.set(Mode::Refuse);
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    until("the run waits", async || waits(&site).await).await;
    let marked = "SELECT count(*) FROM credentials WHERE refresh_started_at IS NOT NULL";
    assert_eq!(site.database.number(marked).await, 0);
    assert_eq!(site.salla.world().refreshes, 0, "a refresh token was used whose successor could not be kept");

    proxy.set(Mode::Pass);
    let answer = Gate::default();
    site.salla.world().token_faults.push_back(Fault::Hold(answer.clone()));
    take_up(&site).await;
    until("the refresh is marked", async || site.database.number(marked).await == 1).await;
    proxy.set(Mode::Refuse);
    answer.open();
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    assert_eq!(site.salla.world().refreshes, 1);
    assert!(stored(&site, 1001).await.0.starts_with(&format!("kms1.{}.", key_id(&key))));
    proxy.set(Mode::Pass);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().violations, [""; 0]);
}

async fn secrets_manager_keeps_the_tokens(engine: Engine) {
    let (site, prefix, _proxy) = in_secrets_manager(engine, &[1001, 1002]).await;
    let (aws, secret, first) = (aws().await, format!("{prefix}1001"), named(&site, 1001).await);
    let (content, _) = aws.version(&secret, &first).await.unwrap();
    let registered: Value = serde_json::from_str(&site.salla.registration(1001).unwrap()).unwrap();
    for field in ["merchant_id", "access_token", "refresh_token"] {
        assert_eq!(content[field], registered[field], "{field}");
    }
    assert_eq!(aws.current(&secret).await, Some(first.clone()));
    for store in [1001, 1002] {
        assert_eq!(site.reconcile(store, &[]).await["status"], "succeeded");
    }
    let check = site.run(&["check"]).await.exits(0).stdout;
    assert!(check.contains(r#"can be read; tokens by key: 4 under "AWS Secrets Manager""#), "{check}");

    // A refresh writes them back.
    site.salla.world().script(1001, [Fault::TokenEnded]);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    let second = named(&site, 1001).await;
    assert_ne!(first, second);
    assert_eq!(aws.current(&secret).await, Some(second.clone()));
    let (renewed, _) = aws.version(&secret, &second).await.unwrap();
    assert_ne!(renewed["refresh_token"], content["refresh_token"]);
    // As an import does, and what was a successor's name is not taken twice.
    site.register(1001).await;
    assert_eq!(aws.current(&secret).await, Some(named(&site, 1001).await));
    site.salla.world().script(1001, [Fault::TokenEnded]);
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().violations, [""; 0]);

    // The database names a version of this store's own secret, and nothing else is read.
    let third = named(&site, 1001).await;
    for (what, version) in [
        ("another store's", named(&site, 1002).await),
        ("one that is not there", "0".repeat(64)),
        ("none", String::new()),
    ] {
        let text = format!("sm1.{version}");
        put(&site, 1001, (&text, &text)).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], "token_decryption_failed", "{what}: {run}");
    }
    put(&site, 1001, (&format!("sm1.{third}"), &format!("sm1.{second}"))).await;
    assert_eq!(site.reconcile(1001, &[]).await["error"]["kind"], "token_decryption_failed");
    for strange in
        ["not JSON", "{}", r#"{"merchant_id":1002,"access_token":"a-canary","refresh_token":null,"expires_at":null}"#]
    {
        let version = uuid().repeat(4);
        let asked = json!({"SecretId": secret, "ClientRequestToken": version, "SecretString": strange, "VersionStages": ["AWSPENDING"]});
        aws.ask("secretsmanager", "PutSecretValue", &asked).await.unwrap();
        let text = format!("sm1.{version}");
        put(&site, 1001, (&text, &text)).await;
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["error"]["kind"], "token_decryption_failed", "{strange}: {run}");
    }
}

async fn four_daemons_refresh_a_secret_once(engine: Engine) {
    let (mut site, prefix, _proxy) = in_secrets_manager(engine, &[1001, 1002]).await;
    site.set("SALLA__REQUEST_TIMEOUT", "15s");
    expires_soon(&site).await;
    site.salla.world().token_faults.extend([Fault::Hang(Duration::from_secs(2)), Fault::Hang(Duration::from_secs(2))]);
    let daemons = futures::future::join_all((0..4).map(|_| site.serve())).await;
    for merchant in [1001, 1002] {
        daemons[0].post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
        daemons[0].await_run(&format!("merchant_id={merchant}"), |run| run["status"] == "succeeded").await;
    }
    until("both are renewed", async || site.salla.world().refreshes == 2).await;
    for merchant in [1001, 1002] {
        let secret = format!("{prefix}{merchant}");
        until("the secret is", async || aws().await.current(&secret).await == Some(named(&site, merchant).await)).await;
    }
    assert_eq!(site.salla.world().refreshes, 2);
    assert_eq!(site.salla.world().violations, [""; 0]);
}

async fn new_tokens_are_kept_while_secrets_manager_is_unavailable(engine: Engine) {
    let (mut site, prefix, proxy) = in_secrets_manager(engine, &[1001]).await;
    site.set("SALLA__REQUEST_TIMEOUT", "15s");
    let before = named(&site, 1001).await;
    expires_soon(&site).await;
    let answer = Gate::default();
    site.salla.world().token_faults.push_back(Fault::Hold(answer.clone()));
    let daemon = site.serve().await;
    let marked = "SELECT count(*) FROM credentials WHERE refresh_started_at IS NOT NULL";
    until("the refresh is marked", async || site.database.number(marked).await == 1).await;
    proxy.set(Mode::Refuse);
    answer.open();
    daemon
        .await_line(|line| {
            line["message"].as_str().is_some_and(|text| text.contains("new tokens could not be written"))
        })
        .await;
    assert_eq!(named(&site, 1001).await, before);
    proxy.set(Mode::Pass);
    until("they are saved", async || named(&site, 1001).await != before).await;
    let secret = format!("{prefix}1001");
    until("they are current", async || aws().await.current(&secret).await == Some(named(&site, 1001).await)).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert_eq!(site.salla.world().refreshes, 1);
    assert_eq!(site.salla.world().violations, [""; 0]);
}

async fn a_secret_is_deleted_and_restored_with_its_merchant(engine: Engine) {
    let (mut site, prefix, proxy) = in_secrets_manager(engine, &[1001]).await;
    let (aws, secret) = (aws().await, format!("{prefix}1001"));
    assert!(aws.is_kept(&secret).await);
    site.run(&["merchants", "remove", "1001"]).await.exits(0);
    assert!(!aws.is_kept(&secret).await);
    site.run(&["merchants", "remove", "1001"]).await.exits(1);
    // One that comes back finds its secret again.
    site.register(1001).await;
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert!(aws.is_kept(&secret).await);
    // As does one whose secret somebody has deleted.
    let asked = json!({"SecretId": secret, "RecoveryWindowInDays": 7});
    aws.ask("secretsmanager", "DeleteSecret", &asked).await.unwrap();
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    assert!(aws.is_kept(&secret).await);
    // Secrets that could not be deleted are reported, and a second command deletes them.
    proxy.set(Mode::Refuse);
    let told = site.run(&["merchants", "remove", "1001"]).await.exits(1).stderr;
    assert!(told.contains("AWS Secrets Manager does not answer"), "{told}");
    proxy.set(Mode::Pass);
    assert!(aws.is_kept(&secret).await);
    site.run(&["merchants", "remove", "1001"]).await.exits(1);
    assert!(!aws.is_kept(&secret).await);

    // As Salla's own events report it.
    site.register(1001).await;
    site.set("SALLA__WEBHOOK_SECRET", "webhook-secret-canary");
    let daemon = site.serve().await;
    let event = json!({"event": "app.uninstalled", "merchant": 1001, "created_at": Utc::now(), "data": {}}).to_string();
    let signature = crate::onboarding::signature("webhook-secret-canary", &event);
    let status = daemon.try_post("/webhooks/salla", &event, &[("x-salla-signature", &signature)]).await;
    assert_eq!(status.map(|status| status.as_u16()), Some(200));
    until("the secret is gone", async || !aws.is_kept(&secret).await).await;
}

/// The policies in `deploy/aws` permit all actions that the program asks for, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_policies_have_the_least_rights() {
    // The one that all share asks for no permission.
    let own = tokio::task::spawn_blocking(Aws::start).await.unwrap();
    for (backend, file) in [
        ("kms", include_str!("../../deploy/aws/tokens-under-kms.json")),
        ("secrets_manager", include_str!("../../deploy/aws/tokens-in-secrets-manager.json")),
    ] {
        let policy: Value = serde_json::from_str(file).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        assert!(statements.iter().all(|statement| statement["Resource"] != "*"), "{file}");
        let actions: Vec<&str> = statements
            .iter()
            .flat_map(|statement| statement["Action"].as_array().unwrap())
            .map(|action| action.as_str().unwrap())
            .collect();
        for left_out in &actions {
            let others: Vec<&str> = actions.iter().filter(|action| action != &left_out).copied().collect();
            assert!(!goes_well(&own, backend, &others).await, "{backend} does without {left_out}");
        }
        assert!(goes_well(&own, backend, &actions).await, "{backend}: {actions:?} are not enough");
    }
}

/// Whether all goes well with these permissions.
async fn goes_well(own: &Aws, backend: &str, actions: &[&str]) -> bool {
    own.enforce_policies(false).await;
    let user = &format!("user-{}", uuid());
    let mut site = Site::unregistered(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    own.lend(&mut site, None);
    site.set("VAULT__BACKEND", backend);
    site.set("VAULT__KMS_KEY", &if backend == "kms" { own.new_key().await } else { String::new() });
    own.ask_iam(&[("Action", "CreateUser"), ("UserName", user)]).await;
    let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    let put = [("Action", "PutUserPolicy"), ("UserName", user), ("PolicyName", "p"), ("PolicyDocument", &policy)];
    own.ask_iam(&put).await;
    let made = own.ask_iam(&[("Action", "CreateAccessKey"), ("UserName", user)]).await;
    let within = |tag: &str| made.split(&format!("<{tag}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
    site.set_variable("AWS_ACCESS_KEY_ID", &within("AccessKeyId"));
    site.set_variable("AWS_SECRET_ACCESS_KEY", &within("SecretAccessKey"));
    site.set_variable("AWS_SESSION_TOKEN", "");
    own.enforce_policies(true).await;

    let line = site.salla.registration(1001).unwrap();
    let quietly = |output: &crate::support::site::Output| output.code == 0 && !output.stderr.contains("AWS ");
    let mut well = quietly(&site.import(&line).await);
    site.salla.world().script(1001, [Fault::TokenEnded]);
    for command in [&["run"][..], &["check"], &["merchants", "remove", "1001"]] {
        well &= quietly(&site.run(command).await);
    }
    well &= quietly(&site.import(&site.salla.registration(1001).unwrap()).await);
    well && quietly(&site.run(&["run"]).await)
}

#[cfg(feature = "failpoints")]
mod killed {
    use super::*;

    on_every_database!(a_kill_around_the_save_of_a_secret_loses_no_token, a_rotation_continues_after_a_kill,);

    /// The old tokens are not taken for the ones that count, and what was put in their place is not deleted.
    async fn a_rotation_continues_after_a_kill(engine: Engine) {
        let (mut site, prefix, _proxy) = in_secrets_manager(engine, &[1001]).await;
        expires_soon(&site).await;
        let mut daemon = site.serve_until("refresh_save_before_commit=return").await;
        daemon.wait_for_death().await;
        site.set("VAULT__KEYS", crate::support::site::KEYS);
        site.set("VAULT__BACKEND", "local");
        let rotated = site.run(&["keys", "rotate"]).await.exits(0).stdout;
        assert!(rotated.contains(r#"1 re-encrypted under "test""#), "{rotated}");
        assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
        assert!(!aws().await.is_kept(&format!("{prefix}1001")).await);
        assert_eq!(site.salla.world().refreshes, 1);
        assert_eq!(site.salla.world().violations, [""; 0]);
    }

    /// Before the save the new tokens are in Secrets Manager, and the database does not know them; after it they are not
    /// current yet.
    async fn a_kill_around_the_save_of_a_secret_loses_no_token(engine: Engine) {
        for point in ["refresh_save_before_commit", "refresh_save_after_commit"] {
            let (site, prefix, _proxy) = in_secrets_manager(engine, &[1001]).await;
            let (before, secret) = (named(&site, 1001).await, format!("{prefix}1001"));
            expires_soon(&site).await;
            let mut daemon = site.serve_until(&format!("{point}=return")).await;
            daemon.wait_for_death().await;
            assert_eq!(site.salla.world().refreshes, 1);
            assert_eq!(named(&site, 1001).await == before, point == "refresh_save_before_commit");
            assert_eq!(aws().await.current(&secret).await, Some(before.clone()));
            if point == "refresh_save_before_commit" {
                // Longer than any refresh takes; the next look finds them.
                let long_ago = Utc::now() - TimeDelta::minutes(3);
                site.database.execute("UPDATE credentials SET refresh_started_at = $1", [long_ago.into()]).await;
            }
            let daemon = site.serve().await;
            daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
            daemon.await_run("", |run| run["status"] == "succeeded").await;
            assert_eq!(site.database.text("SELECT state FROM merchants").await, "active");
            assert!(!daemon.log_text().contains("outcome"), "{}", daemon.log_text());
            assert_ne!(named(&site, 1001).await, before);
            assert_eq!(aws().await.current(&secret).await, Some(named(&site, 1001).await));
            assert_eq!(site.salla.world().refreshes, 1);
            assert_eq!(site.salla.world().violations, [""; 0]);
        }
    }
}
