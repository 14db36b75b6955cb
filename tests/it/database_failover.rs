//! The database goes away and comes back: restarted, cut off, silent.

use std::time::Duration;

use salla_reconciler::simulator::Fault;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Engine, Site,
    daemon::Daemon,
    proxy::{Cut, Mode, Proxy},
    server::{Server, Stop},
    site::{shop, totals},
};

const SHOPS: [i64; 3] = [1001, 1002, 1003];

on_every_postgres!(
    pages_report_an_unavailable_database,
    the_server_is_restarted,
    connections_are_cut_in_a_commit,
    the_database_fails_over,
    a_database_that_cannot_be_written
);

/// A site whose runs take some seconds, a page an order; the daemon's lease is short.
async fn site(engine: Engine, server: &Server, orders: usize) -> Site {
    let mut site = Site::on(engine, server.url(), SHOPS.map(|id| shop(id, 0, orders))).await;
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("RECONCILE__LEASE", "2s");
    for id in SHOPS {
        site.salla.world().always.insert(id, Fault::Hang(Duration::from_millis(100)));
    }
    site
}

/// A daemon with a run of each store under way.
async fn at_work(site: &Site) -> Daemon {
    let daemon = site.serve().await;
    for id in SHOPS {
        assert_eq!(daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await.0, 202);
    }
    for id in SHOPS {
        daemon.await_run(&format!("merchant_id={id}"), |run| run["totals"]["fetched"].as_u64() >= Some(1)).await;
    }
    daemon
}

