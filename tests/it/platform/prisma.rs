//! A real Prisma project beside the program. The tests use its DDL, its client as a webhook
//! consumer, and its tools. The tools must not see the tables of the program.

use std::{fs, path::Path, process::Stdio};

use chrono::{SecondsFormat, TimeDelta, Utc};
use sea_orm::ConnectionTrait;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::{MERCHANT, assert_equal, full};
use crate::support::{
    Engine, Site,
    cluster::tools,
    site::{shop, totals},
};

on_every_postgres!(prisma_works_beside_the_program, a_consumer_with_prisma_writes_at_the_same_time);

const TABLE: &str = "public.platform_order";

/// A Prisma project in a folder, with the database of a site.
struct Project {
    folder: TempDir,
    url: String,
}

impl Project {
    fn new(site: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/platform/prisma");
        for file in ["schema.prisma", "prisma.config.ts", "consumer.mjs"] {
            fs::copy(source.join(file), folder.path().join(file)).unwrap();
        }
        std::os::unix::fs::symlink(tools().join("prisma/node_modules"), folder.path().join("node_modules")).unwrap();
        Self { folder, url: site.database.url.clone() }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("DATABASE_URL", &self.url).kill_on_drop(true);
        // The engines are WebAssembly; without these, the command line asks for binaries.
        command.env("PRISMA_QUERY_ENGINE_LIBRARY", "/bin/true").env("PRISMA_SCHEMA_ENGINE_BINARY", "/bin/true");
        command.env("CHECKPOINT_DISABLE", "1").env("PRISMA_HIDE_UPDATE_MESSAGE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn prisma(&self, arguments: &[&str]) -> String {
        let output = self.command("node_modules/.bin/prisma", arguments).output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Brings the database up to date with the schema of the project. The command has done its work a minute before it ends.
    async fn migrate(&self) -> String {
        let mut child =
            self.command("node_modules/.bin/prisma", &["migrate", "dev", "--name", "init"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            said += &format!("{line}\n");
            if line.contains("in sync") {
                child.kill().await.unwrap();
                return said;
            }
        }
        let output = child.wait_with_output().await.unwrap();
        panic!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the consumer. It reads events from its input.
    fn consumer(&self) -> Child {
        self.command("node", &["consumer.mjs"]).stdin(Stdio::piped()).spawn().unwrap()
    }
}

/// Ends the input of the consumer, and returns how many rows it wrote.
async fn consumed(consumer: Child) -> usize {
    let output = consumer.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    said.trim().strip_suffix(" rows written").and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// A platform that Prisma made, with its merchant, and the program beside it.
async fn prisma_platform(engine: Engine, orders: usize) -> (Site, Project) {
    let mut site = Site::unregistered(engine, [shop(MERCHANT, orders, 0)]).await;
    let project = Project::new(&site);
    project.migrate().await;
    project.prisma(&["generate"]).await;
    assert_eq!(consumed(project.consumer()).await, 0);
    site.run(&["migrate", "up"]).await.exits(0);
    let template = site.run(&["target", "template", "prisma", "--table", TABLE]).await.exits(0).stdout;
    site.database.db.execute_unprepared(&template).await.unwrap_or_else(|error| panic!("{error}: {template}"));
    site.set("TARGET__ORDERS__VIEW", "salla.platform_orders");
    site.set("TARGET__ORDERS__FUNCTION", "salla.write_platform_orders");
    site.register_all().await;
    (site, project)
}

async fn prisma_works_beside_the_program(engine: Engine) {
    let (site, project) = prisma_platform(engine, 20).await;
    let run = full(&site).await;
    assert_eq!(totals(&run), [20, 20, 0, 0, 0, 0], "{run}");
    assert_equal(&site).await;
    let objects = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('salla')";
    let before = site.database.number(objects).await;
    let migrated = project.migrate().await;
    assert!(migrated.contains("Already in sync"), "{migrated}");
    let pushed = project.prisma(&["db", "push"]).await;
    assert!(pushed.contains("already in sync"), "{pushed}");
    let pulled = project.prisma(&["db", "pull", "--print"]).await;
    assert!(pulled.contains("model Order") && !pulled.contains("credentials"), "{pulled}");
    assert_eq!(site.database.number(objects).await, before);
    assert_eq!(totals(&full(&site).await), [20, 0, 0, 20, 0, 0]);
}

/// Neither side loses a version or waits for the other forever.
async fn a_consumer_with_prisma_writes_at_the_same_time(engine: Engine) {
    let (site, project) = prisma_platform(engine, 60).await;
    full(&site).await;
    let mut consumer = project.consumer();
    let mut input = consumer.stdin.take().unwrap();
    let mut updated = 0;
    for round in 0..20 {
        let feed = async {
            for number in round * 10..(round + 1) * 10 {
                input.write_all(change(&site, number).as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (run, ()) = tokio::join!(full(&site), feed);
        assert_eq!(run["status"], "succeeded", "{run}");
        updated += totals(&run)[2];
    }
    drop(input);
    let written = consumed(consumer).await;
    updated += totals(&full(&site).await)[2];
    assert!(written > 0 && updated > 0, "the consumer wrote {written} rows, the program {updated}");
    assert_equal(&site).await;
    assert_eq!(totals(&full(&site).await), [60, 0, 0, 60, 0, 0]);
}

/// Changes an order in Salla. Returns the event for the consumer.
fn change(site: &Site, number: usize) -> String {
    let mut world = site.salla.world();
    let shop = world.shop(MERCHANT);
    let id = shop.orders[(number * 7) % shop.orders.len()].id;
    shop.touch(id, Utc::now() - TimeDelta::seconds(300) + TimeDelta::seconds(number as i64));
    let order = shop.orders.iter().find(|order| order.id == id).unwrap();
    let event = json!({
        "id": order.id,
        "status": order.slug().to_uppercase(),
        "total": format!("{}.{:02}", order.total / 100, order.total % 100),
        "currency": order.currency,
        "updated_at": order.updated_at.to_rfc3339_opts(SecondsFormat::Millis, true),
    });
    format!("{event}\n")
}
