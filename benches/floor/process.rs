//! What a process has used, as Linux shows it.

use std::{fs::read_to_string, time::Duration};

/// Of a second, as the system counts a process's time.
const TICKS: f64 = 100.0;

/// Of its processors; `with_children`: and what those of its children used that it has waited for. Until it is waited for.
pub fn cpu(id: u32, with_children: bool) -> Option<Duration> {
    let fields = stat(id)?;
    let of = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let own = of(11)? + of(12)?;
    let ticks = if with_children { own + of(13)? + of(14)? } else { own };
    Some(Duration::from_secs_f64(ticks / TICKS))
}

/// A server and all that it has forked.
pub fn cpu_of_family(id: u32) -> Duration {
    let parent = id.to_string();
    let living = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = living.filter(|child| stat(*child).is_some_and(|fields| fields.get(1) == Some(&parent)));
    let children: Duration = children.filter_map(|child| cpu(child, false)).sum();
    cpu(id, true).unwrap() + children
}

/// Whether it has ended, and nobody has waited for it yet.
pub fn has_ended(id: u32) -> bool {
    stat(id).is_none_or(|fields| fields[0] == "Z")
}

/// The most memory that it has held, in MiB. `None`: it has ended.
pub fn peak_mib(id: u32) -> Option<f64> {
    let status = read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Behind the name, which may hold anything: state, parent, ..., utime, stime, cutime, cstime.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}
