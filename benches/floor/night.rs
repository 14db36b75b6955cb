//! The work of one night: the same for each program, in a separate database.

use std::{collections::HashMap, process::Stdio, time::Duration};

use clap::Args;
use parking_lot::Mutex;
use salla_reconciler::store::Store;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::Instant,
};

use crate::{
    contender::Contender,
    pages::{PAGE_SIZE, page_size},
    platform::Framework,
    process::{cpu, cpu_of_family, has_ended, peak_mib},
    site::SCHEMA,
    site::{ask_for_runs, connect},
};

/// What stands before a store's number in its token.
pub const TOKEN: &str = "bench-";

/// Stores, and connections.
pub const AT_ONCE: u32 = 10;

const KEYS: &str = "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What every write of an order becomes, for each contender.
const CONTENT: &str = "SELECT COALESCE(md5(string_agg(md5(CAST((merchant_id, salla_order_id, reference_id, status, \
     currency, total_amount, salla_created_at, salla_updated_at, payload, content_hash, payload_hash, revision) AS text)), '' \
     ORDER BY merchant_id, salla_order_id)), '') FROM orders";

/// How many stores, the orders of each, and how Salla lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Shape {
    #[arg(long)]
    pub stores: usize,
    #[arg(long)]
    pub orders: usize,
    /// Whether Salla honours `sort_by`.
    #[arg(long)]
    pub sorts: bool,
}

impl Shape {
    pub fn merchants(self) -> impl Iterator<Item = i64> {
        1..=i64::try_from(self.stores).unwrap()
    }

    pub fn name(self) -> String {
        let server = if self.sorts { "" } else { ", without sort_by" };
        format!("{} × {}{server}", self.stores, self.orders)
    }

    pub fn is_small(self) -> bool {
        self.orders < PAGE_SIZE
    }
}

/// The share of changed orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum News {
    All,
    Nothing,
    Some,
}

impl News {
    pub const ALL: [Self; 3] = [Self::All, Self::Nothing, Self::Some];

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all new",
            Self::Nothing => "unchanged",
            Self::Some => "5 % changed",
        }
    }
}

/// What one program needed for it.
#[derive(Debug, Clone)]
pub struct Cost {
    pub shape: Shape,
    pub news: News,
    pub contender: Contender,
    pub wall: Duration,
    /// Of the program.
    pub cpu: Duration,
    /// Of the database's server.
    pub database_cpu: Duration,
    pub peak_mib: f64,
    pub requests: u64,
    pub wal: u64,
    /// Rows of orders that were inserted, updated or deleted.
    pub written: u64,
}

pub struct Night {
    server: String,
    shape: Shape,
    /// Orders of other stores.
    beside: u64,
    admin: DatabaseConnection,
    postmaster: u32,
    salla: String,
    /// A hash of what the first contender wrote.
    contents: Mutex<HashMap<News, String>>,
    // It ends when its stdin does.
    _salla: Child,
}

