//! The pages of `docs/reference` that are generated. `UPDATE_DOCS=1 tests/run --test it -- reference` writes them.

mod api;
mod cli;
mod configuration;
mod database;
mod metrics;

use std::{fs, path::Path};

/// Compares a page with what it is generated from, or writes it.
fn assert_current(page: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differs = text.lines().zip(written.lines()).find(|(made, written)| made != written);
    assert!(
        text == written,
        "docs/reference/{page} is out of date at {differs:?}: UPDATE_DOCS=1 tests/run --test it -- reference"
    );
}

/// A text in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
