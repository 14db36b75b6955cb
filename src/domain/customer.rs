//! A customer, as the platform knows one.

use chrono::{DateTime, Utc};

use super::record::{SallaRecord, columns};

columns! {
    /// The columns of a customer: personal data, nearly all of it.
    CustomerColumns of Customers {
        /// As the customer wrote it.
        first_name: String,
        /// As the customer wrote it.
        last_name: String,
        /// As the customer wrote it.
        email: String,
        /// Without the country's code, which stands beside it.
        mobile: String,
        /// The country's code, as Salla spells it: `966` or `+966`.
        mobile_code: String,
        /// Salla's word, `male` or `female`.
        gender: String,
        /// The day, `yyyy-mm-dd`.
        birthday: String,
        /// In the merchant's language.
        city: String,
        /// In the merchant's language.
        country: String,
        /// ISO 3166-1, two letters.
        country_code: String,
        /// ISO 4217.
        currency: String,
        /// Of the customer's choice.
        language: String,
        /// When the customer signed up; absent where Salla does not say.
        salla_created_at: DateTime<Utc>,
    }
}

/// A customer as Salla has one.
pub type Customer = SallaRecord<CustomerColumns>;
