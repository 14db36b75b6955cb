//! The file modes that let others read or change secrets.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The mode of a file in octal, if it lets others read or change the file. `None`: only the permitted users may do so,
/// or the file does not exist.
///
/// A secret that an orchestrator mounts belongs to root and is read through a group.
#[must_use]
pub fn problem(path: &Path, may_be_mounted: bool) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    let allowed = if may_be_mounted && file.uid() == 0 { 0o740 } else { 0o700 };
    let mode = file.permissions().mode() & 0o777;
    (mode & !allowed != 0).then(|| format!("{mode:04o}"))
}

/// The files of an SQLite database: its own, and those that the journal has beside it.
#[must_use]
pub fn files_of_sqlite(url: &str) -> Vec<PathBuf> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Vec::new();
    };
    let file = rest.trim_start_matches("//").split('?').next().unwrap_or_default();
    ["", "-wal", "-shm", "-journal"].iter().map(|suffix| PathBuf::from(format!("{file}{suffix}"))).collect()
}
