//! Salla's answers as they come: bodies, rows, dates, errors, and the secrets in them.

pub mod date;
pub mod envelope;
pub mod error;
pub mod error_message;
pub mod list_rows;
pub mod read_body;
pub mod refusal;
pub mod repaired_text;
pub mod secret;
pub mod values;
