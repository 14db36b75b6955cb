//! An item of an order.

use rust_decimal::Decimal;

/// An item of an order. Salla omits most fields at times, so all but the id are optional. Notes of the customer are not
/// stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderItem {
    /// Salla's id of the item.
    pub id: i64,
    /// Salla's id of the product; absent when the merchant has deleted it.
    pub product_id: Option<i64>,
    /// The merchant's own number for it.
    pub sku: Option<String>,
    /// In the merchant's language.
    pub name: Option<String>,
    /// How many.
    pub quantity: Option<Decimal>,
    /// ISO 4217, of both amounts.
    pub currency: Option<String>,
    /// Of one, before tax, exact.
    pub price_amount: Option<Decimal>,
    /// The total of the item, exact.
    pub total_amount: Option<Decimal>,
}
