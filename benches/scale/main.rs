//! The cost of the queue and of the program at the size of a platform, on a separate PostgreSQL:
//! `cargo bench --bench scale -- --merchants 100000 --claimers 20 --orders 1000000`. Prints a table. Exits with 1 when
//! a limit is broken, or a statement of the program reads a large table whole.
//!
//! The server that the benchmark starts does not wait for its disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on may panic"
)]

#[path = "../../tests/it/support/cluster.rs"]
mod cluster;
mod database;
mod outbox;
mod plans;
#[path = "../support/process.rs"]
mod process;
mod program;
mod queue;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::{database::Bench, table::Table};

#[derive(Parser)]
struct Args {
    /// In the register.
    #[arg(long, default_value_t = 100_000)]
    merchants: u64,
    /// Processes that claim runs at the same time, each with separate connections.
    #[arg(long, default_value_t = 20)]
    claimers: usize,
    /// Runs of a night that are claimed, the others being cancelled; all of them, unless that takes too long.
    #[arg(long, default_value_t = u64::MAX)]
    claims: u64,
    /// Orders of the large store; 0: it is left out.
    #[arg(long, default_value_t = 100_000)]
    orders: usize,
    /// For so many seconds at most, `serve` works at the sweep.
    #[arg(long, default_value_t = 60)]
    serve_seconds: u64,
    /// A server to make the database on, without a database's name; otherwise one is started. Its plans are not seen.
    #[arg(long)]
    database: Option<String>,
    /// Of the server that is started.
    #[arg(long, default_value_t = 16)]
    postgres: u32,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

async fn measure(args: &Args) -> bool {
    let (server, ours) = match &args.database {
        Some(url) => (url.trim_end_matches('/').to_owned(), false),
        None => {
            let major = args.postgres;
            (tokio::task::spawn_blocking(move || cluster::cluster(major).url.clone()).await.unwrap(), true)
        }
    };
    let bench = Bench::create(&server).await;
    let mut table = Table::begin();
    bench.register(args.merchants).await;
    queue::first_night(&bench, (args.claimers, args.claims), &mut table).await;
    bench.age(args.merchants, queue::NIGHTS).await;
    queue::later_night(&bench, (args.claimers, args.claims), &mut table).await;
    outbox::after_ten_nights(&bench, args.merchants, &mut table).await;
    program::serves(&bench, args.serve_seconds, &mut table).await;
    if args.orders > 0 {
        program::reads_a_large_store(&bench, args.orders, &mut table).await;
    }
    if ours {
        plans::look(&bench, &mut table).await;
    }
    table.kept()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    ExitCode::from(u8::from(!runtime.block_on(measure(&args))))
}
