//! Traces, as a collector receives them.

use std::{collections::BTreeSet, time::Duration};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use salla_reconciler::simulator::Fault;
use tokio::time::Instant;

use crate::support::{
    Engine, Site,
    collector::{Collector, Received},
    site::shop,
};

on_every_database!(a_trace_of_each_run);

fn named<'a>(spans: &'a [Received], name: &str) -> Vec<&'a Received> {
    spans.iter().filter(|received| received.span.name == name).collect()
}

/// One run that succeeds after a request is tried again, and one that fails. The daemon sends their spans when it ends,
/// though a batch is not full.
async fn a_trace_of_each_run(engine: Engine) {
    let collector = Collector::start().await;
    let mut site = Site::new(engine, [shop(1001, 0, 70), shop(1002, 0, 3)]).await;
    site.set("TELEMETRY__OTLP_ENDPOINT", &collector.endpoint);
    site.salla.world().script(1001, [Fault::status(503)]);
    site.salla.world().script(1002, [Fault::status(403)]);
    let mut daemon = site.serve().await;
    for merchant in [1001, 1002] {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{merchant}}}"#)).await;
    }
    let good = daemon.await_run("merchant_id=1001", |run| run["status"] == "succeeded").await;
    let bad = daemon.await_run("merchant_id=1002", |run| run["status"] == "failed").await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));

    let spans = collector.spans();
    assert!(spans.iter().all(|received| received.service == "salla-reconciler"), "{spans:?}");
    let of_run = |run: &serde_json::Value| {
        let id = run["run_id"].as_str().unwrap();
        let found = spans.iter().find(|received| received.attribute("run.id") == id);
        found.unwrap_or_else(|| panic!("no trace of {id} in {spans:?}"))
    };
    let (root, failed) = (of_run(&good), of_run(&bad));
    assert_ne!(root.span.trace_id, failed.span.trace_id);
    assert!(root.span.parent_span_id.is_empty());
    assert_eq!(root.attribute("merchant.id"), "1001");
    assert_eq!(
        (root.attribute("run.status"), root.attribute("run.records.created")),
        ("succeeded".into(), "70".into())
    );
    assert_eq!(root.span.status.as_ref().unwrap().code(), StatusCode::Ok);
    assert_eq!(failed.span.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(failed.attribute("error.type"), bad["error"]["kind"].as_str().unwrap());

    assert_whole(&spans, root, if engine == Engine::Sqlite { "sqlite" } else { "postgresql" });

    // Who reads the log finds the trace.
    let line = daemon.await_line(|line| line["message"] == "run ended" && line["merchant.id"] == 1001).await;
    let trace = root.span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(line["span"]["trace_id"], trace.as_str(), "{line}");
}

/// Pages within the run; within those each request and the commit, by the conventions.
fn assert_whole(spans: &[Received], root: &Received, system: &str) {
    let whole: Vec<Received> =
        spans.iter().filter(|received| received.span.trace_id == root.span.trace_id).cloned().collect();
    let pages = named(&whole, "page");
    let parents: BTreeSet<&[u8]> = pages.iter().map(|page| page.span.span_id.as_slice()).collect();
    assert!(pages.len() >= 2, "70 orders are more than a page: {whole:?}");
    assert!(pages.iter().all(|page| page.span.parent_span_id == root.span.span_id));

    let requests = named(&whole, "GET");
    assert_eq!(requests.len(), pages.len() + 1, "one was tried again: {whole:?}");
    for request in &requests {
        assert!(parents.contains(request.span.parent_span_id.as_slice()), "{request:?} is in no page");
        assert_eq!(request.span.kind(), SpanKind::Client);
        assert_eq!(request.attribute("http.request.method"), "GET");
        assert_eq!(request.attribute("server.address"), "127.0.0.1");
        assert!(request.attribute("url.full").contains("/v2/orders?"), "{request:?}");
    }
    let refused: Vec<_> =
        requests.iter().filter(|request| request.attribute("http.response.status_code") == "503").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].attribute("error.type"), "503");
    assert_eq!(refused[0].span.status.as_ref().unwrap().code(), StatusCode::Error);
    let again: Vec<_> =
        requests.iter().filter(|request| request.attribute("http.request.resend_count") == "1").collect();
    assert_eq!(again.len(), 1);

    let commits = named(&whole, "commit");
    // Pages without a difference are committed with others.
    assert!(!commits.is_empty() && commits.len() <= pages.len(), "{whole:?}");
    for commit in commits {
        assert!(parents.contains(commit.span.parent_span_id.as_slice()), "{commit:?} is in no page");
        assert_eq!(commit.attribute("db.system.name"), system);
    }
}

/// It takes what is sent, and says nothing: no one waits for it longer than the grace, not even at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_silent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 3)]).await;
    site.set("TELEMETRY__OTLP_ENDPOINT", &format!("http://{}", listener.local_addr().unwrap()));
    let mut daemon = site.serve().await;
    daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
    daemon.await_run("", |run| run["status"] == "succeeded").await;
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(daemon.log_text().contains("traces could not be sent"), "{}", daemon.log_text());
}
