//! The API's document: it is what the daemon serves, every route is in it, and a fuzzer
//! that follows it finds no undocumented answer.

use std::process::Stdio;

use reqwest::Method;
use salla_reconciler::domain::{FailureKind, Listing, RunStatus, Trigger};
use serde_json::{Value, json};

use crate::support::{Engine, Site, cluster::tools, daemon::Daemon, site::shop};

const TOKEN: &str = "operator-canary-0123";

async fn printed(site: &Site) -> Value {
    serde_json::from_str(&site.run(&["openapi"]).await.exits(0).stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_is_served() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("HTTP__API_TOKENS", &format!("ci:operate:{TOKEN}"));
    let daemon = site.serve().await;
    let (status, headers, served) = daemon.call(Method::GET, "/openapi.json", None).await;
    assert_eq!((status.as_u16(), &headers["content-type"]), (200, &"application/json".parse().unwrap()));
    drop(daemon);
    // It needs no configuration, and minds none that is wrong.
    site.set("HTTP__LISTEN", "nonsense");
    assert_eq!(printed(&site).await, served);
    assert_eq!(served["openapi"], "3.1.0");
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn every_route_is_in_the_document() {
    // The router has no other way to come by a route than the one that takes its words along.
    let router = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/mod.rs")).unwrap();
    assert!(!router.contains(".route(") && !router.contains(".nest(") && !router.contains("_service("), "{router}");
    let document = printed(&Site::unregistered(Engine::Sqlite, []).await).await;
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations, router.matches(".routes(on(").count());
    for (path, method) in [
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
        ("/runs", "get"),
        ("/runs", "post"),
        ("/runs/{id}", "get"),
        ("/runs/{id}/discrepancies", "get"),
        ("/runs/{id}/cancel", "post"),
        ("/merchants", "get"),
        ("/merchants/{id}", "get"),
        ("/report", "get"),
        ("/audit", "get"),
    ] {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path} has no words");
        let guarded = !["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path);
        assert_eq!(operation["security"] == json!([{"token": []}]), guarded, "{path}");
        for status in ["401", "403", "429"] {
            assert_eq!(operation["responses"][status].is_object(), guarded, "{path} {status}");
        }
    }
}

#[tokio::test]
async fn the_document_has_the_words_of_the_answers() {
    let document = printed(&Site::unregistered(Engine::Sqlite, []).await).await;
    let words = |name: &str| document["components"]["schemas"][name]["enum"].clone();
    assert_eq!(words("RunStatus"), json!(RunStatus::ALL));
    assert_eq!(words("Trigger"), json!(Trigger::ALL));
    assert_eq!(words("Listing"), json!(Listing::ALL));
    assert_eq!(words("FailureKind"), json!(FailureKind::ALL));
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document["components"]["schemas"][name].is_object(), "{name} is nowhere");
    }
}

/// By somebody else's reading of the specification; and each example fits its schema.
#[tokio::test]
async fn the_document_and_its_examples_are_valid() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    let file = site.folder.path().join("openapi.json");
    std::fs::write(&file, site.run(&["openapi"]).await.exits(0).stdout).unwrap();
    let folder = tools().join("schemathesis/bin");
    for (program, arguments) in [("openapi-spec-validator", &[][..]), ("python", &["-c", CHECK_EXAMPLES])] {
        let program = folder.join(program);
        assert!(program.exists(), "{} is not on this machine: `tests/run` installs it", program.display());
        let output = std::process::Command::new(program).args(arguments).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}

const CHECK_EXAMPLES: &str = r#"
import json, sys
from jsonschema_rs import Draft202012Validator

document = json.load(open(sys.argv[1]))
missing, checked = [], 0
for path, item in document["paths"].items():
    for method, operation in item.items():
        bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for status, content in ((s, c) for s, body in bodies for c in body.get("content", {}).items()):
            kind, media = content
            if not kind.endswith("json") or path == "/openapi.json":
                continue
            schema = {**media["schema"], "components": document["components"]}
            named = document["components"]["schemas"].get(media["schema"].get("$ref", "").rsplit("/", 1)[-1], {})
            example = media.get("example", named.get("example"))
            if example is None:
                missing.append(f"{method} {path} {status}")
                continue
            Draft202012Validator(schema, validate_formats=True).validate(example)
            if "$ref" in media["schema"]:
                unknown = set(example) - set(named.get("properties", example))
                assert not unknown, f"{method} {path} {status}: {unknown}"
            checked += 1
assert not missing, missing
assert checked > 100, checked
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_fuzzer_with_a_token_finds_no_defect() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 2), shop(1002, 0, 1)]).await;
    site.set("HTTP__API_TOKENS", &format!("ci:operate:{TOKEN}"));
    site.set("HTTP__REQUESTS_PER_SECOND", "1000000");
    site.reconcile(1001, &[]).await;
    let header = format!("Authorization: Bearer {TOKEN}");
    let daemon = site.serve().await;
    // The sixth wrong token of a second answers 429. So this check runs separately, and sends its wrong tokens slowly.
    let all = ["--checks", "all", "--exclude-checks", "positive_data_acceptance,ignored_auth"];
    let wrong_tokens =
        ["--checks", "ignored_auth", "--rate-limit", "4/s", "--phases", "fuzzing", "--max-examples", "1"];
    fuzz(&daemon, &[&all[..], &["--max-examples", "25", "--header", &header]].concat()).await;
    fuzz(&daemon, &[&wrong_tokens[..], &["--header", &header]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fuzzer_without_a_token_finds_no_defect() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 2)]).await;
    site.set("HTTP__API_TOKENS", &format!("ci:operate:{TOKEN}"));
    site.set("HTTP__REQUESTS_PER_SECOND", "1000000");
    let all = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", "25"];
    fuzz(&site.serve().await, &all).await;
}

/// Schemathesis reads the document and sends what it allows, and what it does not.
async fn fuzz(daemon: &Daemon, more: &[&str]) {
    let program = tools().join("schemathesis/bin/schemathesis");
    assert!(program.exists(), "schemathesis is not on this machine: `tests/run` installs it");
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(program)
        .current_dir(folder.path())
        .args(["--no-color", "run", &format!("{}/openapi.json", daemon.url)])
        .args(["--seed", "20261125", "--workers", "1", "--request-timeout", "10"])
        // `more` leaves out a check: no schema can say that a window ends after it begins, or that a key is new.
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Tested: "), "it tried nothing: {said}");
    assert!(!daemon.log_text().contains("panicked"), "{}", daemon.log_text());
}
