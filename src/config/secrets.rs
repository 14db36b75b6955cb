//! The secrets among the settings, and the files that they come from.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Config, ConfigError, layers::Layers, modes, secret_file};

impl Config {
    /// Reads the secrets that have a file of their own, and notes the files of settings that contain secrets.
    pub(super) fn read_secrets(&mut self, layers: &mut Layers) -> Result<(), ConfigError> {
        let mut files_with_secrets = Vec::new();
        for (key, secret, file) in self.secrets() {
            if file.as_os_str().is_empty() {
                let file = layers.file_of(key).filter(|_| is_secret(secret.expose_secret()));
                files_with_secrets.extend(file.map(|file| (key, file.to_owned())));
                continue;
            }
            let file_key = format!("{key}_file");
            let fix = format!("use a file that contains only the value, or remove it and set {key}");
            if layers.is_set(key) {
                return Err(layers.error(&file_key, &format!("is set in addition to {key}"), &fix));
            }
            *secret = secret_file::read(file).map_err(|problem| layers.error(&file_key, &problem, &fix))?;
            layers.comes_from(key, format!("the file of {file_key}"));
        }
        self.files_with_secrets = files_with_secrets;
        Ok(())
    }

    /// Each secret, with the file that it may come from.
    fn secrets(&mut self) -> [(&'static str, &mut SecretString, &Path); 11] {
        let Self { database, salla, http, vault, privacy, cdc, telemetry, .. } = self;
        [
            ("database.url", &mut database.url, &database.url_file),
            ("salla.client_secret", &mut salla.client_secret, &salla.client_secret_file),
            ("salla.webhook_secret", &mut salla.webhook_secret, &salla.webhook_secret_file),
            ("salla.proxy", &mut salla.proxy, &salla.proxy_file),
            ("http.api_token", &mut http.api_token, &http.api_token_file),
            ("http.api_tokens", &mut http.api_tokens, &http.api_tokens_file),
            ("vault.keys", &mut vault.keys, &vault.keys_file),
            ("privacy.pseudonym_key", &mut privacy.pseudonym_key, &privacy.pseudonym_key_file),
            ("cdc.webhook_url", &mut cdc.webhook_url, &cdc.webhook_url_file),
            ("cdc.webhook_secret", &mut cdc.webhook_secret, &cdc.webhook_secret_file),
            ("telemetry.otlp_endpoint", &mut telemetry.otlp_endpoint, &telemetry.otlp_endpoint_file),
        ]
    }

    /// Files that hold secrets or data and that others than their owner can read or change: the key that names each, and its
    /// mode.
    #[must_use]
    pub fn loose_files(&mut self) -> Vec<(String, String)> {
        let of_sqlite = modes::files_of_sqlite(self.database.url.expose_secret());
        let database =
            of_sqlite.iter().filter_map(|file| Some(("database.url".to_owned(), modes::problem(file, false)?)));
        let settings = self.files_with_secrets.iter();
        let settings = settings.filter_map(|(key, file)| Some(((*key).to_owned(), modes::problem(file, true)?)));
        let others: Vec<_> = settings.chain(database).collect();
        let secrets = self.secrets().into_iter();
        let secrets = secrets.filter_map(|(key, _, file)| Some((format!("{key}_file"), modes::problem(file, true)?)));
        secrets.chain(others).collect()
    }
}

/// Whether a value must not be read by others. An address is a secret if it contains a password.
fn is_secret(value: &str) -> bool {
    !value.is_empty() && Url::parse(value).map_or(!value.starts_with("sqlite:"), |url| url.password().is_some())
}
