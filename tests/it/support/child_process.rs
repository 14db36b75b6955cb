//! Another's program beside a test.

use std::process::{Child, Command, Stdio};

use super::cluster::unprivileged;

/// One that was started here. It ends when this process does, however that is.
pub struct Companion {
    // Its stdin keeps the program alive.
    shell: Child,
}

impl Companion {
    /// Starts `program` with `arguments`, as an unprivileged user.
    pub fn start(program: &str, arguments: &[String]) -> Self {
        Self::start_by(unprivileged(&mut Command::new("sh")), program, arguments)
    }

    /// The same as the user who runs the tests, who alone may be able to read its files.
    #[cfg(feature = "aws")]
    pub fn start_as_oneself(program: &str, arguments: &[String]) -> Self {
        Self::start_by(&mut Command::new("sh"), program, arguments)
    }

    fn start_by(shell: &mut Command, program: &str, arguments: &[String]) -> Self {
        let found =
            Command::new("sh").arg("-c").arg(format!("PATH=$PATH:/usr/sbin command -v {program}")).output().unwrap();
        assert!(found.status.success(), "{program} is not on this machine: `tests/run` installs it");
        let shell = shell
            .arg("-c")
            .arg("PATH=$PATH:/usr/sbin; \"$@\" & cat >/dev/null; kill -TERM $!; wait")
            .arg("sh")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { shell }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
