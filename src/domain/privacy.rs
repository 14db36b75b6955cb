//! How much is kept of customers.

use super::words::words;

words! {
    /// How much personal data of customers is kept.
    CustomerFields ("amount of customer fields") {
        /// All of it.
        Full = "full",
        /// What customers are like, and pseudonyms of how they are reached; no name.
        Pseudonymous = "pseudonymous",
        /// Salla's id and the dates, and of an order no data of its customer.
        None = "none",
    }
}
