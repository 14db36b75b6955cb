//! The checks of the section `cdc`.

use secrecy::ExposeSecret;

use super::names_somebody;
use crate::{
    domain::EventDetail,
    outbox::{Config, SigningKey},
};

/// PostgreSQL's names are shorter.
const LONGEST_NAME: usize = 63;

/// The key, what is wrong with it, and the fix.
pub fn check(cdc: &Config, database: &str) -> Result<(), (&'static str, String, &'static str)> {
    let url = cdc.webhook_url.expose_secret();
    if !url.is_empty() {
        let parsed =
            url::Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        // Never show the value: it may be a secret.
        let Some(parsed) = parsed else {
            return Err((
                "cdc.webhook_url",
                "is not an address".to_owned(),
                "write it like https://pipeline.example/runs",
            ));
        };
        if names_somebody(&parsed) {
            let problem = "contains a user name or a password, which is not used".to_owned();
            return Err((
                "cdc.webhook_url",
                problem,
                "remove the part before the @; the signature identifies the sender",
            ));
        }
        SigningKey::parse(&cdc.webhook_secret).map_err(|problem| {
            (
                "cdc.webhook_secret",
                problem.to_owned(),
                "use whsec_ and at least 24 bytes in base64, or another text that the receiver knows",
            )
        })?;
    }
    let sqlite = database.starts_with("sqlite:");
    for (key, name) in [("cdc.publication", &cdc.publication), ("cdc.slot", &cdc.slot)] {
        if sqlite && !name.is_empty() {
            return Err((key, "SQLite has no logical replication".to_owned(), "remove it, or use PostgreSQL"));
        }
    }
    if cdc.publication.len() > LONGEST_NAME || cdc.publication.contains('\0') {
        return Err(("cdc.publication", "is not a valid name in PostgreSQL".to_owned(), "use 63 bytes or fewer"));
    }
    let of_a_slot = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if cdc.slot.len() > LONGEST_NAME || !cdc.slot.bytes().all(of_a_slot) {
        let fix = "use up to 63 of a-z, 0-9 and _";
        return Err(("cdc.slot", "cannot be the name of a replication slot".to_owned(), fix));
    }
    for (key, is_set) in [
        ("cdc.slot", !cdc.slot.is_empty()),
        ("cdc.events", cdc.events == EventDetail::Record),
        ("cdc.skip_unchanged", cdc.skip_unchanged),
    ] {
        if is_set && url.is_empty() {
            let problem = "is set without cdc.webhook_url: no event would be sent".to_owned();
            return Err((key, problem, "set cdc.webhook_url, or remove it"));
        }
    }
    Ok(())
}
