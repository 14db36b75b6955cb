//! Few connections to the database, or such as a pooler lends.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{
    Engine, Site,
    cluster::PASSWORD,
    pooler::Pooler,
    server::Server,
    site::{shop, totals},
};

on_every_postgres!(
    session_pooling_works,
    transaction_pooling_is_refused,
    a_pooler_and_a_schema_by_options,
    a_role_with_few_connections,
    a_database_that_is_not_utf8,
);

/// Salla's texts are Arabic.
async fn a_database_that_is_not_utf8(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 1)]).await;
    for encoding in ["LATIN1", "SQL_ASCII", "WIN1256"] {
        let name = encoding.to_lowercase();
        let create =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        site.database.execute(&create, []).await;
        site.set("DATABASE__URL", &server.url().replace("/postgres", &format!("/{name}")));
        for command in [&["check"][..], &["migrate", "up"], &["serve"], &["run"], &["merchants", "list"]] {
            let output = site.run(command).await;
            assert_ne!(output.code, 0, "{encoding} {command:?}");
            let told = format!("{}{}", output.stdout, output.stderr);
            let words = format!("encoding of the database is {encoding}");
            assert!(told.contains(&words) && told.contains("ENCODING 'UTF8'"), "{encoding} {command:?}: {told}");
        }
    }
}

/// PgBouncer refuses `options`, and keeps a schema that the session sets.
async fn a_pooler_and_a_schema_by_options(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 1)]).await;
    let pooler = Pooler::start(server.port, "session", 20).await;
    site.set("DATABASE__URL", &format!("{}?options=-c%20search_path%3Dreconciler", Server::url_at(pooler.port)));
    for command in [&["check"][..], &["migrate", "up"], &["serve"]] {
        let output = site.run(command).await;
        assert_ne!(output.code, 0, "{command:?}");
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(told.contains("`options`") && told.contains("database.schema"), "{command:?}: {told}");
    }
    site.set("DATABASE__URL", &Server::url_at(pooler.port));
    site.set("DATABASE__SCHEMA", "reconciler");
    site.run(&["migrate", "up"]).await.exits(0);
    let check = site.run(&["check"]).await.stdout;
    assert!(check.contains("schema reconciler,") && check.contains("this version's"), "{check}");
}

async fn session_pooling_works(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let pooler = Pooler::start(server.port, "session", 20).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 5, 3), shop(1002, 5, 3)]).await;
    site.set("DATABASE__URL", &Server::url_at(pooler.port));
    let daemon = site.serve().await;
    for id in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{id},"full":true}}"#)).await;
    }
    for id in [1001, 1002] {
        let run = daemon.await_run(&format!("merchant_id={id}"), |run| run["status"] == "succeeded").await;
        assert_eq!(totals(&run)[0], 8);
        site.assert_equal(id).await;
    }
    drop(daemon);

    // Room for one session, which nothing could use beside another.
    let narrow = Pooler::start(server.port, "session", 1).await;
    site.set("DATABASE__URL", &Server::url_at(narrow.port));
    let output = site.run(&["serve"]).await;
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains("database.url: only one connection is available, and two are needed"),
        "{}",
        output.stderr
    );
}

async fn transaction_pooling_is_refused(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let mut site = Site::on(engine, server.url(), [shop(1001, 0, 3)]).await;
    for pool_mode in ["transaction", "statement"] {
        for pool_size in [1, 20] {
            let pooler = Pooler::start(server.port, pool_mode, pool_size).await;
            site.set("DATABASE__URL", &Server::url_at(pooler.port));
            for command in [&["serve"][..], &["run"]] {
                let output = site.run(command).await;
                assert_ne!(output.code, 0, "{pool_mode}");
                let told = "database.url: the pooler uses transaction or statement pooling";
                assert!(output.stderr.contains(told), "{pool_mode}: {}", output.stderr);
            }
        }
    }
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 0);
}

async fn a_role_with_few_connections(engine: Engine) {
    let server = Server::start(engine.major()).await;
    let shops = [1001, 1002, 1003, 1004];
    let mut site = Site::on(engine, server.url(), shops.map(|id| shop(id, 0, 4))).await;
    for sql in [
        &format!("CREATE ROLE narrow LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1"),
        "GRANT USAGE ON SCHEMA salla TO narrow",
        "GRANT ALL ON ALL TABLES IN SCHEMA salla TO narrow",
    ] {
        site.database.execute(sql, []).await;
    }
    site.set("RECONCILE__PAGE_SIZE", "1");
    site.set("DATABASE__URL", &server.url().replace("tester", "narrow"));
    let output = site.run(&["serve"]).await;
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("CONNECTION LIMIT"), "{}", output.stderr);

    site.database.execute("ALTER ROLE narrow CONNECTION LIMIT 2", []).await;
    let daemon = site.serve().await;
    for id in shops {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await;
    }
    for id in shops {
        let query = format!("merchant_id={id}");
        let ended = daemon.await_run(&query, |run| run["status"] == "succeeded");
        let run = timeout(Duration::from_secs(60), ended).await.unwrap();
        assert_eq!(totals(&run), [4, 4, 0, 0, 0, 0]);
        site.assert_equal(id).await;
    }
}
