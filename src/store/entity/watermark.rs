//! How far each merchant is covered, a row a resource.

use sea_orm::entity::prelude::*;

use crate::store::connection::stamp::Stamp;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "watermarks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub merchant_id: i64,
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub resource: String,
    pub watermark: Option<Stamp>,
    #[sea_orm(column_type = "Text")]
    pub target: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
