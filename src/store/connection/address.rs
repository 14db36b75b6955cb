//! The address of a PostgreSQL database. It contains a password, so the program never shows any
//! part of it. In an address that cannot be read as intended, a part of the password may stand
//! anywhere.

use sea_orm::sqlx::{postgres::PgConnectOptions, sqlite::SqliteConnectOptions};
use url::Url;

/// The fix for an address that cannot be read.
pub const PERCENT_ENCODE: &str = "percent-encode the password (? is %3F, / is %2F, # is %23, @ is %40, : is %3A), \
                                  and use only parameters of libpq";

/// The parameters that the driver knows: it logs any other, with its value.
const KNOWN: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Whether an address can be read as it was meant.
#[must_use]
pub fn is_readable(address: &str) -> bool {
    let Ok(url) = Url::parse(address) else {
        return false;
    };
    // What follows an unescaped character of a password looks like a path, a query or a fragment with the host in it.
    let database = url.path().trim_start_matches('/');
    url.fragment().is_none()
        && !database.contains(['/', '@', ':'])
        && (!url.username().is_empty() || !url.query().unwrap_or_default().contains('@'))
        && url.query_pairs().all(|(name, _)| KNOWN.contains(&&*name) || name.starts_with("options["))
        && address.parse::<PgConnectOptions>().is_ok()
}

/// Whether the address of an SQLite file can be read. The driver would quote what it cannot read.
#[must_use]
pub fn is_readable_file(address: &str) -> bool {
    address.parse::<SqliteConnectOptions>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_accepted() {
        for address in [
            "postgres://user:p%3Fw%2F@host:5432/name",
            "postgres://host/name?options=-c%20search_path%3Dreconciler",
            "postgres:///name?host=/var/run/postgresql&user=u&password=a%2Fb",
            "postgresql://user@host/name?sslmode=require&application_name=x",
            "postgres://user:pass@host/name?options[statement_timeout]=5s",
        ] {
            assert!(is_readable(address), "{address}");
        }
    }

    #[test]
    fn unescaped_passwords_are_rejected() {
        for address in [
            "postgres://user:12?34@host/name",
            "postgres://user:12/34@host/name",
            "postgres://user:12#34@host/name",
            "postgres://user:pass@host/name?sslmode=34",
            "postgres://user:pass@host/name?surprise=34",
            "postgres://user:pass@host:port/name",
        ] {
            assert!(!is_readable(address), "{address}");
        }
    }
}
