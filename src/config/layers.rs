//! The layers, and which of them a value came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ::config::{Config as Merged, Environment, File, FileFormat};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroize;

use super::{ConfigError, environment};

/// The reference of all settings.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

pub(super) const PREFIX: &str = "SALLA_RECONCILER";

/// The name of the layer that is compiled in.
const COMPILED_IN: &str = "the default";

/// The merged settings, with the layer that each value came from.
pub struct Layers {
    merged: Merged,
    /// By key, the last layer that sets it.
    origins: BTreeMap<String, String>,
    /// By key, the file that sets it, if its last layer is a file.
    files: BTreeMap<String, PathBuf>,
}

/// The environment variable of a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}__{}", key.replace('.', "__").to_uppercase())
}

/// Every key that there is.
#[must_use]
pub fn keys() -> Vec<String> {
    let defaults = Merged::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build();
    defaults.map_or_else(|_| Vec::new(), |layer| leaves(layer).into_iter().collect())
}

impl Layers {
    /// Reads every layer, and refuses unknown keys.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let known = keys();
        let mut merged = Merged::builder();
        let (mut origins, mut of_files) = (BTreeMap::new(), BTreeMap::new());
        let mut add = |layer: Merged, name: &dyn Fn(&str) -> String| {
            for key in leaves(layer) {
                if !known.contains(&key) {
                    return Err(unknown(&key, &name(&key), &known));
                }
                origins.insert(key.clone(), name(&key));
            }
            Ok(())
        };
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        add(built(defaults.clone(), COMPILED_IN)?, &|_| COMPILED_IN.to_owned())?;
        merged = merged.add_source(defaults);
        for (path, name) in files(file) {
            let source = File::new(&path, FileFormat::Toml);
            let layer = built(source.clone(), &name)?;
            of_files.extend(leaves(layer.clone()).into_iter().map(|key| (key, PathBuf::from(&path))));
            add(layer, &|_| name.clone())?;
            merged = merged.add_source(source);
        }
        environment::check(&known)?;
        let environment = Environment::with_prefix(PREFIX).prefix_separator("__").separator("__");
        let layer = built(environment.clone(), "the environment")?;
        leaves(layer.clone()).iter().for_each(|key| drop(of_files.remove(key)));
        add(layer, &|key| format!("the environment variable {}", variable(key)))?;
        let merged = merged.add_source(environment).build().map_err(|error| unreadable("the settings", &error))?;
        Ok(Self { merged, origins, files: of_files })
    }

    /// The compiled-in layer alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        let merged = built(File::from_str(DEFAULTS, FileFormat::Toml), COMPILED_IN)?;
        Ok(Self { merged, origins: BTreeMap::new(), files: BTreeMap::new() })
    }

    /// Types the settings; an error names its key.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(self.merged.clone()).map_err(|error| {
            let key = error.path().to_string();
            self.error(&key, &problem(&error.into_inner()), &format!("its default is {}", self.default_of(&key)))
        })
    }

    /// Whether a layer above the default sets a key.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin != COMPILED_IN)
    }

    /// The file of settings that sets a key.
    pub fn file_of(&self, key: &str) -> Option<&Path> {
        self.files.get(key).map(PathBuf::as_path)
    }

    /// From now on the value of `key` counts as one of this source.
    pub fn comes_from(&mut self, key: &str, source: String) {
        self.origins.insert(key.to_owned(), source);
    }

    fn default_of(&self, key: &str) -> String {
        let defaults = built(File::from_str(DEFAULTS, FileFormat::Toml), COMPILED_IN);
        let value = defaults.ok().and_then(|defaults| defaults.get_string(key).ok()).filter(|value| !value.is_empty());
        value.unwrap_or_else(|| "empty".to_owned())
    }

    /// An error about the value of `key`.
    pub fn error(&self, key: &str, problem: &str, fix: &str) -> ConfigError {
        ConfigError {
            key: key.to_owned(),
            problem: problem.to_owned(),
            source_name: self.origins.get(key).cloned().unwrap_or_else(|| "nowhere".to_owned()),
            fix: fix.to_owned(),
        }
    }
}

