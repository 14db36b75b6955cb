//! The table of order statuses.

use sea_orm::{QueryResult, sea_query::Expr};

use super::stored::Stored;
use crate::{
    domain::{OrderStatus, OrderStatusColumns},
    store::{
        connection::{dialect::Dialect, stamp::lenient},
        entity::order_status::{Column, Entity},
    },
};

impl Stored for OrderStatus {
    type Entity = Entity;

    const ID: Column = Column::SallaStatusId;

    const CREATED_AT: Option<Column> = None;

    const COLUMNS: &'static [Column] =
        &[Column::Name, Column::Slug, Column::StatusType, Column::ParentId, Column::OriginalId];

    fn values(&self, _: Dialect) -> Vec<Expr> {
        let columns = self.columns.clone();
        vec![
            Expr::val(columns.name),
            Expr::val(columns.slug),
            Expr::val(columns.status_type),
            Expr::val(columns.parent_id),
            Expr::val(columns.original_id),
        ]
    }

    fn selected(_: Dialect) -> Vec<(Expr, &'static str)> {
        vec![
            (Expr::col(Column::Name), "name"),
            (Expr::col(Column::Slug), "slug"),
            (Expr::col(Column::StatusType), "status_type"),
            (Expr::col(Column::ParentId), "parent_id"),
            (Expr::col(Column::OriginalId), "original_id"),
        ]
    }

    fn columns_of(row: &QueryResult) -> OrderStatusColumns {
        OrderStatusColumns {
            name: lenient(row, "name"),
            slug: lenient(row, "slug"),
            status_type: lenient(row, "status_type"),
            parent_id: lenient(row, "parent_id"),
            original_id: lenient(row, "original_id"),
        }
    }
}
