//! Where requests go, and how many: to the hosts of the configuration only, whatever they answer and whatever the
//! environment says. Each hostile answer ends in a clear error or a correct result, in bounded time and memory.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::header,
    routing::get,
};
use futures::{FutureExt as _, future::BoxFuture, stream};
use parking_lot::Mutex;
use salla_reconciler::simulator::Fault;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use tower_http::compression::CompressionLayer;

use crate::support::{
    Engine, Site,
    site::{Output, shop, totals},
};

/// A server that keeps the heads of the requests. Each test decides on the answers.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

type Answering = BoxFuture<'static, io::Result<()>>;

impl Server {
    /// Answers each connection's first request by `answer`, which is given its head.
    async fn start(answer: impl Fn(String, TcpStream) -> Answering + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&heard), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut head = vec![0; 1 << 16];
                    let read = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..read]).into_owned();
                    kept.lock().push(head.clone());
                    // The client may hang up at any time.
                    let _ = answer(head, stream).await;
                });
            }
        });
        Self { address, heard, task }
    }

    /// Always these bytes, and then the end of the connection.
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Bytes::from(answer.into());
        Self::start(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                stream.write_all(&answer).await?;
                stream.shutdown().await
            }
            .boxed()
        })
        .await
    }

    /// Never anything.
    async fn recorder() -> Self {
        Self::start(|_, _| async { Ok(()) }.boxed()).await
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A site whose orders come from `address`.
async fn site_at(address: SocketAddr) -> Site {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 2)]).await;
    site.set("SALLA__API_URL", &format!("http://{address}/admin"));
    site.set("SALLA__MAX_ATTEMPTS", "2");
    site
}

/// A run that must end within `limit`.
async fn run(site: &Site, limit: Duration) -> (Value, Output) {
    let began = Instant::now();
    let output = site.run(&["run", "--json", "--full"]).await;
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    (output.object(), output)
}

#[track_caller]
fn assert_failed(run: &Value, kind: &str, words: &str) {
    assert_eq!((run["status"].as_str(), run["error"]["kind"].as_str()), (Some("failed"), Some(kind)), "{run}");
    assert!(run["error"]["message"].as_str().unwrap().contains(words), "no {words} in {run}");
}

fn row(id: usize) -> Value {
    json!({"id": id, "updated_at": chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()})
}

/// Salla's answer to a request for a page of a list of `total` pages, each of a row.
fn page(number: usize, total: &Value, next: &str) -> String {
    json!({
        "status": 200, "success": true, "data": [row(number)],
        "pagination": {"count": 1, "total": total, "perPage": 1, "currentPage": number, "totalPages": total,
            "links": {"next": next}},
    })
    .to_string()
}

fn answer(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
}

