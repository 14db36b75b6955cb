//! Sealed tokens.

use sea_orm::entity::prelude::*;

use crate::store::connection::stamp::Stamp;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credentials")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub merchant_id: i64,
    #[sea_orm(column_type = "Text")]
    pub access_token: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub refresh_token: Option<String>,
    pub expires_at: Option<Stamp>,
    pub issued_at: Option<Stamp>,
    pub version: i64,
    pub refresh_started_at: Option<Stamp>,
    pub revoked_at: Option<Stamp>,
    pub owner_confirmed: bool,
    pub refresh_attempt: Option<Uuid>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
