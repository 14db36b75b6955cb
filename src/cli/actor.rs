//! The user of a command, for the audit.

use crate::reconcile::ports::Actor;

/// The system's name of the user. A user who can set it also has the database's password: it is a hint, not a proof.
pub fn actor() -> Actor {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user: String = named.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(64).collect();
    Actor::Cli(if user.is_empty() { "unknown".to_owned() } else { user })
}
