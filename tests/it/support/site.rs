//! A site: a simulated Salla, a database, and the program pointed at both.

use std::{collections::BTreeMap, process::Stdio, sync::Arc, thread};

use chrono::{DateTime, TimeDelta, Utc};
use salla_reconciler::simulator::{Order, Shop, Simulator, World};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use super::{
    Engine,
    canary::Watch,
    daemon::Daemon,
    database::TestDatabase,
    kind::{Cell, Kind},
    log::Shown,
};

/// The key ring of every test.
pub const KEYS: &str = "test:dmF1bHQta2V5LWNhbmFyeS0zMi1ieXRlcy1sb25nISE=";

pub struct Site {
    pub database: TestDatabase,
    pub salla: Simulator,
    pub folder: TempDir,
    /// Knows every secret of the site, and looks for them wherever the program shows anything.
    pub watch: Arc<Watch>,
    env: BTreeMap<String, String>,
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The JSON objects of stdout, one a line.
    pub fn objects(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    /// The only object of stdout.
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Site {
    /// A site with these stores, each of them registered.
    pub async fn new(engine: Engine, shops: impl IntoIterator<Item = Shop>) -> Self {
        let site = Self::unregistered(engine, shops).await;
        site.register_all().await;
        site
    }

    /// A site whose database is there already, with these stores, each of them registered.
    pub async fn on(engine: Engine, url: String, shops: impl IntoIterator<Item = Shop>) -> Self {
        let database = TestDatabase::connect(engine, url).await;
        let site = Self::assemble(database, tempfile::tempdir().unwrap(), shops).await;
        site.register_all().await;
        site
    }

    pub async fn register_all(&self) {
        let merchants: Vec<i64> = self.salla.world().shops.keys().copied().collect();
        for merchant in merchants {
            self.register(merchant).await;
        }
    }

    /// A site with these stores, none of them registered.
    pub async fn unregistered(engine: Engine, shops: impl IntoIterator<Item = Shop>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = TestDatabase::create(engine, &folder).await;
        Self::assemble(database, folder, shops).await
    }

    async fn assemble(database: TestDatabase, folder: TempDir, shops: impl IntoIterator<Item = Shop>) -> Self {
        let salla = Simulator::start(World::new(shops)).await.unwrap();
        let mut site = Self { database, salla, folder, watch: Arc::new(Watch::new()), env: BTreeMap::new() };
        for (key, value) in [
            ("DATABASE__URL", site.database.url.clone()),
            ("SALLA__API_URL", site.salla.api_url()),
            ("SALLA__TOKEN_URL", site.salla.token_url()),
            ("SALLA__CLIENT_ID", "app".to_owned()),
            ("SALLA__CLIENT_SECRET", "app-secret-canary".to_owned()),
            ("SALLA__REQUESTS_PER_MINUTE", "100000".to_owned()),
            ("SALLA__MAX_REQUESTS_PER_MINUTE", "600000".to_owned()),
            ("SALLA__REQUEST_TIMEOUT", "2s".to_owned()),
            ("VAULT__KEYS", KEYS.to_owned()),
            ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
        ] {
            site.set(key, &value);
        }
        site
    }

    /// Sets a key, named as in the contract. A secret is looked for from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.watch.sow_setting(key, value);
        self.env.insert(format!("SALLA_RECONCILER__{key}"), value.to_owned());
    }

    /// Sets a variable that is not this program's own.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// The settings, as variables.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    pub fn unset(&mut self, key: &str) {
        self.env.remove(&format!("SALLA_RECONCILER__{key}"));
    }

    /// Registers a store with its present tokens.
    pub async fn register(&self, merchant: i64) {
        let line = self.salla.registration(merchant).unwrap();
        self.import(&line).await.exits(0);
    }

