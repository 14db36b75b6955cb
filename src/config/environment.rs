//! The names of environment variables. A name that looks like ours, but that nothing reads, is an
//! error. Otherwise the program would ignore a misspelled setting silently, which can leave the API
//! open.

use super::{
    ConfigError,
    layers::{PREFIX, nearest, variable},
};

/// Refuses variables that look like ours and that nothing reads, and values that are not UTF-8.
pub fn check(known: &[String]) -> Result<(), ConfigError> {
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        check_name(&name, known)?;
        if name.to_uppercase().starts_with(PREFIX) && value.to_str().is_none() {
            return Err(error(&name, "is not UTF-8", "use only UTF-8 characters".to_owned()));
        }
    }
    Ok(())
}

fn check_name(name: &str, known: &[String]) -> Result<(), ConfigError> {
    let environment = format!("{PREFIX}_ENV");
    let upper = name.to_uppercase();
    let Some(rest) = upper.strip_prefix(PREFIX) else {
        return Ok(());
    };
    if name == environment || rest.starts_with("__") || is_service_link(rest) {
        return Ok(());
    }
    let meant = rest.trim_matches('_').to_lowercase();
    let fix = if meant == "env" {
        format!("did you mean {environment}?")
    } else {
        nearest(&meant, known).map_or_else(
            || format!("remove it, or write {PREFIX}__SECTION__KEY"),
            |near| format!("did you mean {}?", variable(near)),
        )
    };
    Err(error(name, "is not a variable of this program", fix))
}

fn error(name: &str, problem: &str, fix: String) -> ConfigError {
    ConfigError { key: name.to_owned(), problem: problem.to_owned(), source_name: "the environment".to_owned(), fix }
}

/// Kubernetes sets such variables in every pod, for a Service that is named as this program is.
fn is_service_link(rest: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |port: &str| {
        let mut parts = port.splitn(3, '_');
        parts.next().is_some_and(is_number) && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.split_once("_PORT_").is_some_and(|(_, port)| is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_variable_is_rejected_with_a_suggestion() {
        let known = super::super::keys();
        for (name, meant) in [
            ("SALLA_RECONCILER_HTTP__API_TOKEN", "SALLA_RECONCILER__HTTP__API_TOKEN"),
            ("SALLA_RECONCILER_HTTP_API_TOKEN", "SALLA_RECONCILER__HTTP__API_TOKEN"),
            ("SALLA_RECONCILERHTTP__API_TOKEN", "SALLA_RECONCILER__HTTP__API_TOKEN"),
            ("salla_reconciler_vault__keys", "SALLA_RECONCILER__VAULT__KEYS"),
            ("SALLA_RECONCILER_env", "SALLA_RECONCILER_ENV"),
            ("SALLA_RECONCILER_SURPRISE", "SALLA_RECONCILER__SECTION__KEY"),
        ] {
            assert!(check_name(name, &known).unwrap_err().to_string().contains(meant), "{name}");
        }
        for name in ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "ENV"] {
            assert!(check_name(&format!("SALLA_RECONCILER_{name}"), &known).is_ok(), "{name}");
        }
    }
}
