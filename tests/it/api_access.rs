//! The access control of HTTP, its rate limits, and the audit.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::HeaderMap};
use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::Instant,
};

use crate::support::{Engine, Site, daemon::Daemon, site::shop};

on_every_database!(
    scopes_limit_tokens,
    a_repeated_idempotency_key_returns_the_first_run,
    concurrent_requests_with_one_key_queue_one_run,
    actions_are_audited,
);

/// As short as a token may be.
const SHORTEST: &str = "shortest-token-1";
const READER: &str = "reader-canary-0123";
const OPERATOR: &str = "operator-canary-0123";

/// A site with both tokens.
async fn guarded(engine: Engine) -> Site {
    let mut site = Site::new(engine, [shop(1001, 0, 1), shop(1002, 0, 1)]).await;
    site.set("HTTP__API_TOKENS", &format!("grafana:read:{READER},ci:operate:{OPERATOR}"));
    site
}

/// Answers with this bearer token.
async fn with(daemon: &Daemon, token: &str, method: Method, path: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
    daemon.answer(daemon.request(method, path).bearer_auth(token).body(body.to_owned())).await
}

/// `POST /runs` with a key.
async fn post(daemon: &Daemon, token: &str, key: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
    let request = daemon.request(Method::POST, "/runs").bearer_auth(token).header("idempotency-key", key);
    daemon.answer(request.body(body.to_owned())).await
}

