//! A running `serve`.

use std::{
    io::{BufRead, BufReader, PipeReader},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{canary::Watch, log::Shown};

pub struct Daemon {
    pub url: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    watch: Arc<Watch>,
    readers: Vec<JoinHandle<()>>,
    client: reqwest::Client,
}

impl Daemon {
    /// Starts it, and waits until it serves. In all that it says, `watch` looks for secrets.
    pub async fn start(mut command: Command, watch: Arc<Watch>) -> Self {
        let (stdout, stdout_writer) = std::io::pipe().unwrap();
        let (stderr, stderr_writer) = std::io::pipe().unwrap();
        let child = command.stdout(stdout_writer).stderr(stderr_writer).spawn().unwrap();
        // The command also holds the writers. The readers end when no writer is left.
        drop(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sink, shown) = (Arc::clone(&log), Shown::new());
        let readers = vec![
            read(stdout, "stdout", Arc::clone(&watch), |_| {}),
            read(stderr, "the log", Arc::clone(&watch), move |line| {
                if shown.shows(&line) {
                    sink.lock().push(line);
                }
            }),
        ];
        // The daemon closes idle connections, perhaps while a request is sent on one.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut daemon = Self { url: String::new(), child, log, watch, readers, client };
        let line = daemon.await_line(|line| line["http.listen"].is_string()).await;
        daemon.url = format!("http://{}", line["http.listen"].as_str().unwrap());
        daemon
    }

    pub fn log(&self) -> Vec<Value> {
        self.log.lock().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn log_text(&self) -> String {
        self.log.lock().join("\n")
    }

    /// The first line of the log that fits. A call of the database's is given up after 40 s.
    pub async fn await_line(&self, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1200 {
            if let Some(line) = self.log().into_iter().find(|line| fits(line)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no such line within 60 s:\n{}", self.log_text());
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> (StatusCode, reqwest::header::HeaderMap, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.body(body.to_owned()).header("content-type", "application/json");
        }
        self.answer(request).await
    }

    pub async fn call_with_token(&self, path: &str, token: &str) -> StatusCode {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(token);
        self.answer(request).await.0
    }

    /// A request to be sent with [`answer`](Self::answer).
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn answer(&self, request: reqwest::RequestBuilder) -> (StatusCode, reqwest::header::HeaderMap, Value) {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let head = format!("{} {headers:?}", response.status());
        let text = response.text().await.unwrap();
        self.watch.search("the head of an HTTP answer", head.as_bytes());
        self.watch.search("an HTTP answer", text.as_bytes());
        (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.call(Method::GET, path, None).await;
        (status, body)
    }

    pub async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.call(Method::POST, path, Some(body)).await;
        (status, body)
    }

    /// A request to a daemon that may be gone before it answers.
    pub async fn try_post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let mut request = self.request(Method::POST, path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.ok().map(|answer| answer.status())
    }

    /// Waits for a run of the ledger that fits.
    pub async fn await_run(&self, query: &str, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..600 {
            let (_, body) = self.get(&format!("/runs?{query}")).await;
            if let Some(run) = body["runs"].as_array().and_then(|runs| runs.iter().find(|run| fits(run))) {
                return run.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no such run within 30 s:\n{}", self.log_text());
    }

    /// Waits until it is gone without an orderly end.
    #[cfg(feature = "failpoints")]
    pub async fn wait_for_death(&mut self) {
        assert_eq!(self.wait().await, None, "it ended in an orderly way:\n{}", self.log_text());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it has ended already")).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Lifts the limit on the size of its files.
    pub fn make_room(&self) {
        let id = self.child.id().expect("it has ended already").to_string();
        let lifted = std::process::Command::new("prlimit").args(["--fsize=unlimited", "--pid", &id]).status();
        assert!(lifted.unwrap().success());
    }

    /// The most memory that it has ever used, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let id = self.child.id().expect("it has ended already");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Waits for its end and for all that it said until then, and returns its exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(40), self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end:\n{}", self.log_text()))
            .unwrap();
        self.read_to_the_end();
        ended.code()
    }

    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Hands over every line, after a look at it.
fn read(
    pipe: PipeReader,
    place: &'static str,
    watch: Arc<Watch>,
    take: impl Fn(String) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            watch.search(place, &line);
            take(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

/// The watch also looks at the output until the end of the process.
impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        self.read_to_the_end();
    }
}
