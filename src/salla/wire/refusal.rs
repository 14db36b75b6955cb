//! Why Salla refuses a request.

use std::sync::Arc;

use super::envelope::Envelope;

/// The reaction to an answer of status 401. Salla has five kinds of this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Renew the token, once.
    TokenEnded,
    /// The token is good, and the app may not do this.
    MissingScope,
    /// The merchant must act.
    Final,
}

/// It is Salla's own refusal, and not a proxy's.
pub fn is_from_salla(response: &reqwest::Response) -> bool {
    let status = response.status().as_u16();
    response.extensions().get::<Arc<Envelope>>().is_some_and(|envelope| envelope.is_error_of_salla(status))
}

/// Salla says that the record is not there.
pub fn is_no_such_record(response: &reqwest::Response) -> bool {
    let status = response.status().as_u16();
    response.extensions().get::<Arc<Envelope>>().is_some_and(|envelope| envelope.is_no_such_record(status))
}

/// Salla's words.
pub fn description(response: &reqwest::Response) -> String {
    response
        .extensions()
        .get::<Arc<Envelope>>()
        .map_or_else(|| "no reason given".to_owned(), |envelope| envelope.description())
}

/// A missing scope and a merchant's deleted or inactive user must not burn the single-use refresh token.
pub fn refusal(description: &str) -> Refusal {
    let text = description.to_lowercase();
    if text.contains("scope") {
        Refusal::MissingScope
    } else if text.contains("not exist") || text.contains("غير مفعل") || text.contains("inactive") {
        Refusal::Final
    } else {
        Refusal::TokenEnded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_kinds_of_401_and_one_that_a_refresh_mends() {
        for (description, kind) in [
            ("Unauthorized: The access token is invalid", Refusal::TokenEnded),
            (
                "Unauthorized: The access token should have access to one of those scopes: orders.read",
                Refusal::MissingScope,
            ),
            ("Unauthorized: The User is not exists.", Refusal::Final),
            ("Unauthorized: عفوا لا يمكنك تسجيل الدخول, حسابك غير مفعل", Refusal::Final),
            ("no reason given", Refusal::TokenEnded),
        ] {
            assert_eq!(refusal(description), kind, "{description}");
        }
    }
}
