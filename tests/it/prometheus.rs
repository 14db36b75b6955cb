//! A real Prometheus: what it scrapes, and what it makes of the alerts and of Grafana's queries.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    events::told,
    support::{
        Engine, Site, child_process::Companion, cluster::free_port, daemon::Daemon, receiver::Receiver, server::Server,
        site::shop, until,
    },
};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One that scrapes `target` each second, with the alerts as they are deployed.
struct Prometheus {
    url: String,
    _files: tempfile::TempDir,
    _companion: Companion,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(files.path(), all).unwrap();
        let configuration = fs::read_to_string(project().join("deploy/prometheus/prometheus.yaml")).unwrap();
        let configuration = configuration.replace("127.0.0.1:8080", target).replace("15s", "1s");
        assert!(configuration.contains(target), "the configuration names another target: {configuration}");
        fs::write(files.path().join("prometheus.yaml"), configuration).unwrap();
        fs::copy(project().join("deploy/prometheus/alerts.yaml"), files.path().join("alerts.yaml")).unwrap();
        let port = free_port();
        let arguments = [
            format!("--config.file={}", files.path().join("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", files.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let companion = Companion::start("prometheus", &arguments);
        Self { url: format!("http://127.0.0.1:{port}"), _files: files, _companion: companion }
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        let answer = client.get(format!("{}/api/v1/{path}", self.url)).query(query).send().await.ok()?;
        answer.json().await.ok()
    }

    /// What a query gives now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.ask("query", &[("query", query)]).await.unwrap_or_default();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

/// Every query of the dashboard, for the job that the configuration names.
fn queries_of_grafana() -> Vec<String> {
    let text = fs::read_to_string(project().join("deploy/grafana/salla-reconciler.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().replace("$job", "salla-reconciler")).collect()
}

async fn scrape(daemon: &Daemon) -> PathBuf {
    let (_, text) = daemon.get("/metrics").await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scrape.txt");
    fs::write(&file, text.as_str().unwrap()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_and_alerts() {
    // With all that has a number.
    let (server, receiver) = (Server::start(16).await, Receiver::start().await);
    let mut site = Site::on(Engine::Postgres16, server.url(), [shop(1001, 0, 3)]).await;
    site.database.rows("SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')::text").await;
    told(&mut site, &receiver);
    site.set("CDC__SLOT", "warehouse");
    let daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    let prometheus = Prometheus::start(daemon.url.strip_prefix("http://").unwrap());
    until("Prometheus scrapes", async || {
        let up = prometheus.ask("query", &[("query", "up == 1")]).await.unwrap_or_default();
        up["data"]["result"].as_array().is_some_and(|found| !found.is_empty())
    })
    .await;
    let created = prometheus.query(r#"salla_reconciler_records_total{outcome="created",resource="orders"}"#).await;
    assert_eq!(created[0]["value"][1], "3", "{created:?}");

    until("every rule is evaluated", async || {
        let rules = prometheus.ask("rules", &[]).await.unwrap_or_default();
        let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<_> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
        rules.len() > 15 && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    let firing = prometheus.query(r#"ALERTS{alertstate="firing"}"#).await;
    assert!(firing.is_empty(), "all is well: {firing:?}");

    let queries = queries_of_grafana();
    assert!(queries.len() > 20, "{queries:?}");
    let mut answered = 0;
    for query in &queries {
        answered += usize::from(!prometheus.query(query).await.is_empty());
    }
    // Rates need two scrapes, and some things never happened; most have an answer at once.
    assert!(answered * 2 > queries.len(), "{answered} of {} queries have an answer", queries.len());

    let checked = Command::new(project().join(".ci/alerts")).arg(scrape(&daemon).await).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// The check is one: a metric that is misspelt, a database's number that is added up.
#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_alerts_are_found() {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["deploy/prometheus", "deploy/grafana", "docs", ".ci"] {
        fs::create_dir_all(copy.path().join(folder)).unwrap();
        for file in
            fs::read_dir(project().join(folder)).unwrap().map(Result::unwrap).filter(|file| file.path().is_file())
        {
            fs::copy(file.path(), copy.path().join(folder).join(file.file_name())).unwrap();
        }
    }
    let alerts = copy.path().join("deploy/prometheus/alerts.yaml");
    let right = fs::read_to_string(&alerts).unwrap();
    let check = |text: &str| {
        fs::write(&alerts, text).unwrap();
        let scrape = copy.path().join("scrape.txt");
        let page = fs::read_to_string(project().join("docs/reference/metrics.md")).unwrap();
        let names = page.lines().filter_map(|line| line.strip_prefix("| `salla_reconciler_")?.split('`').next());
        fs::write(&scrape, names.map(|name| format!("# TYPE salla_reconciler_{name} gauge\n")).collect::<String>())
            .unwrap();
        let done = Command::new("python3").arg(".ci/alerts.py").arg(scrape).current_dir(copy.path()).output().unwrap();
        (done.status.success(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(check(&right), (true, String::new()));
    for (what, from, to) in [
        ("there is no metric", "max(salla_reconciler_runs_due)", "max(salla_reconciler_runs_dew)"),
        ("take the max", "max(salla_reconciler_runs_due)", "sum(salla_reconciler_runs_due)"),
        ("runbook_url", "#sallareconcilersweepstuck", "#sweepstuck"),
        ("nothing shows", "alert: SallaReconcilerSweepStuck", "alert: SallaReconcilerSweepStalled"),
        ("severity", "labels: {severity: page}", "labels: {}"),
        ("no description", "description: Check whether a replica of `serve` is ready", "descriptor: Check"),
        ("label for a merchant", "max(salla_reconciler_runs_due)", "max by (merchant_id) (salla_reconciler_runs_due)"),
    ] {
        let (passed, told) = check(&right.replacen(from, to, 1));
        assert!(!passed && told.contains(what), "{from} → {to}: {told}");
    }
}
