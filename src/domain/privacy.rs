//! How much is kept of customers.

use super::words::words;

words! {
    /// How much personal data of customers is kept.
    CustomerFields ("amount of customer fields") {
        /// All of it.
        Full = "full",
        /// No names; pseudonyms for email and mobile number; impersonal fields.
        Pseudonymous = "pseudonymous",
        /// Salla's id and the dates only; orders without customer data.
        None = "none",
    }
}
