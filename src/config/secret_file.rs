//! Secrets that come from files, as orchestrators mount them.

use std::{fs::File, io::Read, path::Path};

use secrecy::SecretString;
use zeroize::Zeroizing;

/// No secret comes near this size, in bytes.
const LARGEST_FILE: u64 = 64 << 10;

/// Reads the secret in a file, without the white space around it.
///
/// # Errors
/// When the file cannot be read, or is empty. Its name is not quoted: a secret may have been set in its place.
pub fn read(file: &Path) -> Result<SecretString, String> {
    let mut text = Zeroizing::new(String::new());
    let opened = File::open(file).and_then(|file| file.take(LARGEST_FILE).read_to_string(&mut text));
    opened.map_err(|error| format!("the file cannot be read: {error}"))?;
    match trimmed(&text) {
        "" => Err("the file is empty".to_owned()),
        secret => Ok(secret.into()),
    }
}

/// A text without white space and byte order marks at its ends.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}
