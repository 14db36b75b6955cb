//! The checks of `database.url` and `database.schema`.

use crate::store;

/// PostgreSQL cuts longer names.
const LONGEST_NAME: usize = 63;

/// Refuses an address that no driver takes.
pub fn check(url: &str, schema: &str) -> Result<(), (&'static str, String, &'static str)> {
    if !["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err((
            "database.url",
            "does not begin with postgres://, postgresql:// or sqlite:".to_owned(),
            "use postgres://user:password@host/database or sqlite://file.db?mode=rwc",
        ));
    }
    if url.starts_with("sqlite:") {
        let problem = || "is not the address of an SQLite file".to_owned();
        let is_readable = store::is_readable_file(url);
        return if is_readable { Ok(()) } else { Err(("database.url", problem(), "use sqlite://file.db?mode=rwc")) };
    }
    if !store::is_readable(url) {
        return Err(("database.url", "cannot be read as an address".to_owned(), store::PERCENT_ENCODE));
    }
    // PostgreSQL reads "$user" in a search path as the name of the role, also in quotes.
    let is_reserved = schema.starts_with("pg_") || ["information_schema", "$user"].contains(&schema);
    let is_odd = schema.trim().is_empty() || schema.len() > LONGEST_NAME || schema.contains(char::is_control);
    if is_odd || is_reserved {
        let problem = "cannot be the name of a schema".to_owned();
        return Err((
            "database.schema",
            problem,
            "use up to 63 bytes, such as salla; PostgreSQL reserves pg_..., information_schema and $user",
        ));
    }
    Ok(())
}
