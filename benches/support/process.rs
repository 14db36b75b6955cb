//! The processor time and memory of a process, from Linux.

#![allow(dead_code, reason = "each benchmark looks at what it needs")]

use std::{fs::read_to_string, time::Duration};

/// Of a second, as the system counts a process's time.
const TICKS: f64 = 100.0;

/// Of its processors, until it is waited for.
pub fn cpu(id: u32) -> Option<Duration> {
    ticks(&stat(id)?[11..13])
}

/// A server and all that it has forked.
pub fn cpu_of_family(id: u32) -> Duration {
    let parent = id.to_string();
    let living = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = living.filter(|child| stat(*child).is_some_and(|fields| fields.get(1) == Some(&parent)));
    let children: Duration = children.filter_map(cpu).sum();
    // Behind its own stand those of the children that it has waited for.
    ticks(&stat(id).unwrap()[11..15]).unwrap() + children
}

fn ticks(fields: &[String]) -> Option<Duration> {
    let ticks: Option<f64> = fields.iter().map(|field| field.parse::<f64>().ok()).sum();
    Some(Duration::from_secs_f64(ticks? / TICKS))
}

/// Whether it has ended, and was not waited for yet.
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