    pub async fn import(&self, lines: &str) -> Output {
        self.run_with_input(&["merchants", "import", "-"], lines).await
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salla-reconciler"));
        command.args(args).env_clear().envs(&self.env).env("RUST_LOG", "trace");
        command.current_dir(self.folder.path()).kill_on_drop(true);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "").await
    }

    async fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        self.output(self.command(args), input).await
    }

    /// Runs a command to its end, and looks for secrets in all that it writes.
    pub async fn output(&self, command: Command, input: &str) -> Output {
        let output = self.unwatched(command, input).await;
        self.watch.search("stdout", output.stdout.as_bytes());
        self.watch.search("stderr", output.stderr.as_bytes());
        let shown = Shown::new();
        let lines = output.stderr.split_inclusive('\n').filter(|line| shown.shows(line));
        Output { stderr: lines.collect(), ..output }
    }

    /// Prints a new key of the vault. Here, a printed key does not count as a leak.
    pub async fn new_key(&self, id: &str) -> String {
        let output = self.unwatched(self.command(&["keys", "generate", "--id", id]), "").await.exits(0);
        let key = output.stdout.trim().to_owned();
        self.watch.sow_key(&key);
        self.watch.search("stderr", output.stderr.as_bytes());
        key
    }

    async fn unwatched(&self, mut command: Command, input: &str) -> Output {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = async move {
            // A command that reads no input may be gone already.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        // Beside each other: one that says much while it reads waits for its words to be read.
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output.unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `run --json` for one store, and its object.
    pub async fn reconcile(&self, merchant: i64, more: &[&str]) -> Value {
        let id = merchant.to_string();
        let args = [&["run", "--json", "--merchant", &id], more].concat();
        self.run(&args).await.object()
    }

    /// `serve`, which ends as by `kill -9` at these points: see `src/failpoint.rs`.
    #[cfg(feature = "failpoints")]
    pub async fn serve_until(&self, points: &str) -> Daemon {
        let mut command = self.command(&["serve"]);
        command.env("FAILPOINTS", points);
        Daemon::start(command, Arc::clone(&self.watch)).await
    }

    pub async fn serve(&self) -> Daemon {
        Daemon::start(self.command(&["serve"]), Arc::clone(&self.watch)).await
    }

    /// Looks through everything that is stored.
    pub fn search_tables(&self) {
        let (engine, url) = (self.database.engine, self.database.url.clone());
        // A separate runtime, because a site that is dropped cannot wait for the runtime of the test.
        let dump = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { TestDatabase::connect(engine, url).await.dump().await })
        });
        for (table, row) in dump.join().expect("the database cannot be looked through") {
            self.watch.search(&format!("the table {table}"), row.as_bytes());
        }
    }

    /// Writes a record as a webhook consumer does.
    pub async fn consume<K: Kind>(&self, merchant: i64, item: &K) {
        self.database.consume(merchant, item).await;
    }

    /// Fails unless every order of the store is held exactly as Salla has it, and no other is held that is not marked
    /// as gone.
    pub async fn assert_equal(&self, merchant: i64) {
        self.assert_equal_of::<Order>(merchant).await;
    }

    /// The same for any kind of record.
    pub async fn assert_equal_of<K: Kind>(&self, merchant: i64) {
        let (theirs, documented): (BTreeMap<i64, K>, bool) = {
            let mut world = self.salla.world();
            let documented = world.documented;
            (K::all(world.shop(merchant)).iter().map(|item| (item.id(), item.clone())).collect(), documented)
        };
        let rows = self.held_of::<K>(merchant).await;
        let listed = theirs.values().filter(|item| item.is_to_be_held()).count();
        assert_eq!(rows.len(), listed, "{} of merchant {merchant}", K::TABLE);
        for row in rows {
            let id: i64 = row.try_get("", K::ID).unwrap();
            let item = &theirs[&id];
            for (column, cell) in item.columns() {
                assert_eq!(cell.held(&row, column), cell, "{column} of {id}");
            }
            let updated_at: Option<DateTime<Utc>> = row.try_get("", "salla_updated_at").unwrap();
            assert_eq!(updated_at, K::DATED.then(|| item.updated_at()), "{id}");
            let payload: Value = serde_json::from_str(&row.try_get::<String>("", "payload").unwrap()).unwrap();
            assert_eq!(without_signed_links(payload), without_signed_links(item.shown(documented)), "{id}");
        }
    }

    /// The stored records of a store that are not marked as gone.
    async fn held_of<K: Kind>(&self, merchant: i64) -> Vec<sea_orm::QueryResult> {
        let any = K::all(self.salla.world().shop(merchant)).first().map(Kind::columns);
        let own = any.unwrap_or_default().into_iter().map(|(name, cell)| match cell {
            Cell::Amount(_) => format!(", CAST({name} AS text) AS {name}"),
            _ => format!(", {name}"),
        });
        let sql = format!(
            "SELECT {id}, salla_updated_at, CAST(payload AS text) AS payload{own} FROM {table} \
             WHERE merchant_id = {merchant} AND deleted_at IS NULL",
            id = K::ID,
            table = K::TABLE,
            own = own.collect::<String>(),
        );
        self.database.rows(&sql).await
    }
}

/// The last look: at everything that is stored.
impl Drop for Site {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.search_tables();
        }
    }
}

fn without_signed_links(mut order: Value) -> Value {
    order.as_object_mut().unwrap().remove("urls");
    order
}

/// A store with `old` orders of the last months and `fresh` ones of the last hours.
pub fn shop(merchant: i64, old: usize, fresh: usize) -> Shop {
    let now = Utc::now();
    let mut shop = Shop::seeded(merchant, old, now);
    for number in 0..fresh {
        shop.place(now - TimeDelta::seconds(60 + 30 * i64::try_from(number).unwrap()));
    }
    shop
}

/// The settings of a site that reconciles all kinds of record.
pub const EVERYTHING: [(&str, &str); 3] = [
    ("RECONCILE__RESOURCES", "orders,products,customers,order_statuses"),
    ("RECONCILE__ORDER_ITEMS", "true"),
    ("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000"),
];

/// A store with so many orders of the last hours, and so many records of each other kind.
pub fn everything(merchant: i64, orders: usize, of_each: usize) -> Shop {
    let now = Utc::now();
    shop(merchant, 0, orders).stocked(of_each, now).visited(of_each, now).with_statuses(of_each, now)
}

/// `totals` in the order fetched, created, updated, unchanged, skipped, failed; checks their sum.
#[track_caller]
pub fn totals(run: &Value) -> [u64; 6] {
    let totals = ["fetched", "created", "updated", "unchanged", "skipped", "failed"]
        .map(|name| run["totals"][name].as_u64().unwrap_or_else(|| panic!("no totals: {run}")));
    assert_eq!(totals[0], totals[1..].iter().sum::<u64>(), "{run}");
    totals
}
