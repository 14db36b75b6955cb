//! Names the database for people.

use secrecy::ExposeSecret as _;

use crate::{config::Config, store::Store};

/// Which database it is, without the user and the password.
pub async fn database_place(config: &Config, store: &Store) -> String {
    place(config.database.url.expose_secret(), store.current_schema().await.ok().flatten())
}

fn place(url: &str, schema: Option<String>) -> String {
    let file = url.trim_start_matches("sqlite:").trim_start_matches("//").split('?').next().unwrap_or_default();
    let schema = schema.map_or_else(String::new, |schema| format!(", schema {schema},"));
    let of_server = |url: url::Url| {
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        url.host_str().map(|host| format!("{}{} on {host}{port}", url.path().trim_start_matches('/'), schema))
    };
    if url.starts_with("sqlite:") {
        return format!("the file {file}");
    }
    url::Url::parse(url).ok().and_then(of_server).unwrap_or_else(|| "as database.url says".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_without_its_password() {
        for (url, schema, named) in [
            ("postgres://me:secret@db.example:6432/platform?sslmode=require", None, "platform on db.example:6432"),
            ("postgres://db/platform", Some("salla"), "platform, schema salla, on db"),
            ("sqlite://data/here.db?mode=rwc", None, "the file data/here.db"),
            ("sqlite::memory:", None, "the file :memory:"),
        ] {
            assert_eq!(place(url, schema.map(str::to_owned)), named);
        }
    }
}