async fn scopes_limit_tokens(engine: Engine) {
    let mut site = guarded(engine).await;
    site.set("HTTP__API_TOKEN", SHORTEST);
    let daemon = site.serve().await;
    let body = r#"{"merchant_id":1001}"#;
    for path in ["/runs", "/merchants", "/merchants/1001", "/report", "/audit"] {
        for token in [READER, OPERATOR, SHORTEST] {
            assert_eq!(with(&daemon, token, Method::GET, path, "").await.0, 200, "{path}");
        }
        let (status, headers, problem) = daemon.call(Method::GET, path, None).await;
        assert_eq!((status.as_u16(), &headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
        assert_eq!(problem["status"], 401);
    }
    let (status, _, problem) = with(&daemon, READER, Method::POST, "/runs", body).await;
    assert_eq!((status.as_u16(), &problem["scope"]), (403, &json!("operate")), "{problem}");
    assert_eq!(
        with(&daemon, READER, Method::POST, "/runs/00000000-0000-7000-8000-000000000000/cancel", "").await.0,
        403
    );
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 0);
    assert_eq!(with(&daemon, OPERATOR, Method::POST, "/runs", body).await.0, 202);
    assert_eq!(with(&daemon, SHORTEST, Method::POST, "/runs", r#"{"merchant_id":1002}"#).await.0, 202);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(daemon.get(path).await.0, 200, "{path}");
    }

    // The answer is the same for every wrong token.
    let mut answers = Vec::new();
    for token in ["x", &READER[..READER.len() - 1], "reader-canary-012", "grafana"] {
        let (status, headers, problem) = with(&daemon, token, Method::GET, "/runs", "").await;
        answers.push((status, headers.keys().cloned().collect::<Vec<_>>(), problem));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].0, 401);
    assert!(!daemon.log_text().contains("canary"), "{}", daemon.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_rate_limited() {
    let site = guarded(Engine::Sqlite).await;
    let daemon = site.serve().await;
    let (mut looked_at, mut refused, began) = (0, 0, Instant::now());
    // A busy machine asks more slowly, and may have to ask for longer until it is refused.
    while began.elapsed() < Duration::from_secs(1) || refused <= 5 {
        assert!(began.elapsed() < Duration::from_secs(60), "{looked_at} tries, {refused} refused");
        let (status, headers, _) = with(&daemon, "not-the-token-0123", Method::GET, "/runs", "").await;
        if status == 401 {
            looked_at += 1;
        } else {
            assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"1".parse().unwrap()));
            refused += 1;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    // Five at once, and one more for each 200 ms.
    let allowed = 6 + began.elapsed().as_millis() / 200;
    assert!((5..=allowed).contains(&looked_at), "{looked_at} tries in {:?}", began.elapsed());
    // A valid token passes meanwhile. That wrong ones are refused is known by those before and after it.
    let (mut passed, began) = (0, Instant::now());
    while passed < 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "too busy a machine to tell");
        let wrong = async || with(&daemon, "not-the-token-0123", Method::GET, "/runs", "").await.0 == 429;
        let refused_before = wrong().await;
        assert_eq!(with(&daemon, READER, Method::GET, "/runs", "").await.0, 200);
        if refused_before && wrong().await {
            passed += 1;
        }
    }
    assert_eq!(daemon.get("/runs").await.0, 401, "a request without a token is not a guess");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_token_passes_while_others_flood() {
    let mut site = guarded(Engine::Sqlite).await;
    site.set("HTTP__REQUESTS_PER_SECOND", "20");
    let daemon = site.serve().await;
    for round in 0..20 {
        // Requests without a token, with a wrong one, and with a scheme that is not served.
        for _ in 0..10 {
            daemon.get("/runs").await;
        }
        for _ in 0..5 {
            with(&daemon, "not-the-token-0123", Method::GET, "/runs", "").await;
            daemon.answer(daemon.request(Method::GET, "/runs").header("authorization", "Basic eDp5")).await;
        }
        for token in [READER, OPERATOR] {
            assert_eq!(with(&daemon, token, Method::GET, "/runs", "").await.0, 200, "{round}");
        }
    }
    // All at once. Otherwise a slow machine would keep to the rate.
    let flood = futures::future::join_all((0..100).map(|_| daemon.get("/runs"))).await;
    assert!(flood.iter().any(|(status, _)| *status == 429), "requests without a token use up their rate");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_have_separate_limits() {
    for (trusted, header, shared) in [
        ("", "x-forwarded-for", true),
        ("10.0.0.0/8", "x-forwarded-for", true),
        ("127.0.0.0/8", "x-forwarded-for", false),
        ("::1, 127.0.0.1", "forwarded", false),
    ] {
        let mut site = guarded(Engine::Sqlite).await;
        site.set("HTTP__REQUESTS_PER_SECOND", "5");
        site.set("HTTP__TRUSTED_PROXIES", trusted);
        let daemon = site.serve().await;
        let client = |address: &str| match header {
            "forwarded" => format!("for=203.0.113.9, for=\"{address}:4711\";proto=https"),
            // The client wrote the first address.
            _ => format!("203.0.113.9, {address}"),
        };
        let get = async |address: &str| {
            daemon.answer(daemon.request(Method::GET, "/runs").header(header, client(address))).await.0.as_u16()
        };
        let mut refused = 0;
        for _ in 0..60 {
            refused += usize::from(get("198.51.100.7").await == 429);
        }
        assert!(refused > 5, "{trusted} {header}: {refused}");
        let other = get("198.51.100.8").await;
        // Without trust both are the same address, which may ask five times a second.
        assert!(other == 401 || shared, "{trusted} {header}: {other}");
        if !shared {
            assert_eq!(get("198.51.100.7").await, 429, "{trusted} {header}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_per_address_are_limited() {
    let mut site = guarded(Engine::Sqlite).await;
    site.set("HTTP__REQUESTS_PER_SECOND", "5");
    let daemon = site.serve().await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(with(&daemon, READER, Method::GET, "/runs", "").await.0.as_u16());
    }
    let passed = statuses.iter().filter(|&&status| status == 200).count();
    assert!((10..=25).contains(&passed) && statuses[..10].iter().all(|&status| status == 200), "{statuses:?}");
    while with(&daemon, READER, Method::GET, "/runs", "").await.0 == 200 {}
    let (status, headers, problem) = with(&daemon, READER, Method::GET, "/runs", "").await;
    assert_eq!((status.as_u16(), &problem["status"]), (429, &json!(429)));
    assert_eq!(headers["content-type"], "application/problem+json");
    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        for _ in 0..15 {
            assert_eq!(daemon.get(path).await.0, 200, "{path}");
        }
    }
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(with(&daemon, READER, Method::GET, "/runs", "").await.0, 200);
}

async fn a_repeated_idempotency_key_returns_the_first_run(engine: Engine) {
    let site = guarded(engine).await;
    site.salla.world().script(1001, [Fault::Hang(Duration::from_millis(700))]);
    let daemon = site.serve().await;
    let body = r#"{"merchant_id":1001,"dry_run":true}"#;
    let (status, headers, first) = post(&daemon, OPERATOR, "k 1", body).await;
    assert_eq!(status, 400, "{headers:?} {first}");
    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        assert_eq!(post(&daemon, OPERATOR, key, body).await.0, 400);
    }

    let (status, headers, first) = post(&daemon, OPERATOR, "k-1", body).await;
    assert_eq!(status, 202, "{first}");
    assert!(!headers.contains_key("idempotency-replayed"));
    let again = r#"{"dry_run": true, "full": false, "merchant_id": 1001}"#;
    let replayed = async |text| {
        let (status, more, run) = post(&daemon, OPERATOR, "k-1", text).await;
        assert_eq!(status, 202, "{run}");
        assert_eq!(more["idempotency-replayed"], "true");
        assert_eq!((&more["location"], &run["run_id"]), (&headers["location"], &first["run_id"]));
    };
    replayed(body).await;
    assert_eq!(post(&daemon, OPERATOR, "k-2", body).await.0, 409, "another key is another request");
    assert_eq!(post(&daemon, OPERATOR, "k-1", r#"{"merchant_id":1001}"#).await.0, 422);
    assert_eq!(post(&daemon, OPERATOR, "k-1", r#"{"merchant_id":1002,"dry_run":true}"#).await.0, 422);

    let ended = async || loop {
        let (_, _, runs) = with(&daemon, READER, Method::GET, "/runs?merchant_id=1001", "").await;
        if runs["runs"][0]["status"] == "succeeded" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ended().await;
    replayed(again).await;
    // A refused request is not remembered. The keys of another caller are separate.
    let (status, _, run) = post(&daemon, OPERATOR, "k-2", body).await;
    assert_eq!(status, 202, "{run}");
    ended().await;
    drop(daemon);

    let mut site = site;
    site.set("HTTP__API_TOKENS", &format!("other:operate:{OPERATOR}"));
    let daemon = site.serve().await;
    let (status, headers, _) = post(&daemon, OPERATOR, "k-1", body).await;
    assert_eq!(status, 202);
    assert!(!headers.contains_key("idempotency-replayed"));
    drop(daemon);

    // A day later the key is new again, with another body too.
    site.set("HTTP__API_TOKENS", &format!("ci:operate:{OPERATOR}"));
    let yesterday = chrono::Utc::now() - chrono::TimeDelta::hours(25);
    site.database.execute("UPDATE idempotency_keys SET created_at = $1", [yesterday.into()]).await;
    let daemon = site.serve().await;
    let (status, headers, _) = post(&daemon, OPERATOR, "k-1", r#"{"merchant_id":1002}"#).await;
    assert_eq!(status, 202);
    assert!(!headers.contains_key("idempotency-replayed"));
}

async fn concurrent_requests_with_one_key_queue_one_run(engine: Engine) {
    let site = guarded(engine).await;
    let (one, two) = tokio::join!(site.serve(), site.serve());
    let bodies = [r#"{"merchant_id":1001}"#, r#"{"merchant_id":1002}"#];
    let posts = (0..20).map(|number| post([&one, &two][number % 2], OPERATOR, "same", bodies[0]));
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|(status, ..)| *status == 202), "{answers:?}");
    assert!(answers.iter().all(|(_, headers, _)| headers["location"] == answers[0].1["location"]), "{answers:?}");
    let replayed = answers.iter().filter(|(_, headers, _)| headers.contains_key("idempotency-replayed")).count();
    assert_eq!(replayed, 19);
    assert_eq!(site.database.number("SELECT count(*) FROM runs").await, 1);
    assert_eq!(site.database.number("SELECT count(*) FROM audit WHERE action = 'run.trigger'").await, 1);

    // Of two stores under one key, also only one wins, though their rows do not stand in each other's way.
    let posts = (0..20).map(|number| post([&one, &two][number % 2], OPERATOR, "both", bodies[number / 2 % 2]));
    let answers = futures::future::join_all(posts).await;
    let made = answers.iter().filter(|(status, ..)| *status == 202).count();
    let other = answers.iter().filter(|(status, ..)| *status == 422).count();
    let busy = answers.iter().filter(|(status, ..)| *status == 409).count();
    assert_eq!(made + other + busy, 20, "{answers:?}");
    let keys = "SELECT count(*) FROM idempotency_keys WHERE key = 'both'";
    assert_eq!((site.database.number(keys).await, made > 0), (1, true), "{answers:?}");
}

async fn actions_are_audited(engine: Engine) {
    let site = guarded(engine).await;
    site.salla.world().script(1002, [Fault::Hang(Duration::from_secs(30))]);
    site.reconcile(1001, &["--dry-run"]).await;
    let daemon = site.serve().await;
    let (_, _, run) = with(&daemon, OPERATOR, Method::POST, "/runs", r#"{"merchant_id":1002}"#).await;
    let run_id = run["run_id"].as_str().unwrap();
    let cancel = format!("/runs/{run_id}/cancel");
    assert_eq!(with(&daemon, OPERATOR, Method::POST, &cancel, "").await.0, 202);
    // Nothing was done, and nothing is on record.
    assert_eq!(with(&daemon, OPERATOR, Method::POST, "/runs", r#"{"merchant_id":4242}"#).await.0, 404);
    assert_eq!(with(&daemon, READER, Method::POST, &cancel, "").await.0, 403);

    let (_, _, page) = with(&daemon, READER, Method::GET, "/audit?limit=2", "").await;
    let shown: Vec<_> = page["entries"].as_array().unwrap().iter().map(|e| (&e["action"], &e["actor"])).collect();
    assert_eq!(shown, [(&json!("run.cancel"), &json!("token:ci")), (&json!("run.trigger"), &json!("token:ci"))]);
    assert_eq!(page["entries"][0]["run_id"], run_id);
    assert_eq!(page["entries"][1]["merchant_id"], 1002);
    assert_eq!(page["entries"][1]["detail"]["full"], false);
    let rest = format!("/audit?cursor={}", page["next_cursor"]);
    let (_, _, page) = with(&daemon, READER, Method::GET, &rest, "").await;
    let (entries, next) = (page["entries"].as_array().unwrap(), &page["next_cursor"]);
    assert_eq!((entries.len(), next), (3, &json!(null)), "{page}");
    assert_eq!(entries[0]["actor"], "cli:unknown");
    assert_eq!(entries[0]["detail"]["dry_run"], true);
    assert_eq!((&entries[2]["action"], &entries[2]["merchant_id"]), (&json!("merchant.register"), &json!(1001)));
    assert_eq!(entries[2]["detail"], json!({"new": true}));
    for query in ["limit=0", "limit=501", "cursor=x", "surprise=1"] {
        assert_eq!(with(&daemon, READER, Method::GET, &format!("/audit?{query}"), "").await.0, 400, "{query}");
    }
    let line = daemon.await_line(|line| line["target"] == "audit" && line["action"] == "run.cancel").await;
    assert_eq!((&line["actor"], &line["run.id"]), (&json!("token:ci"), &json!(run_id)));
    assert_eq!(daemon.log().iter().filter(|line| line["target"] == "audit").count(), 2);

    // Every change of the merchants, and the keys.
    let tokens = r#"{"access_token":"ory_at_1003_1"}"#;
    assert_eq!(with(&daemon, OPERATOR, Method::PUT, "/merchants/1003", tokens).await.0, 201);
    assert_eq!(with(&daemon, OPERATOR, Method::POST, "/merchants/1003/pause", "").await.0, 200);
    assert_eq!(with(&daemon, OPERATOR, Method::POST, "/merchants/4242/pause", "").await.0, 404);
    site.run(&["merchants", "resume", "1003"]).await.exits(0);
    site.run(&["merchants", "remove", "1003"]).await.exits(0);
    site.run(&["merchants", "remove", "1003"]).await.exits(1);
    let (_, _, page) = with(&daemon, READER, Method::GET, "/audit?limit=4", "").await;
    let entry = |entry: &Value| format!("{} {} {}", entry["action"], entry["actor"], entry["merchant_id"]);
    let shown: Vec<String> = page["entries"].as_array().unwrap().iter().map(entry).collect();
    let expected = [
        r#""merchant.remove" "cli:unknown" 1003"#,
        r#""merchant.resume" "cli:unknown" 1003"#,
        r#""merchant.pause" "token:ci" 1003"#,
        r#""merchant.register" "token:ci" 1003"#,
    ];
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_security_headers() {
    let site = guarded(Engine::Sqlite).await;
    let daemon = site.serve().await;
    for (method, path, status) in [
        (Method::GET, "/healthz", 200),
        (Method::HEAD, "/healthz", 200),
        (Method::GET, "/metrics", 200),
        (Method::GET, "/runs", 401),
        (Method::GET, "/nowhere", 404),
        (Method::POST, "/healthz", 405),
        (Method::OPTIONS, "/healthz", 405),
        (Method::TRACE, "/readyz", 405),
    ] {
        let (got, headers, body) = daemon.call(method.clone(), path, None).await;
        assert_eq!(got, status, "{method} {path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(headers.get(name).unwrap_or_else(|| panic!("{method} {path}: no {name}")), value);
        }
        assert!(!headers.contains_key("server") && !headers.contains_key("access-control-allow-origin"));
        assert!(status != 405 || headers["allow"] == "GET,HEAD", "{headers:?}");
        assert!(method != Method::HEAD || body == json!(""), "{body}");
    }
    let (status, headers, _) = with(&daemon, OPERATOR, Method::DELETE, "/runs", "").await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "GET,HEAD,POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_are_refused() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let port = daemon.url.rsplit(':').next().unwrap().to_owned();
    let own = format!("localhost:{port}");
    for (host, origin, status) in [
        (own.clone(), None, 202),
        (own.clone(), Some(format!("http://{own}")), 409),
        (own.clone(), Some("http://evil.example".to_owned()), 403),
        (own.clone(), Some("http://localhost:1".to_owned()), 403),
        (own, Some("null".to_owned()), 403),
        (format!("rebound.example:{port}"), None, 403),
    ] {
        let mut request = daemon.request(Method::POST, "/runs").header("host", &host).body(r#"{"merchant_id":1001}"#);
        if let Some(origin) = &origin {
            request = request.header("origin", origin);
        }
        let (got, headers, _) = daemon.answer(request).await;
        // The first run may have ended by now.
        assert!(got == status || (got == 202 && status == 409), "{host} {origin:?}: {got}");
        assert!(status != 403 || headers["content-type"] == "application/problem+json");
    }
    for (name, value, status) in [
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 202),
        ("sec-fetch-site", "none", 202),
        ("host", &format!("me@localhost:{port}"), 400),
        ("host", &format!("me:word@localhost:{port}"), 400),
    ] {
        let request = daemon.request(Method::POST, "/runs").body(r#"{"merchant_id":1001}"#).header(name, value);
        let (got, _, _) = daemon.answer(request).await;
        assert!(got == status || (got == 409 && status == 202), "{name}: {value}: {got}");
    }
    let two = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost:{port}\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(daemon.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(two.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let foreign = daemon.request(Method::GET, "/merchants").header("host", "rebound.example");
    assert_eq!(daemon.answer(foreign).await.0, 403);
    // A proxy in front may speak as localhost, on behalf of everybody.
    let proxied = daemon.request(Method::GET, "/merchants").header("x-forwarded-for", "198.51.100.7");
    assert_eq!(daemon.answer(proxied).await.0, 403);
    let probe = daemon.request(Method::GET, "/healthz").header("host", "rebound.example");
    assert_eq!(daemon.answer(probe).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_token_are_refused() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("HTTP__LISTEN", "0.0.0.0:0");
    let daemon = site.serve().await;
    let warning = daemon.await_line(|line| line["level"] == "WARN" && line["http.listen"].is_string()).await;
    assert!(warning["message"].as_str().unwrap().contains("http.api_tokens"), "{warning}");
    let request = |path: &str| daemon.request(Method::GET, path);
    assert_eq!(daemon.answer(request("/runs")).await.0, 403);
    assert_eq!(daemon.answer(request("/healthz")).await.0, 200);
}

/// A client that sends its request slowly, or sends none, is disconnected, however many connections others hold.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let daemon = site.serve().await;
    let address = daemon.url.strip_prefix("http://").unwrap().to_owned();
    let mut silent = Vec::new();
    for _ in 0..700 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let connection =
            tokio::time::timeout(Duration::from_millis(100), socket.connect(address.parse().unwrap())).await;
        silent.extend(connection.ok().and_then(Result::ok));
    }
    // The share of this address is 128. A client at another address is answered at once.
    let answer = tokio::time::timeout(Duration::from_secs(5), daemon.get("/healthz")).await;
    assert_eq!(answer.expect("one address keeps everybody out").0, 200);
    // The oldest makes room for the newest.
    let mut first = silent.remove(0);
    let hung_up = tokio::time::timeout(Duration::from_secs(2), first.read(&mut [0; 1])).await;
    assert!(!matches!(hung_up, Ok(Ok(1..)) | Err(_)), "it has more than its share: {hung_up:?}");
    let (mut dribbling, began) = (silent.pop().unwrap(), Instant::now());
    let ended = loop {
        if dribbling.write_all(b"G").await.is_err() {
            break began.elapsed();
        }
        let read = tokio::time::timeout(Duration::from_millis(500), dribbling.read(&mut [0; 64])).await;
        if read.is_ok() {
            break began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "it holds its connection still");
    };
    assert!(ended > Duration::from_secs(5), "an honest client may be slow: {ended:?}");
    assert_eq!(daemon.get("/healthz").await.0, 200);
    drop(silent);
}

/// Requests that never end, from several addresses, in every shape.
#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_while_connections_are_full() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("SALLA__WEBHOOK_SECRET", "webhook-canary-0123");
    let daemon = site.serve().await;
    let address = daemon.url.strip_prefix("http://").unwrap().to_owned();
    let parts = [
        "",
        "GET /runs HTTP/1.1\r\nhost: loc",
        "POST /webhooks/salla HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{",
    ];
    let mut open = Vec::new();
    for number in 0..780 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.0.{}:0", number % 6 + 1).parse().unwrap()).unwrap();
        let connected =
            tokio::time::timeout(Duration::from_millis(500), socket.connect(address.parse().unwrap())).await;
        let Ok(Ok(mut stream)) = connected else { continue };
        let _ = stream.write_all(parts[number % parts.len()].as_bytes()).await;
        open.push(stream);
    }
    for number in 0..30 {
        // Each client has a separate connection.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for probe in ["/healthz", "/readyz"] {
            let began = Instant::now();
            let answer = client.get(format!("{}{probe}", daemon.url)).timeout(Duration::from_secs(5)).send().await;
            let answer = answer.unwrap_or_else(|error| panic!("{number} {probe}: {error:?}"));
            assert_eq!(answer.status(), 200, "{number} {probe}");
            assert!(began.elapsed() < Duration::from_secs(2), "{number} {probe}: {:?}", began.elapsed());
        }
    }
    drop(open);
}
