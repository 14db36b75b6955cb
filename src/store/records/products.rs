//! The table of products.

use rust_decimal::Decimal;
use sea_orm::{
    QueryResult,
    sea_query::{Expr, ExprTrait},
};

use super::stored::Stored;
use crate::{
    domain::{Product, ProductColumns},
    store::{
        connection::{dialect::Dialect, stamp::lenient},
        entity::product::{Column, Entity},
    },
};

impl Stored for Product {
    type Entity = Entity;

    const ID: Column = Column::SallaProductId;

    const CREATED_AT: Option<Column> = None;

    const COLUMNS: &'static [Column] = &[
        Column::Name,
        Column::Sku,
        Column::ProductType,
        Column::Status,
        Column::Currency,
        Column::PriceAmount,
        Column::SalePriceAmount,
        Column::CostAmount,
        Column::Quantity,
        Column::IsAvailable,
    ];

    fn values(&self, dialect: Dialect) -> Vec<Expr> {
        let columns = self.columns.clone();
        vec![
            Expr::val(columns.name),
            Expr::val(columns.sku),
            Expr::val(columns.product_type),
            Expr::val(columns.status),
            Expr::val(columns.currency),
            Expr::val(dialect.exact(columns.price_amount)),
            Expr::val(dialect.exact(columns.sale_price_amount)),
            Expr::val(dialect.exact(columns.cost_amount)),
            Expr::val(columns.quantity),
            Expr::val(columns.is_available),
        ]
    }

    fn selected(_: Dialect) -> Vec<(Expr, &'static str)> {
        vec![
            (Expr::col(Column::Name), "name"),
            (Expr::col(Column::Sku), "sku"),
            (Expr::col(Column::ProductType), "product_type"),
            (Expr::col(Column::Status), "status"),
            (Expr::col(Column::Currency), "currency"),
            (Expr::col(Column::PriceAmount).cast_as("text"), "price_amount"),
            (Expr::col(Column::SalePriceAmount).cast_as("text"), "sale_price_amount"),
            (Expr::col(Column::CostAmount).cast_as("text"), "cost_amount"),
            (Expr::col(Column::Quantity), "quantity"),
            (Expr::col(Column::IsAvailable), "is_available"),
        ]
    }

    fn columns_of(row: &QueryResult) -> ProductColumns {
        let amount = |column| lenient::<String>(row, column).and_then(|text| text.parse::<Decimal>().ok());
        ProductColumns {
            name: lenient(row, "name"),
            sku: lenient(row, "sku"),
            product_type: lenient(row, "product_type"),
            status: lenient(row, "status"),
            currency: lenient(row, "currency"),
            price_amount: amount("price_amount"),
            sale_price_amount: amount("sale_price_amount"),
            cost_amount: amount("cost_amount"),
            quantity: lenient(row, "quantity"),
            is_available: lenient(row, "is_available"),
        }
    }
}
