//! The daemon beside two programs that do the same work: the floor, which does nothing but the work, and one that goes
//! row by row: `cargo bench --bench floor`. Prints the ratios as a table, draws them, and exits with 1 when one is beyond its
//! target.
//!
//! Each program is a separate process. Salla, which they ask, is also a separate process, and its pages lie ready. The
//! benchmark starts a separate server for the database. This server waits for its disk, as it does anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on may panic"
)]

#[path = "../../tests/it/support/cluster.rs"]
mod cluster;
mod contender;
mod floor;
mod growth;
mod night;
mod pages;
#[expect(dead_code, reason = "only the tables of Prisma are measured")]
#[path = "../../tests/it/platform/tables.rs"]
mod platform;
mod plot;
#[path = "../support/process.rs"]
mod process;
mod report;
mod rows;
mod salla;
#[path = "../support/site.rs"]
mod site;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    contender::{Contender, Work},
    night::{Night, Shape},
};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// Of the ten stores together.
    #[arg(long, default_value_t = 100_000)]
    orders: usize,
    /// Small ones, with three orders each; 0: they are left out.
    #[arg(long, default_value_t = 20_000)]
    stores: usize,
    /// How often each is measured, in turns; the least counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often the program that goes row by row is, which takes its time; 0: not at all.
    #[arg(long, default_value_t = 1)]
    row_by_row: usize,
    /// How the costs grow instead: from a thousand orders of one store up to so many, and from one store to a tenth of it.
    #[arg(long, value_name = "ORDERS")]
    growth: Option<usize>,
    /// Measure instead the cost beside this many orders of other merchants.
    #[arg(long, value_name = "ORDERS", conflicts_with = "growth")]
    beside: Option<u64>,
    /// Measure instead the overhead of a target: a table of the platform beside our own.
    #[arg(long, conflicts_with_all = ["growth", "beside"])]
    target: bool,
    /// Of the server that is started: as a rule the one that its packages build, which has lz4.
    #[arg(long, default_value_t = 15)]
    postgres: u32,
    /// Where the plot goes.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The role of this process, when the benchmark starts it.
#[derive(Subcommand)]
enum Role {
    /// The Salla that is asked.
    #[command(hide = true)]
    Salla(Shape),
    /// One of those that ask.
    #[command(hide = true)]
    Work(Work),
}

async fn measure(args: &Args) -> bool {
    let postgres = args.postgres;
    let server = tokio::task::spawn_blocking(move || cluster::cluster(postgres).url.clone()).await.unwrap();
    let large = Shape { stores: 10, orders: args.orders / 10, sorts: true };
    if let Some(most) = args.growth {
        let (table, straight) = growth::measure(&server, most).await;
        if let Some(path) = &args.plot {
            plot::draw_growth(&table, path);
            println!("drawn: {}", path.display());
        }
        return straight;
    }
    if let Some(rows) = args.beside {
        return growth::beside(&server, large, rows, args.rounds).await;
    }
    if args.target {
        return targets(&server, large, args.rounds).await;
    }
    let mut costs = Vec::new();
    let shapes = [large, Shape { sorts: false, ..large }, Shape { stores: args.stores, orders: 3, sorts: true }];
    for shape in shapes.into_iter().filter(|shape| shape.stores > 0 && shape.orders > 0) {
        let night = Night::begin(&server, shape, 0).await;
        for round in 0..args.rounds.max(args.row_by_row) {
            for &contender in Contender::ALL {
                let times = if contender == Contender::RowByRow { args.row_by_row } else { args.rounds };
                if round < times && !(contender == Contender::RowByRow && (shape.is_small() || !shape.sorts)) {
                    costs.extend(night.measure(contender).await);
                }
            }
        }
    }
    let table = report::Table::of(&costs);
    table.print();
    if let Some(path) = &args.plot {
        plot::draw(&table, path);
        println!("drawn: {}", path.display());
    }
    table.kept()
}

/// Whether the overhead of a target is within its goals.
async fn targets(server: &str, shape: Shape, rounds: usize) -> bool {
    let night = Night::begin(server, shape, 0).await;
    let mut costs = Vec::new();
    for _ in 0..rounds {
        for &contender in Contender::TARGETS {
            costs.extend(night.measure(contender).await);
        }
    }
    report::Table::of(&costs).print_overhead(shape)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let well = runtime.block_on(async {
        match &args.role {
            Some(Role::Salla(shape)) => salla::serve(*shape).await,
            Some(Role::Work(work)) => work.go().await,
            None => return measure(&args).await,
        }
        true
    });
    ExitCode::from(u8::from(!well))
}
