//! The program: parse, do, and turn the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use salla_reconciler::{cli, failpoint};

fn main() -> ExitCode {
    failpoint::heed_environment();
    // reqwest and sqlx use the same implementation of TLS. Only a second call could fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
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
