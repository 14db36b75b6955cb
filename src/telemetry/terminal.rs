//! stderr, shared by log lines and a progress bar: a line is written above the bar, not through it.

use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// The bar that is on the terminal. There is one terminal in a process, hence one static.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows a bar, until the guard is dropped.
#[derive(Debug)]
pub struct Shown(());

/// Puts `bar` below the log lines from now on.
#[must_use]
pub fn show(bar: &ProgressBar) -> Shown {
    *BAR.lock() = Some(bar.clone());
    Shown(())
}

impl Drop for Shown {
    fn drop(&mut self) {
        *BAR.lock() = None;
    }
}

/// Whether log lines may be coloured: at a terminal that can, unless somebody wants none (<https://no-color.org>).
pub fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    io::stderr().is_terminal() && !unwanted && !dumb
}

/// Where log lines go.
#[derive(Debug, Clone, Copy)]
pub struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().clone();
        match bar {
            Some(bar) => bar.suspend(|| io::stderr().write(line)),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