fn sized(headers: &str, body: &str) -> String {
    answer(&format!("{headers}Content-Length: {}\r\n", body.len()), body)
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::recorder().await;
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: http://{}/admin/v2/orders\r\nContent-Length: 0\r\n\r\n",
            elsewhere.address
        );
        let redirecting = Server::saying(answer).await;
        let mut site = site_at(redirecting.address).await;
        let (failed, _) = run(&site, Duration::from_secs(10)).await;
        assert_failed(&failed, "salla_invalid_response", "redirects are not followed");
        assert_eq!(redirecting.heard().len(), 1);

        // The token endpoint is sent two secrets.
        site.set("SALLA__API_URL", &site.salla.api_url());
        site.set("SALLA__TOKEN_URL", &format!("http://{}/oauth2/token", redirecting.address));
        site.salla.world().always.insert(1001, Fault::TokenEnded);
        let (failed, output) = run(&site, Duration::from_secs(10)).await;
        assert_failed(&failed, "needs_reauthorization", status.split(' ').next().unwrap());
        assert!(!output.stderr.contains("app-secret-canary"), "{}", output.stderr);
        assert!(redirecting.heard()[1].starts_with("POST /oauth2/token"));
        assert_eq!(elsewhere.heard(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn links_of_an_answer_are_not_followed() {
    let elsewhere = Server::recorder().await;
    let next = format!("http://{}/admin/v2/orders?page=2", elsewhere.address);
    let salla = Server::start(move |head, mut stream| {
        let number = if head.split(['?', '&', ' ']).any(|parameter| parameter == "page=2") { 2 } else { 1 };
        let answer = sized("Connection: close\r\n", &page(number, &json!(2), &next));
        async move { stream.write_all(answer.as_bytes()).await }.boxed()
    })
    .await;
    let site = site_at(salla.address).await;
    let (done, _) = run(&site, Duration::from_secs(10)).await;
    assert_eq!(done["status"], "succeeded", "{done}");
    assert_eq!(totals(&done)[1], 2);
    assert_eq!(elsewhere.heard(), Vec::<String>::new());
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let dripping = Server::start(|_, mut stream| {
        async move {
            stream.write_all(answer("Content-Length: 100\r\n", "").as_bytes()).await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        .boxed()
    })
    .await;
    let (failed, _) = run(&site_at(dripping.address).await, Duration::from_secs(12)).await;
    assert_failed(&failed, "salla_unavailable", "no complete answer in time");
    assert_eq!(failed["requests"], 2);

    let headers = Server::start(|_, mut stream| {
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(format!("X-More: {}\r\n", "x".repeat(1000)).as_bytes()).await?;
            }
        }
        .boxed()
    })
    .await;
    let (failed, _) = run(&site_at(headers.address).await, Duration::from_secs(12)).await;
    assert_failed(&failed, "salla_unavailable", "");
    assert_eq!(failed["requests"], 2);
}

/// Half a gigabyte of spaces, a thousandth of that on the wire, and a body without an end.
#[tokio::test]
async fn huge_answers_need_little_memory() {
    let spaces = || stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 16])));
    let body = move || async move {
        let body = Body::from_stream(futures::StreamExt::take(spaces(), 8 << 10));
        ([(header::CONTENT_TYPE, "application/json")], body)
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/admin/v2/orders", get(body)).layer(CompressionLayer::new());
    let bomb = tokio::spawn(async move { axum::serve(listener, router).await });

    let endless = Server::start(|_, mut stream| {
        async move {
            stream.write_all(answer("", "").as_bytes()).await?;
            loop {
                stream.write_all(&[b' '; 1 << 16]).await?;
            }
        }
        .boxed()
    })
    .await;
    for address in [address, endless.address] {
        let mut site = site_at(address).await;
        site.set("SALLA__REQUEST_TIMEOUT", "30s");
        let daemon = site.serve().await;
        let before = daemon.peak_memory();
        daemon.post("/runs", r#"{"merchant_id":1001}"#).await;
        let failed = daemon.await_run("", |run| run["status"] == "failed").await;
        assert_failed(&failed, "salla_invalid_response", "larger than 8 MiB");
        let grown = daemon.peak_memory() - before;
        assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    }
    bomb.abort();
}

#[tokio::test]
async fn contradictory_answers_are_refused() {
    let one = page(1, &json!(1), "");
    let with_total = |total: Value| sized("", &page(1, &total, ""));
    let latin = one.clone().into_bytes();
    let latin: Vec<u8> = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=iso-8859-1\r\nContent-Length: {}\r\n\r\n",
            latin.len()
        )
        .into_bytes(),
        latin,
    ]
    .concat();
    let refused = r#"{"status":200,"success":false,"error":{"code":"error","message":"no"}}"#;
    let wait = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1e300\r\nContent-Length: 0\r\n\r\n";
    let garbage = "X-RateLimit-Limit: -1\r\nX-RateLimit-Remaining: 99999999999999999999\r\nX-RateLimit-Reset: soon\r\n";
    let absurd =
        "X-RateLimit-Limit: 4294967295\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 9223372036854775807\r\n";
    let not_utf8 = [sized("", &one).into_bytes(), Vec::new()].concat();
    let not_utf8: Vec<u8> = not_utf8.into_iter().map(|byte| if byte == b'Z' { 0xff } else { byte }).collect();
    for (name, answer, kind, words) in [
        ("a length that is too large", answer("Content-Length: 9999\r\n", &one).into_bytes(), "salla_unavailable", ""),
        (
            "a length that is too small",
            answer("Content-Length: 20\r\n", &one).into_bytes(),
            "salla_invalid_response",
            "JSON",
        ),
        ("another charset", latin, "", ""),
        ("what is no UTF-8", not_utf8, "partial", ""),
        ("a success that is none", sized("", refused).into_bytes(), "salla_request_rejected", "success is false"),
        ("a negative total", with_total(json!(-1)).into_bytes(), "pagination_loop", ""),
        ("a huge total", with_total(json!(9_007_199_254_740_993_u64)).into_bytes(), "pagination_loop", ""),
        ("a pause without an end", wait.as_bytes().to_vec(), "rate_limited", ""),
        ("an old clock", sized("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", &one).into_bytes(), "", ""),
        ("a limit that is no number", sized(garbage, &one).into_bytes(), "", ""),
        ("a limit beyond sense", sized(absurd, &one).into_bytes(), "", ""),
    ] {
        let server = Server::saying(answer).await;
        let (run, output) = run(&site_at(server.address).await, Duration::from_secs(15)).await;
        println!("{name}: {} {}", run["status"], run["error"]);
        match kind {
            "" => {
                assert_eq!(run["status"], "succeeded", "{name}: {output:?}");
                assert_eq!(totals(&run)[1], 1, "{name}");
            }
            "partial" => assert_eq!((&run["status"], totals(&run)), (&json!("partial"), [1, 0, 0, 0, 1, 0]), "{name}"),
            _ => assert_failed(&run, kind, words),
        }
        assert!(server.heard().len() <= 4, "{name}: {}", server.heard().len());
    }
}

