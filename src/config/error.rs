//! The error of a setting.

/// One line: the key, what is wrong, where the value came from, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem} (from {source_name}); {fix}")]
pub struct ConfigError {
    pub(super) key: String,
    pub(super) problem: String,
    pub(super) source_name: String,
    pub(super) fix: String,
}

impl ConfigError {
    /// A setting that is valid, but not enough for the request.
    #[must_use]
    pub fn needed(key: &str, problem: &str, fix: &str) -> Self {
        Self {
            key: key.to_owned(),
            problem: problem.to_owned(),
            source_name: format!("the default; {} can set it", super::variable(key)),
            fix: fix.to_owned(),
        }
    }
}
