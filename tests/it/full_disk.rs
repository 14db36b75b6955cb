//! No room on the database's disk.

use std::{process::Stdio, sync::Arc, time::Duration};

use salla_reconciler::simulator::Fault;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::support::{
    Engine, Site,
    daemon::Daemon,
    site::{shop, totals},
    within,
};

on_every_database!(a_disk_that_is_full);

const TRIED_AGAIN: &str = "the database does not answer; the run is released when it answers";

async fn a_disk_that_is_full(engine: Engine) {
    let mut site = Site::new(engine, [shop(1001, 0, 40), shop(1002, 0, 3)]).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.salla.world().always.insert(1001, Fault::Hang(Duration::from_millis(20)));
    let daemon = if site.database.is_postgres() {
        site.database
            .execute(
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$",
                [],
            )
            .await;
        let trigger = "CREATE TRIGGER no_room BEFORE INSERT ON orders FOR EACH ROW \
                       WHEN (NEW.merchant_id = 1001) EXECUTE FUNCTION no_room()";
        site.database.execute(trigger, []).await;
        site.serve().await
    } else {
        // No file may grow much beyond the present largest one. The write-ahead log of SQLite would
        // do so soon. The database would do so a little later, when the log is emptied into it.
        let largest = std::fs::metadata(site.folder.path().join("test.db")).unwrap().len() + 20_000;
        let program = env!("CARGO_BIN_EXE_salla-reconciler");
        let mut command = Command::new("sh");
        let limited = format!("trap '' XFSZ; exec prlimit --fsize={largest}:unlimited '{program}' serve");
        let from = site.command(&["serve"]);
        command.arg("-c").arg(limited).envs(from.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(site.folder.path()).kill_on_drop(true).stdin(Stdio::null());
        Daemon::start(command, Arc::clone(&site.watch)).await
    };
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_line(|line| line["message"] == TRIED_AGAIN).await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    let (status, problem) = daemon.get("/readyz").await;
    assert_eq!(status, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("the disk of the database is full"), "{problem}");
    let waits = daemon.await_run("merchant_id=1001", |run| run["waiting"]["reason"] == "database").await;
    assert!(waits["waiting"]["until"].is_string(), "{waits}");

    if site.database.is_postgres() {
        // It is this store's trouble only.
        daemon.post("/runs", r#"{"merchant_id":1002}"#).await;
        daemon.await_run("merchant_id=1002", |run| run["status"] == "succeeded").await;
        site.database.execute("DROP TRIGGER no_room ON orders", []).await;
    } else {
        daemon.make_room();
    }
    let run = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    assert_eq!(totals(&run), [40, 40, 0, 0, 0, 0]);
    assert_eq!(run["waiting"], Value::Null);
    let ready = async || daemon.get("/readyz").await.0 == 200;
    within(Duration::from_secs(60), "ready again", ready).await;
    site.assert_equal(1001).await;
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status <> 'succeeded'").await, 0);

    if site.database.is_postgres() {
        it_does_not_go_on_for_ever(&site, &daemon).await;
    }
}

async fn it_does_not_go_on_for_ever(site: &Site, daemon: &Daemon) {
    // The list holds one order: the run commits nothing before it.
    site.salla.world().shop(1001).orders.clear();
    site.salla.world().shop(1001).place(chrono::Utc::now());
    let trigger = "CREATE TRIGGER no_room BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no_room()";
    site.database.execute(trigger, []).await;
    let (_, queued) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    let id = queued["run_id"].as_str().unwrap().to_owned();
    let of_this = |line: &Value| line["message"] == TRIED_AGAIN && line["span"]["run.id"] == id.as_str();
    daemon.await_line(of_this).await;
    // Three more times would take minutes.
    let given_up = async {
        while site
            .database
            .execute("UPDATE runs SET failed_attempts = 4 WHERE status = 'queued' AND failed_attempts = 1", [])
            .await
            == 0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        daemon.await_run("merchant_id=1001", |run| run["status"] == "failed").await
    };
    let run = timeout(Duration::from_secs(90), given_up).await.unwrap_or_else(|_| panic!("{}", daemon.log_text()));
    assert_eq!(run["run_id"], id.as_str());
    assert_eq!(run["error"]["kind"], "database", "{run}");
}