async fn await_ready(daemon: &Daemon, wanted: u16) {
    let waiting = async {
        loop {
            assert_eq!(daemon.get("/healthz").await.0, 200);
            let (status, body) = daemon.get("/readyz").await;
            if status == wanted {
                return body;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let body = timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never {wanted}"));
    if wanted == 503 {
        assert_eq!(body["title"], "Service Unavailable", "{body}");
        assert_eq!(body["detail"], "the database does not answer", "{body}");
    }
}

/// Every run ends well, once, with every order as Salla has it.
async fn all_is_well(site: &Site, daemon: &Daemon, orders: u64) {
    for id in SHOPS {
        let ended = async {
            loop {
                let (status, body) = daemon.get(&format!("/runs?merchant_id={id}")).await;
                if status == 200 && ["queued", "running"].iter().all(|active| body["runs"][0]["status"] != *active) {
                    return body["runs"][0].clone();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let run = timeout(Duration::from_secs(90), ended).await.unwrap_or_else(|_| panic!("{}", daemon.log_text()));
        assert_eq!(run["status"], "succeeded", "{run}\n{}", daemon.log_text());
        assert_eq!(totals(&run), [orders, orders, 0, 0, 0, 0]);
        site.assert_equal(id).await;
    }
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 3);
    assert_eq!(site.database.number("SELECT count(*) FROM runs WHERE status <> 'succeeded'").await, 0);
    assert_eq!(site.database.number("SELECT count(*) FROM run_seen_ids").await, 0);
    let orders = i64::try_from(orders).unwrap();
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 3 * orders);
}

async fn the_server_is_restarted(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = site(engine, &server, 40).await;
    // No process takes the runs over meanwhile.
    site.set("RECONCILE__LEASE", "5m");
    let daemon = at_work(&site).await;
    // So short that a call is made again, and then so long that runs are given back.
    for (stop, long) in [(Stop::Fast, false), (Stop::Immediate, true)] {
        server.down(stop);
        await_ready(&daemon, 503).await;
        if long {
            daemon
                .await_line(|line| said(line, "the database does not answer; the run is released when it answers"))
                .await;
        }
        // However slow this machine is, no run ends between the two outages.
        let pace = if long { Fault::Hang(Duration::ZERO) } else { Fault::Hang(Duration::from_millis(400)) };
        site.salla.world().always.extend(SHOPS.map(|id| (id, pace.clone())));
        server.up();
        await_ready(&daemon, 200).await;
    }
    all_is_well(&site, &daemon, 40).await;
    assert!(
        daemon.log().iter().any(|line| said(line, "run released for 5 s; will resume from its cursor")),
        "{}",
        daemon.log_text()
    );
}

fn said(line: &Value, message: &str) -> bool {
    line["message"] == message
}

async fn connections_are_cut_in_a_commit(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let proxy = Proxy::start(server.address()).await;
    let mut site = site(engine, &server, 12).await;
    site.set("DATABASE__URL", &Server::url_at(proxy.port));
    let daemon = at_work(&site).await;
    for cut in [Cut::Before, Cut::After, Cut::After, Cut::Before, Cut::After] {
        timeout(Duration::from_secs(30), proxy.cut(cut)).await.unwrap();
    }
    proxy.set(Mode::Refuse);
    proxy.reset();
    await_ready(&daemon, 503).await;
    proxy.set(Mode::Pass);
    await_ready(&daemon, 200).await;
    all_is_well(&site, &daemon, 12).await;
}

/// First a network that forwards nothing and then resets, then a failover that leaves the old connections silent for
/// ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_silent() {
    let engine = Engine::Postgres16;
    let server = Server::start(16).await;
    let proxy = Proxy::start(server.address()).await;
    let mut site = site(engine, &server, 25).await;
    site.set("DATABASE__URL", &Server::url_at(proxy.port));
    let daemon = at_work(&site).await;

    proxy.set(Mode::Silent);
    let mut longest = Duration::ZERO;
    for _ in 0..2 {
        for (path, wanted) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 200)] {
            let asked = Instant::now();
            assert_eq!(daemon.get(path).await.0, wanted, "{path}");
            longest = longest.max(asked.elapsed());
        }
    }
    assert!(longest < Duration::from_secs(7), "an answer took {longest:?}");
    proxy.reset();
    proxy.set(Mode::Pass);
    let back = Instant::now();
    await_ready(&daemon, 200).await;
    println!("the longest answer of a probe took {longest:?}; ready {:?} after the reset", back.elapsed());

    let before = site.database.number("SELECT CAST(sum(fetched) AS bigint) FROM runs").await;
    while site.database.number("SELECT CAST(sum(fetched) AS bigint) FROM runs").await == before {
        sleep(Duration::from_millis(50)).await;
    }
    proxy.forget();
    let back = Instant::now();
    await_ready(&daemon, 200).await;
    let ready = back.elapsed();
    assert!(ready < Duration::from_secs(15), "ready after {ready:?}");
    all_is_well(&site, &daemon, 25).await;
    println!("ready {ready:?}, and all done {:?}, after the old connections fell silent", back.elapsed());
}

/// Failure modes, "Database failover": the server crashes while two replicas work, and is started again.
async fn the_database_fails_over(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let site = site(engine, &server, 25).await;
    let first = at_work(&site).await;
    let second = site.serve().await;
    server.down(Stop::Immediate);
    for daemon in [&first, &second] {
        await_ready(daemon, 503).await;
    }
    server.up();
    let up = Instant::now();
    // Only a run that ended well moves a watermark: one without such a run is ahead of what is stored.
    let ahead = "SELECT count(*) FROM watermarks WHERE NOT EXISTS (SELECT 1 FROM runs \
                 WHERE runs.merchant_id = watermarks.merchant_id AND runs.status = 'succeeded')";
    assert_eq!(site.database.number(ahead).await, 0);
    for daemon in [&first, &second] {
        await_ready(daemon, 200).await;
    }
    let ready = up.elapsed();
    all_is_well(&site, &first, 25).await;
    println!("both ready {ready:?}, and all done {:?}, after the server was back", up.elapsed());
}

/// Who looks at the dashboard meanwhile gets a page, and not for ever nothing.
async fn pages_report_an_unavailable_database(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let site = Site::on(engine, server.url(), [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    assert_eq!(daemon.get("/").await.0, 200);
    server.down(Stop::Fast);
    let began = Instant::now();
    let (status, page) = daemon.get("/").await;
    let page = page.as_str().unwrap_or_else(|| panic!("no page: {page}"));
    assert!(status == 503 && page.contains("<h1>") && page.contains("the database"), "{status}: {page}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    server.up();
    await_ready(&daemon, 200).await;
    assert_eq!(daemon.get("/").await.0, 200);
}

/// The loss of the role, the statement that undoes it, and the words of `/readyz`.
const LOSSES: [(&str, &str, &str); 10] = [
    ("ALTER TABLE orders RENAME TO orders_x", "ALTER TABLE orders_x RENAME TO orders", "table orders"),
    (
        "ALTER TABLE runs RENAME COLUMN waiting_until TO wu",
        "ALTER TABLE runs RENAME COLUMN wu TO waiting_until",
        "column runs.waiting_until",
    ),
    (
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        "row-level security",
    ),
    ("REVOKE INSERT ON runs FROM narrow", "GRANT INSERT ON runs TO narrow", "INSERT on runs"),
    ("REVOKE UPDATE ON orders FROM narrow", "GRANT UPDATE ON orders TO narrow", "UPDATE on orders"),
    ("REVOKE SELECT ON merchants FROM narrow", "GRANT SELECT ON merchants TO narrow", "SELECT on merchants"),
    ("REVOKE ALL ON watermarks FROM narrow", "GRANT ALL ON watermarks TO narrow", "on watermarks"),
    ("REVOKE USAGE ON SCHEMA salla FROM narrow", "GRANT USAGE ON SCHEMA salla TO narrow", "USAGE on the schema"),
    ("ALTER ROLE narrow SET default_transaction_read_only = on", "ALTER ROLE narrow RESET ALL", "read-only"),
    ("ALTER ROLE narrow NOLOGIN", "ALTER ROLE narrow LOGIN", ""),
];

/// The daemon's role loses a right, its sessions may only read, or it may not connect at all.
async fn a_database_that_cannot_be_written(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 1)]).await;
    for sql in [
        "CREATE ROLE narrow LOGIN PASSWORD 'narrow-canary'",
        "GRANT ALL ON SCHEMA salla TO narrow",
        "GRANT ALL ON ALL TABLES IN SCHEMA salla TO narrow",
    ] {
        site.database.execute(sql, []).await;
    }
    let mut url: url::Url = server.url().parse().unwrap();
    url.set_username("narrow").unwrap();
    url.set_password(Some("narrow-canary")).unwrap();
    site.set("DATABASE__URL", url.as_str());
    let daemon = site.serve().await;
    await_ready(&daemon, 200).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'narrow'";
    for (spoil, heal, words) in LOSSES {
        site.database.execute(spoil, []).await;
        if spoil == "REVOKE USAGE ON SCHEMA salla FROM narrow" {
            site.database.execute("REVOKE ALL ON SCHEMA salla FROM narrow, PUBLIC", []).await;
        }
        if spoil.starts_with("ALTER") {
            site.database.rows(cut).await;
        }
        let told = async {
            loop {
                let (status, body) = daemon.get("/readyz").await;
                // While its sessions are cut, the database does not answer.
                if status == 503 && body["detail"].as_str().is_some_and(|detail| detail.contains(words)) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(4), told).await.unwrap_or_else(|_| panic!("{spoil}: {}", daemon.log_text()));
        for path in ["/runs", "/merchants", "/report"] {
            let (status, body) = daemon.get(path).await;
            assert!(status == 200 || status == 503, "{spoil}: {path}: {status} {body}");
        }
        if !["orders", "watermarks"].iter().any(|name| spoil.contains(name)) {
            let (status, body) = daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
            assert_eq!(status, 503, "{spoil}: {body}");
        }
        assert_eq!(daemon.get("/healthz").await.0, 200, "{spoil}");
        site.database.execute(heal, []).await;
        site.database.execute("GRANT ALL ON SCHEMA salla TO narrow", []).await;
        if spoil.starts_with("ALTER") {
            site.database.rows(cut).await;
        }
        await_ready(&daemon, 200).await;
    }
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
}
