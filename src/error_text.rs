//! Short texts of errors that other programs caused.

use std::fmt::Write as _;

/// Enough of a foreign text to recognise it, and no control characters.
#[must_use]
pub fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// An error with its causes, without the address: it holds nothing that is not known, and is long.
#[must_use]
pub fn causes(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no complete answer in time".to_owned()
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the connection broke".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    clip(&text)
}
