//! The ratios, and whether they are within their targets.

use std::time::Duration;

use comfy_table::{CellAlignment, Table as Shown, presets::ASCII_MARKDOWN};

use crate::{
    contender::Contender,
    night::{Cost, News, Shape},
    pages::page_size,
};

/// Requests for a store beside one per page, where Salla honours `sort_by`.
const MORE_REQUESTS: usize = 2;

/// The most memory that the daemon may hold.
const MEMORY_MIB: f64 = 40.0;

/// The time limit of the daemon, as a multiple of the time of the floor.
fn most(shape: Shape, news: News) -> f64 {
    match news {
        News::All if shape.is_small() => 1.5,
        News::Nothing | News::Some if shape.is_small() => 1.8,
        News::All | News::Some => 1.2,
        News::Nothing => 1.0,
    }
}

/// The time limit with a target, as a multiple of the time without one.
fn overhead(news: News) -> f64 {
    match news {
        News::Nothing => 1.15,
        News::All | News::Some => 1.6,
    }
}

/// How often the daemon's time goes into that of the program that goes row by row.
fn least(news: News) -> Option<f64> {
    match news {
        News::All => Some(20.0),
        News::Nothing => Some(40.0),
        News::Some => None,
    }
}

/// A line a program and a night.
pub struct Table {
    pub lines: Vec<Cost>,
}

impl Table {
    /// Of several measurements, each figure counts separately. The least time and the least WAL count, because the rest
    /// is the noise of the machine. The largest memory and the largest number of written rows count.
    pub fn of(costs: &[Cost]) -> Self {
        let mut lines: Vec<Cost> = Vec::new();
        for cost in costs {
            let same =
                |line: &&mut Cost| (line.shape, line.news, line.contender) == (cost.shape, cost.news, cost.contender);
            match lines.iter_mut().find(same) {
                Some(line) => {
                    line.wall = line.wall.min(cost.wall);
                    line.cpu = line.cpu.min(cost.cpu);
                    line.database_cpu = line.database_cpu.min(cost.database_cpu);
                    line.peak_mib = line.peak_mib.max(cost.peak_mib);
                    line.wal = line.wal.min(cost.wal);
                    line.written = line.written.max(cost.written);
                }
                None => lines.push(cost.clone()),
            }
        }
        Self { lines }
    }

    pub fn line(&self, shape: Shape, news: News, contender: Contender) -> Option<&Cost> {
        self.lines.iter().find(|line| (line.shape, line.news, line.contender) == (shape, news, contender))
    }

    pub fn print(&self) {
        let mut shown = Shown::new();
        shown.load_preset(ASCII_MARKDOWN).set_header([
            "stores × orders",
            "news",
            "program",
            "wall",
            "÷ floor",
            "CPU",
            "÷ floor",
            "database's CPU",
            "÷ floor",
            "peak MiB",
            "requests",
            "WAL MiB",
            "÷ floor",
            "orders written",
        ]);
        for line in &self.lines {
            let floor = self.line(line.shape, line.news, Contender::Floor);
            let over = |of: fn(&Cost) -> f64| {
                floor
                    .filter(|floor| of(floor) > 0.0)
                    .map_or(String::new(), |floor| format!("{:.2}", of(line) / of(floor)))
            };
            shown.add_row([
                line.shape.name(),
                line.news.name().to_owned(),
                line.contender.name().to_owned(),
                seconds(line.wall),
                over(|cost| cost.wall.as_secs_f64()),
                seconds(line.cpu),
                over(|cost| cost.cpu.as_secs_f64()),
                seconds(line.database_cpu),
                over(|cost| cost.database_cpu.as_secs_f64()),
                format!("{:.1}", line.peak_mib),
                line.requests.to_string(),
                format!("{:.1}", mib(line.wal)),
                over(|cost| cost.wal as f64),
                line.written.to_string(),
            ]);
        }
        for column in shown.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{shown}");
        for broken in self.broken() {
            println!("BEYOND ITS TARGET: {broken}");
        }
    }

    /// Prints the time with a target as a share of the time without, and whether it is within its goals.
    pub fn print_overhead(&self, shape: Shape) -> bool {
        let mut shown = Shown::new();
        shown.load_preset(ASCII_MARKDOWN).set_header([
            "news",
            "program",
            "wall",
            "÷ daemon",
            "goal",
            "database's CPU",
            "WAL MiB",
        ]);
        let mut is_kept = true;
        for news in News::ALL {
            let daemon = self.line(shape, news, Contender::Daemon).map(|daemon| daemon.wall);
            for &contender in Contender::TARGETS {
                let (Some(line), Some(daemon)) = (self.line(shape, news, contender), daemon) else { continue };
                let (ratio, goal) = (line.wall.as_secs_f64() / daemon.as_secs_f64(), overhead(news));
                is_kept &= ratio <= goal;
                shown.add_row([
                    news.name().to_owned(),
                    contender.name().to_owned(),
                    seconds(line.wall),
                    format!("{ratio:.2}"),
                    format!("{goal}"),
                    seconds(line.database_cpu),
                    format!("{:.1}", mib(line.wal)),
                ]);
            }
        }
        println!("{shown}");
        is_kept
    }

    pub fn kept(&self) -> bool {
        self.broken().is_empty()
    }

    fn broken(&self) -> Vec<String> {
        self.lines
            .iter()
            .filter(|line| line.contender == Contender::Daemon)
            .flat_map(|line| self.beyond(line))
            .collect()
    }

    fn beyond(&self, daemon: &Cost) -> Vec<String> {
        let mut broken = Vec::new();
        let (shape, news) = (daemon.shape, daemon.news);
        let night = format!("{}, {}", shape.name(), news.name());
        let wall = |cost: &Cost| cost.wall.as_secs_f64();
        if let Some(floor) = self.line(shape, news, Contender::Floor) {
            let (ratio, target) = (wall(daemon) / wall(floor), most(shape, news));
            if ratio > target {
                broken.push(format!("{night}: {ratio:.2} times the floor's time, and not {target}"));
            }
            let ratio = daemon.wal as f64 / floor.wal as f64;
            if news == News::Some && !shape.is_small() && ratio > 1.1 {
                broken.push(format!("{night}: {ratio:.2} times the floor's WAL, and not 1.1"));
            }
        }
        let pages = shape.orders.div_ceil(page_size(shape.orders));
        let requests = (shape.stores * (pages + MORE_REQUESTS)) as u64;
        if shape.sorts && daemon.requests > requests {
            broken.push(format!("{night}: {} requests, and not {requests}", daemon.requests));
        }
        if news == News::Nothing && daemon.written > 0 {
            broken.push(format!("{night}: {} orders were written", daemon.written));
        }
        if daemon.peak_mib > MEMORY_MIB {
            broken.push(format!("{night}: {:.1} MiB, and not {MEMORY_MIB}", daemon.peak_mib));
        }
        if let (Some(rows), Some(target)) = (self.line(shape, news, Contender::RowByRow), least(news)) {
            let ratio = wall(rows) / wall(daemon);
            if ratio < target {
                broken.push(format!("{night}: {ratio:.1} times as fast as row by row, and not {target}"));
            }
        }
        broken
    }
}

pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
