//! The program: parse, do, and turn the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use salla_reconciler::{cli, failpoint};

fn main() -> ExitCode {
    failpoint::heed_environment();
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::main(cli)) as u8),
        Err(error) => {
            eprintln!("salla-reconciler: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
