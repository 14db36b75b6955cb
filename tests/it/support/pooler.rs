//! A PgBouncer of a test's own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::cluster::{PASSWORD, free_port, unprivileged};

/// A pooler on loopback.
pub struct Pooler {
    pub port: u16,
    folder: PathBuf,
    // Its stdin keeps the pooler alive: it ends when this process does, however that is.
    shell: Child,
}

impl Pooler {
    /// In front of the server at `port`: `pool_mode` is PgBouncer's, and so many server connections.
    pub async fn start(server: u16, pool_mode: &str, pool_size: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("pgbouncer-").tempdir().unwrap().keep();
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = plain\nauth_file = {folder}/users\npool_mode = {pool_mode}\n\
             default_pool_size = {pool_size}\n",
            folder = folder.display(),
        );
        std::fs::write(folder.join("pgbouncer.ini"), settings).unwrap();
        std::fs::write(folder.join("users"), format!("\"tester\" \"{PASSWORD}\"\n")).unwrap();
        open_to_all(&folder);
        let shell = unprivileged(&mut Command::new("sh"))
            .arg("-c")
            .arg("pgbouncer pgbouncer.ini >log 2>&1 & cat >/dev/null; kill -TERM $!; wait")
            .current_dir(&folder)
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pooler = Self { port, folder, shell };
        for _ in 0..300 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return pooler;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PgBouncer (`tests/run` installs it) did not start:\n{}", pooler.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// PgBouncer also refuses to run as root.
fn open_to_all(folder: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        for path in [folder.to_owned(), folder.join("pgbouncer.ini"), folder.join("users")] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
