//! The database's clock is set while a daemon keeps the schedule.

use std::time::Duration;

use chrono::{TimeDelta, Timelike, Utc};

use crate::support::{Engine, Site, server::Server, site::shop, until};

on_every_postgres!(setting_the_clock_repeats_no_sweep);

const HOUR: i64 = 3600;

/// Set back behind a firing, right again, and then a day ahead: each slot has one sweep, and the last is not missed.
async fn setting_the_clock_repeats_no_sweep(engine: Engine) {
    let server = Server::with_a_clock(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 3), shop(1002, 0, 1)]).await;
    let slot = Utc::now() + TimeDelta::seconds(12);
    site.set("SCHEDULE__CRON", &format!("{} {} {} * * *", slot.second(), slot.minute(), slot.hour()));
    site.set("SCHEDULE__TIMEZONE", "UTC");
    let daemon = site.serve().await;
    let shown = async || site.database.number("SELECT CAST(extract(epoch FROM now()) AS bigint)").await;
    let sweeps = async || site.database.number("SELECT count(*) FROM sweeps WHERE run_count > 0").await;
    let asks_again = Duration::from_secs(32);

    until("the slot fires", async || sweeps().await == 1).await;
    until("its runs end", async || {
        site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await == 2
    })
    .await;
    server.set_clock(-2 * HOUR);
    assert!((shown().await - Utc::now().timestamp() + 2 * HOUR).abs() < 60, "the server's clock was not set");
    tokio::time::sleep(asks_again).await;
    assert_eq!(sweeps().await, 1, "it is before the slot again, and nothing fires");
    // By hand a run goes on as always, though it seems to begin before the last one ended.
    assert_eq!(daemon.post("/runs", r#"{"merchant_id":1001}"#).await.0, 202);
    daemon.await_run("merchant_id=1001", |run| run["trigger"] == "http" && run["status"] == "succeeded").await;

    // Past the slot a second time.
    server.set_clock(0);
    tokio::time::sleep(asks_again).await;
    assert_eq!(sweeps().await, 1, "the slot has been fired");

    server.set_clock(24 * HOUR);
    tokio::time::sleep(asks_again).await;
    until("the next day's slot fires", async || sweeps().await == 2).await;
    until("its runs end", async || {
        site.database.number("SELECT count(*) FROM runs WHERE status = 'succeeded'").await == 5
    })
    .await;
    assert_eq!(
        site.database.number("SELECT count(DISTINCT (merchant_id, sweep_scheduled_for)) FROM runs WHERE sweep_scheduled_for IS NOT NULL").await,
        4
    );
    for merchant in [1001, 1002] {
        site.assert_equal(merchant).await;
    }
    site.assert_no_watermark_ahead().await;
}