impl Night {
    /// Starts the Salla, and makes a database in which the stores are registered, `beside` as many orders of others.
    pub async fn begin(server: &str, shape: Shape, beside: u64) -> Self {
        let admin = connect(&format!("{server}/postgres")).await;
        // Commits wait for the disk, as anywhere; neither a checkpoint nor a vacuum comes in between: both are done before.
        for setting in ["fsync = on", "max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "autovacuum = off"] {
            admin.execute_unprepared(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        admin.execute_unprepared("SELECT pg_reload_conf()").await.unwrap();
        let mut salla = Command::new(std::env::current_exe().unwrap())
            .args(["salla", "--stores", &shape.stores.to_string(), "--orders", &shape.orders.to_string()])
            .args(shape.sorts.then_some("--sorts"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let address = BufReader::new(salla.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
        let backend = number(&admin, "SELECT pg_backend_pid()").await;
        let status = std::fs::read_to_string(format!("/proc/{backend}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        let night = Self {
            server: server.to_owned(),
            shape,
            beside,
            admin,
            postmaster: parent.trim().parse().unwrap(),
            salla: format!("http://{address}"),
            contents: Mutex::default(),
            _salla: salla,
        };
        night.admin.execute_unprepared("DROP DATABASE IF EXISTS registered").await.unwrap();
        night.admin.execute_unprepared("CREATE DATABASE registered").await.unwrap();
        night.register().await;
        night
    }

    async fn register(&self) {
        let url = format!("{}/registered", self.server);
        let store = Store::connect(&url.clone().into(), SCHEMA, 2, Duration::from_secs(60)).await.unwrap();
        store.migrate().await.unwrap();
        store.close().await.unwrap();
        let mut import = self.program(&url, &["merchants", "import", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = import.stdin.take().unwrap();
        for merchant in self.shape.merchants() {
            let line = format!("{{\"merchant_id\":{merchant},\"access_token\":\"{TOKEN}{merchant}\"}}\n");
            stdin.write_all(line.as_bytes()).await.unwrap();
        }
        drop(stdin);
        assert!(import.wait().await.unwrap().success(), "the stores could not be registered");
        let db = connect(&url).await;
        self.add_platform(&url, &db).await;
        let others = format!(
            "INSERT INTO orders (merchant_id, salla_order_id, status, currency, total_amount, \
             salla_created_at, salla_updated_at) SELECT 1000000 + i % 5000, 2000000000 + i, 'completed', 'SAR', 99.5, \
             now() - interval '1 second' * i, now() - interval '1 second' * i FROM generate_series(1, {}) i",
            self.beside
        );
        db.execute_unprepared(&others).await.unwrap();
        db.close().await.unwrap();
    }

    fn program(&self, database: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.args(args).env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
        for (key, value) in [
            ("DATABASE__URL", database),
            ("SALLA__API_URL", &format!("{}/admin", self.salla)),
            ("SALLA__TOKEN_URL", &format!("{}/oauth2/token", self.salla)),
            ("SALLA__CLIENT_ID", "bench"),
            ("SALLA__CLIENT_SECRET", "bench-secret"),
            ("SALLA__REQUESTS_PER_MINUTE", "100000"),
            ("SALLA__MAX_REQUESTS_PER_MINUTE", "6000000"),
            ("RECONCILE__CONCURRENCY", &AT_ONCE.to_string()),
            ("RECONCILE__PAGE_SIZE", &page_size(self.shape.orders).to_string()),
            ("VAULT__KEYS", KEYS),
            ("HTTP__LISTEN", "127.0.0.1:0"),
        ] {
            command.env(format!("SALLA_RECONCILER__{key}"), value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// One program's whole night: all is new, then nothing, then some.
    pub async fn measure(&self, contender: Contender) -> Vec<Cost> {
        self.admin.execute_unprepared("DROP DATABASE IF EXISTS night WITH (FORCE)").await.unwrap();
        self.admin.execute_unprepared("CREATE DATABASE night TEMPLATE registered").await.unwrap();
        let url = format!("{}/night", self.server);
        let mut costs = Vec::new();
        for news in News::ALL {
            self.post("changed", &(news == News::Some).to_string()).await;
            let db = connect(&url).await;
            if contender.is_daemon() {
                ask_for_runs(&url, self.shape.merchants()).await;
            }
            for sql in ["VACUUM ANALYZE", "SELECT pg_stat_reset()", "CHECKPOINT"] {
                db.execute_unprepared(sql).await.unwrap();
            }
            costs.push(self.measure_once((contender, news), (&url, &db)).await);
            if contender != Contender::Download {
                self.check((contender, news), &db).await;
            }
            db.close().await.unwrap();
            if contender == Contender::Download {
                break;
            }
        }
        costs
    }

    async fn measure_once(&self, (contender, news): (Contender, News), (url, db): (&str, &DatabaseConnection)) -> Cost {
        self.requests().await;
        let (wal, database_cpu) = (number(db, WAL).await, cpu_of_family(self.postmaster));
        let (mut most, mut used) = (0.0, Duration::ZERO);
        let began = Instant::now();
        let mut child = self.start(contender, url);
        let id = child.id().unwrap();
        let open = "SELECT count(*) FROM (SELECT 1 FROM runs WHERE status IN ('queued', 'running') LIMIT 1) t";
        let mut wall = None;
        while !has_ended(id) {
            most = peak_mib(id).unwrap_or(most).max(most);
            used = cpu(id).unwrap_or(used);
            if contender.is_daemon() {
                if number(db, open).await == 0 {
                    wall = Some(began.elapsed());
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let wall = wall.unwrap_or(began.elapsed());
        let cost = Cost {
            shape: self.shape,
            news,
            contender,
            wall,
            cpu: cpu(id).unwrap_or(used),
            database_cpu: cpu_of_family(self.postmaster) - database_cpu,
            peak_mib: peak_mib(id).unwrap_or(most).max(most),
            requests: self.requests().await,
            wal: number(db, WAL).await - wal,
            written: 0,
        };
        if contender.is_daemon() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id.cast_signed()), nix::sys::signal::Signal::SIGTERM)
                .unwrap();
        }
        assert!(child.wait().await.unwrap().success(), "{} failed", contender.name());
        // A server's process tells what it has done when it ends.
        let written = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'orders'";
        tokio::time::sleep(Duration::from_millis(300)).await;
        Cost { written: number(db, written).await, ..cost }
    }

    fn start(&self, contender: Contender, url: &str) -> Child {
        if contender.is_daemon() {
            let mut daemon = self.program(url, &["serve"]);
            if let Some(table) = target_of(contender) {
                daemon.env("SALLA_RECONCILER__TARGET__ORDERS__VIEW", format!("{table}_orders"));
                daemon.env("SALLA_RECONCILER__TARGET__ORDERS__FUNCTION", format!("write_{table}_orders"));
            }
            return daemon.spawn().unwrap();
        }
        Command::new(std::env::current_exe().unwrap())
            .args(["work", "--contender", &contender.name().replace(' ', "-"), "--database", url])
            .args(["--salla", &self.salla, "--stores", &self.shape.stores.to_string()])
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Each contender leaves the same rows, and all of the daemon's runs succeed.
    async fn check(&self, (contender, news): (Contender, News), db: &DatabaseConnection) {
        let (held, all) = (number(db, "SELECT count(*) FROM orders").await, self.shape.stores * self.shape.orders);
        assert_eq!(held, all as u64 + self.beside, "{news:?}: orders");
        assert_eq!(number(db, "SELECT count(*) FROM runs WHERE status <> 'succeeded'").await, 0, "{news:?}: runs");
        let content = text(db, CONTENT).await;
        let known = self.contents.lock().entry(news).or_insert_with(|| content.clone()).clone();
        assert_eq!(content, known, "{news:?}: what stands there is not what the others wrote");
        if target_of(contender).is_some() {
            let differing = "SELECT count(*) FROM orders o FULL JOIN full_orders v USING (merchant_id, salla_order_id) \
                             WHERE merchant_id > 0 AND (o.status, o.total_amount, o.salla_updated_at) IS DISTINCT FROM (v.status, v.total_amount, v.salla_updated_at)";
            assert_eq!(number(db, differing).await, 0, "{news:?}: the platform differs");
        }
    }

    /// Tables of a platform as Prisma makes them, with the view and the function that `target template` prints.
    async fn add_platform(&self, url: &str, db: &DatabaseConnection) {
        db.execute_unprepared(Framework::Prisma.ddl()).await.unwrap();
        let merchants = r#"DELETE FROM public."Merchant"; INSERT INTO public."Merchant" ("id", "sallaMerchantId", "name") SELECT 'cm1x9k2p4' || merchant_id, merchant_id, 'A store' FROM merchants"#;
        db.execute_unprepared(merchants).await.unwrap();
        // A platform that exists has orders, and statistics of them.
        let others = r#"INSERT INTO public."Merchant" ("id", "sallaMerchantId", "name") VALUES ('other', 0, 'Another store');
            INSERT INTO public."Order" ("id", "merchantId", "sallaOrderId", "status", "currency", "totalAmount", "sallaUpdatedAt", "updatedAt")
            SELECT 'other' || i, 'other', i, 'COMPLETED', 'SAR', 99.5, now(), now() FROM generate_series(1, 10000) i"#;
        db.execute_unprepared(others).await.unwrap();
        let columns = r#"ALTER TABLE public."Order" DROP COLUMN "payload"; ALTER TABLE public."Order" ADD COLUMN "payload" JSONB"#;
        for (name, columns) in ["lean", "full"].into_iter().zip(columns.split(';')) {
            db.execute_unprepared(columns).await.unwrap();
            let args = ["target", "template", "prisma", "--table", Framework::Prisma.table()];
            let output = self.program(url, &args).stdout(Stdio::piped()).output().await.unwrap();
            let sql = String::from_utf8(output.stdout).unwrap().replace("platform_orders", &format!("{name}_orders"));
            db.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
        }
    }

    async fn post(&self, what: &str, body: &str) {
        let client = reqwest::Client::new();
        client.post(format!("{}/{what}", self.salla)).body(body.to_owned()).send().await.unwrap();
    }

    async fn requests(&self) -> u64 {
        let answer = reqwest::get(format!("{}/requests", self.salla)).await.unwrap().text().await.unwrap();
        answer.parse().unwrap()
    }
}

/// What the names of the view and the function begin with; `None` without a target.
fn target_of(contender: Contender) -> Option<&'static str> {
    match contender {
        Contender::Target => Some("full"),
        Contender::TargetWithoutPayload => Some("lean"),
        _ => None,
    }
}

const WAL: &str = "SELECT CAST(pg_current_wal_insert_lsn() - '0/0' AS bigint)";

async fn text(db: &DatabaseConnection, sql: &str) -> String {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap().try_get_by_index(0).unwrap()
}

async fn number(db: &DatabaseConnection, sql: &str) -> u64 {
    text(db, &format!("SELECT CAST(({sql}) AS text)")).await.parse().unwrap()
}
