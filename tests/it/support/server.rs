//! A PostgreSQL of a test's own, which can be stopped and started again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::cluster::{PASSWORD, binaries, free_port, init, unprivileged};

/// How a server ends.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Its connections are told, and what is under way is undone.
    Fast,
    /// As in a crash: nothing is put in order.
    Immediate,
}

/// A server on a port that it keeps.
pub struct Server {
    pub port: u16,
    binaries: PathBuf,
    folder: PathBuf,
    // Its stdin keeps the server's files: they are removed when this process ends, however that is.
    guard: Child,
    /// Where faketime reads how far the server's clock is off, if it is one that can be set.
    clock: Option<PathBuf>,
}

impl Server {
    /// One that runs.
    pub async fn start(major: u32) -> Self {
        Self::start_as(major, false).await
    }

    /// One whose clock can be set.
    pub async fn with_a_clock(major: u32) -> Self {
        Self::start_as(major, true).await
    }

    async fn start_as(major: u32, settable: bool) -> Self {
        tokio::task::spawn_blocking(move || {
            let binaries = binaries(major);
            let folder = init(&binaries);
            let clock = settable.then(|| folder.join("clock"));
            if let Some(clock) = &clock {
                std::fs::write(clock, "+0").unwrap();
                std::fs::set_permissions(clock, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            }
            let guard = unprivileged(&mut Command::new("sh"))
                .arg("-c")
                .arg(format!(
                    "cat >/dev/null; '{pg_ctl}' stop -D '{folder}/data' -m immediate; rm -rf '{folder}'",
                    pg_ctl = binaries.join("pg_ctl").display(),
                    folder = folder.display(),
                ))
                .current_dir(&folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let server = Self { port: free_port(), binaries, folder, guard, clock };
            server.up();
            server
        })
        .await
        .unwrap()
    }

    /// Sets its clock so far from the right time, in seconds.
    pub fn set_clock(&self, offset: i64) {
        let clock = self.clock.as_ref().unwrap();
        // In one step: it is read at every moment.
        let next = clock.with_extension("next");
        std::fs::write(&next, format!("{offset:+}")).unwrap();
        std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::rename(next, clock).unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The database that every server has, at this or another's port.
    pub fn url_at(port: u16) -> String {
        format!("postgres://tester:{PASSWORD}@127.0.0.1:{port}/postgres")
    }

    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// Starts it, and waits until it takes connections.
    pub fn up(&self) {
        let folder = self.folder.display();
        let options = format!(
            "-p {} -k '{folder}' -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60 -c wal_level=logical -c timezone=Asia/Riyadh",
            self.port
        );
        self.pg_ctl(&["start", "-l", &format!("{folder}/log"), "-o", &options]);
    }

    /// Stops it, and waits until it has ended.
    pub fn down(&self, stop: Stop) {
        let mode = match stop {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.pg_ctl(&["stop", "-m", mode]);
    }

    fn pg_ctl(&self, args: &[&str]) {
        let mut command = Command::new(self.binaries.join("pg_ctl"));
        // The server would keep a pipe open.
        unprivileged(&mut command).args(args).args(["-w", "-t", "60", "-D"]).arg(self.folder.join("data"));
        if let Some(clock) = &self.clock {
            command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let ended = command.current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(ended.success(), "pg_ctl {args:?}:\n{}", log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// What shows a program another time.
fn faketime() -> PathBuf {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    let mut candidates = folders.iter().map(|folder| PathBuf::from(folder).join("libfaketime.so.1"));
    candidates.find(|file| file.exists()).expect("libfaketime is not on this machine: `tests/run` installs it")
}
