//! The layers, and which of them a value came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ::config::{Config as Merged, Environment, File, FileFormat};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroize;

use super::ConfigError;

/// The reference of all settings.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

const PREFIX: &str = "SALLA_RECONCILER";

/// The merged settings, with the layer that each value came from.
pub struct Layers {
    merged: Merged,
    /// By key, the last layer that sets it.
    origins: BTreeMap<String, String>,
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
    /// Reads every layer, and refuses keys that nobody knows.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let known = keys();
        let mut merged = Merged::builder();
        let mut origins = BTreeMap::new();
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
        add(built(defaults.clone(), "config/default.toml")?, &|_| "config/default.toml".to_owned())?;
        merged = merged.add_source(defaults);
        for path in files(file) {
            let source = File::new(&path, FileFormat::Toml);
            add(built(source.clone(), &path)?, &|_| path.clone())?;
            merged = merged.add_source(source);
        }
        let environment = Environment::with_prefix(PREFIX).prefix_separator("__").separator("__");
        add(built(environment.clone(), "the environment")?, &|key| {
            format!("the environment variable {}", variable(key))
        })?;
        let merged = merged.add_source(environment).build().map_err(|error| unreadable("the settings", &error))?;
        Ok(Self { merged, origins })
    }

    /// The compiled-in layer alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        Ok(Self {
            merged: built(File::from_str(DEFAULTS, FileFormat::Toml), "config/default.toml")?,
            origins: BTreeMap::new(),
        })
    }

    /// Types the settings; an error names its key.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(self.merged.clone()).map_err(|error| {
            let key = error.path().to_string();
            let inner = error.into_inner().to_string();
            // The library repeats the key and the kind of source, which the line says anyway.
            let problem = inner.split(" for key `").next().unwrap_or(&inner);
            self.error(&key, problem, "see config/default.toml for what it takes")
        })
    }

    /// An error about the value of `key`.
    pub fn error(&self, key: &str, problem: &str, mend: &str) -> ConfigError {
        ConfigError {
            key: key.to_owned(),
            problem: problem.to_owned(),
            source_name: self.origins.get(key).cloned().unwrap_or_else(|| "nowhere".to_owned()),
            mend: mend.to_owned(),
        }
    }
}

/// The file of the environment, and the one of the command line.
fn files(file: Option<&Path>) -> Vec<String> {
    let named = std::env::var(format!("{PREFIX}_ENV")).ok().filter(|name| !name.is_empty());
    let of_environment = named.map(|name| format!("config/{name}.toml"));
    of_environment.into_iter().chain(file.map(|path| path.display().to_string())).collect()
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
        mend: "it must be there and hold TOML such as config/default.toml".to_owned(),
    }
}

fn unknown(key: &str, source_name: &str, known: &[String]) -> ConfigError {
    let likeness = |known: &String| strsim::jaro_winkler(known, key);
    // Of keys of one section the sections alone are alike.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let is_meant = |near: &&String| likeness(near) > 0.8 && strsim::jaro_winkler(&last(near), &last(key)) > 0.7;
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(is_meant);
    ConfigError {
        key: key.to_owned(),
        problem: "is no key".to_owned(),
        source_name: source_name.to_owned(),
        mend: nearest
            .map_or_else(String::new, |near| format!("remove it, or did you mean {near} ({})?", variable(near))),
    }
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