/// The file of the environment and the file of `--config`, each with the setting that names it.
fn files(file: Option<&Path>) -> Vec<(String, String)> {
    let named = std::env::var(format!("{PREFIX}_ENV")).ok().filter(|name| !name.is_empty());
    let of_environment = named.map(|name| {
        let path = format!("config/{name}.toml");
        let told = format!("{path}, which {PREFIX}_ENV names");
        (path, told)
    });
    let of_command_line = file.map(|path| {
        let path = path.display().to_string();
        let told = format!("{path}, which --config names");
        (path, told)
    });
    of_environment.into_iter().chain(of_command_line).collect()
}

/// The problem of a value, without the value: it may be a secret under a wrong name.
fn problem(error: &::config::ConfigError) -> String {
    use ::config::ConfigError as E;
    match error {
        E::Type { expected, .. } => format!("must be {expected}"),
        E::At { error, .. } => problem(error),
        E::NotFound(_) => "is missing".to_owned(),
        E::Message(words) if words.starts_with("must be ") => words.clone(),
        // serde's own words quote the value before the last comma.
        E::Message(words) if words.starts_with("invalid ") => words
            .rsplit_once(", expected ")
            .map_or_else(|| "cannot be used".to_owned(), |(_, expected)| format!("must be {expected}")),
        _ => "cannot be used".to_owned(),
    }
}

fn built<S>(source: S, name: &str) -> Result<Merged, ConfigError>
where
    S: ::config::Source + Send + Sync + 'static,
{
    Merged::builder().add_source(source).build().map_err(|error| unreadable(name, &error))
}

fn unreadable(name: &str, error: &::config::ConfigError) -> ConfigError {
    ConfigError {
        key: name.to_owned(),
        // Below its first line, what reads TOML quotes the file, which may hold secrets.
        problem: error.to_string().lines().next().unwrap_or_default().to_owned(),
        source_name: name.to_owned(),
        fix: "it must exist and contain TOML: sections such as [salla], and keys such as max_attempts = 3".to_owned(),
    }
}

fn unknown(key: &str, source_name: &str, known: &[String]) -> ConfigError {
    let likeness = |known: &String| strsim::jaro_winkler(known, key);
    // Of keys of one section the sections alone are alike.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let is_meant = |near: &&String| likeness(near) > 0.8 && strsim::jaro_winkler(&last(near), &last(key)) > 0.7;
    let alike = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(is_meant);
    let same_name = || known.iter().find(|near| last(near) == last(key));
    ConfigError {
        key: key.to_owned(),
        problem: "is not a key".to_owned(),
        source_name: source_name.to_owned(),
        fix: alike.or_else(same_name).or_else(|| nearest(key, known)).map_or_else(
            || "remove it".to_owned(),
            |near| format!("remove it, or did you mean {near} ({})?", variable(near)),
        ),
    }
}

/// The key that is most similar to `text`, ignoring separators.
pub(super) fn nearest<'a>(text: &str, known: &'a [String]) -> Option<&'a String> {
    let plain = |text: &str| text.split(['.', '_']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    let text = plain(text);
    let likeness = |key: &&String| strsim::jaro_winkler(&plain(key), &text);
    known.iter().filter(|key| likeness(key) > 0.85).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The dotted path of every value that is not a table. The values may be secrets, and are wiped.
fn leaves(layer: Merged) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if let Ok(tree) = layer.try_deserialize::<Value>() {
        collect(String::new(), tree, &mut found);
    }
    found
}

fn collect(path: String, value: Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                collect(path, value, found);
            }
        }
        leaf => {
            if let Value::String(mut text) = leaf {
                text.zeroize();
            }
            found.insert(path);
        }
    }
}
