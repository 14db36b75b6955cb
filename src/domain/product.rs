//! A product, as the platform knows it.

use rust_decimal::Decimal;

use super::record::{SallaRecord, columns};

columns! {
    /// The columns of a product. Variants are in the payload only.
    ProductColumns of Products {
        /// In the merchant's language.
        name: String,
        /// The merchant's own number for it.
        sku: String,
        /// Salla's word for what it is, such as `product`, `service` or `digital`.
        product_type: String,
        /// Salla's word for where it stands, such as `sale`, `out` or `hidden`.
        status: String,
        /// ISO 4217, of the three amounts.
        currency: String,
        /// The price, exact.
        price_amount: Decimal,
        /// The sale price, exact.
        sale_price_amount: Decimal,
        /// The cost for the merchant, exact.
        cost_amount: Decimal,
        /// In stock, of all its variants; absent where that is not counted.
        quantity: i64,
        /// Whether it can be bought.
        is_available: bool,
    }
}

/// A product as Salla has it.
pub type Product = SallaRecord<ProductColumns>;