#[tokio::test]
async fn only_the_proxy_of_the_configuration_is_used() {
    let proxy = Server::saying("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 2)]).await;
    let mut command = site.command(&["run", "--json", "--full"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let url = format!("http://{}", proxy.address);
        command.env(name, &url).env(name.to_lowercase(), &url);
    }
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(proxy.heard(), Vec::<String>::new());

    for scheme in ["http", "socks5"] {
        let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 2)]).await;
        site.set("SALLA__PROXY", &format!("{scheme}://somebody:proxy-canary@{}", proxy.address));
        let (failed, output) = run(&site, Duration::from_secs(15)).await;
        assert_failed(&failed, "salla_unavailable", "");
        let check = site.run(&["check"]).await;
        for text in [&output.stdout, &output.stderr, &check.stdout, &check.stderr] {
            assert!(!text.contains("proxy-canary"), "{text}");
        }
        assert!(site.salla.world().seen.is_empty());
    }
    let heard = proxy.heard();
    assert!(heard.iter().any(|head| head.starts_with("GET http://127.0.0.1")), "{heard:?}");
    assert!(heard.iter().any(|head| head.starts_with('\u{5}')), "{heard:?}");
}

/// Beyond the stores' own limits, which are high here.
#[tokio::test]
async fn a_process_s_requests_are_capped() {
    let mut site = Site::new(Engine::Sqlite, (1001..1009).map(|id| shop(id, 0, 8))).await;
    site.set("SALLA__MAX_REQUESTS_PER_MINUTE", "300");
    site.set("RECONCILE__PAGE_SIZE", "2");
    let daemon = site.serve().await;
    for id in 1001..1009 {
        daemon.post("/runs", &format!(r#"{{"merchant_id":{id}}}"#)).await;
    }
    for id in 1001..1009 {
        daemon.await_run(&format!("merchant_id={id}"), |run| run["status"] == "succeeded").await;
    }
    let mut seen: Vec<_> = site.salla.world().seen.iter().map(|seen| seen.at).collect();
    seen.sort();
    assert!(seen.len() >= 32, "{}", seen.len());
    // Of a second all but what the way from there to here may vary by.
    let crowded = seen.windows(6).find(|six| (six[5] - six[0]).num_milliseconds() < 900);
    assert!(crowded.is_none(), "{crowded:?}");
    let (_, metrics) = daemon.get("/metrics").await;
    let waited = metrics
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("salla_reconciler_salla_throttled_seconds_total "));
    assert!(waited.unwrap().parse::<f64>().unwrap() > 1.0, "{waited:?}");
}
