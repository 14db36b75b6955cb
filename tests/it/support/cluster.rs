//! Private PostgreSQL servers on loopback, one a version, for as long as the tests run.

use std::{
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

/// Of every server's only role.
pub const PASSWORD: &str = "database-password-canary";

/// A server that was started here.
pub struct Cluster {
    /// Without a database's name.
    pub url: String,
    // Its stdin keeps the server alive: it ends when this process does, however that is.
    _shell: Child,
}

static CLUSTERS: [OnceLock<Cluster>; 2] = [OnceLock::new(), OnceLock::new()];

/// The server of this major version, started at the first call.
pub fn cluster(major: u32) -> &'static Cluster {
    CLUSTERS[(major - 15) as usize].get_or_init(|| start(major))
}

/// Where `tests/run` puts what the machine lacks.
pub fn tools() -> PathBuf {
    std::env::var_os("RECONCILER_TEST_TOOLS").map_or_else(
        || std::env::temp_dir().join(format!("salla-reconciler-tools-{}", nix::unistd::Uid::current())),
        PathBuf::from,
    )
}

/// Where a PostgreSQL of this major version may be.
pub fn binaries(major: u32) -> PathBuf {
    let mut candidates =
        vec![tools().join(format!("postgres-{major}/bin")), PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))];
    candidates.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let fits = |folder: &PathBuf| {
        let version = Command::new(folder.join("postgres")).arg("--version").output();
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!(" {major}.")))
    };
    candidates
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && fits(folder))
        .unwrap_or_else(|| panic!("PostgreSQL {major} is not on this machine: `tests/run` installs it"))
}

/// PostgreSQL refuses to run as root.
pub fn unprivileged(command: &mut Command) -> &mut Command {
    if nix::unistd::Uid::effective().is_root() {
        command.uid(65534).gid(65534);
    }
    command
}

/// A new server's files; it lies in the folder's `data`.
pub fn init(binaries: &Path) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("postgres-").tempdir().unwrap().keep();
    if nix::unistd::Uid::effective().is_root() {
        chown(&folder, Some(65534), Some(65534)).unwrap();
    }
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let made = unprivileged(&mut Command::new(binaries.join("initdb")))
        .args(["--username=tester", "--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("--pwfile")
        .arg(&password)
        .arg("-D")
        .arg(folder.join("data"))
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    folder
}

fn start(major: u32) -> Cluster {
    let binaries = binaries(major);
    let folder = init(&binaries);
    let data = folder.join("data");
    let port = free_port();
    let shell = unprivileged(&mut Command::new("sh"))
        .arg("-c")
        .arg(format!(
            "'{postgres}' -D '{data}' -p {port} -k '{folder}' -c listen_addresses=127.0.0.1 -c fsync=off \
             -c max_connections=300 -c timezone=Asia/Riyadh >'{folder}/log' 2>&1 & \
             cat >/dev/null; kill -QUIT $!; wait; rm -rf '{folder}'",
            postgres = binaries.join("postgres").display(),
            data = data.display(),
            folder = folder.display(),
        ))
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    await_start(&binaries, port, &folder);
    Cluster { url: format!("postgres://tester:{PASSWORD}@127.0.0.1:{port}"), _shell: shell }
}

/// A port that is free at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[allow(clippy::disallowed_methods, reason = "no runtime is needed while a server starts")]
fn await_start(binaries: &Path, port: u16, folder: &Path) {
    for _ in 0..300 {
        let ready = Command::new(binaries.join("pg_ctl")).args(["status", "-D"]).arg(folder.join("data")).output();
        let open = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        if open && ready.is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    panic!("PostgreSQL did not start within 30 s:\n{log}");
}
