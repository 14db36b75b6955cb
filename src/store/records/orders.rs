//! The table of orders.

use rust_decimal::Decimal;
use sea_orm::{
    QueryResult,
    sea_query::{Expr, ExprTrait},
};

use super::stored::Stored;
use crate::{
    domain::{Order, OrderColumns},
    store::{
        connection::{
            dialect::Dialect,
            stamp::{instant, lenient},
        },
        entity::order::{Column, Entity},
    },
};

impl Stored for Order {
    type Entity = Entity;

    const ID: Column = Column::SallaOrderId;

    const CREATED_AT: Option<Column> = Some(Column::SallaCreatedAt);

    const ITEMS_VERSION: Option<Column> = Some(Column::ItemsVersion);

    const COLUMNS: &'static [Column] =
        &[Column::ReferenceId, Column::Status, Column::Currency, Column::TotalAmount, Column::SallaCreatedAt];

    fn values(&self, dialect: Dialect) -> Vec<Expr> {
        let OrderColumns { reference_id, status, currency, total_amount, salla_created_at } = &self.columns;
        vec![
            Expr::val(*reference_id),
            Expr::val(status.clone()),
            Expr::val(currency.clone()),
            Expr::val(dialect.exact(*total_amount)),
            Expr::val(*salla_created_at),
        ]
    }

    fn selected(dialect: Dialect) -> Vec<(Expr, &'static str)> {
        vec![
            (Expr::col(Column::ReferenceId), "reference_id"),
            (Expr::col(Column::Status), "status"),
            (Expr::col(Column::Currency), "currency"),
            (Expr::col(Column::TotalAmount).cast_as("text"), "total"),
            (Expr::cust(dialect.finite("salla_created_at")), "salla_created_at"),
        ]
    }

    fn columns_of(row: &QueryResult) -> OrderColumns {
        let total: Option<String> = lenient(row, "total");
        OrderColumns {
            reference_id: lenient(row, "reference_id"),
            status: lenient(row, "status"),
            currency: lenient(row, "currency"),
            total_amount: total.and_then(|text| text.parse::<Decimal>().ok()),
            salla_created_at: instant(row, "salla_created_at"),
        }
    }
}
