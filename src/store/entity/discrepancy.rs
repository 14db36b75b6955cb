//! What runs found.

use sea_orm::entity::prelude::*;

use crate::{
    domain::{Discrepancy, Found, Resource, UnknownValue},
    store::connection::stamp::{Stamp, or_epoch},
};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "discrepancies")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub run_id: Uuid,
    pub merchant_id: i64,
    #[sea_orm(column_type = "Text")]
    pub resource: String,
    pub salla_id: Option<i64>,
    #[sea_orm(column_type = "Text")]
    pub kind: String,
    pub local_updated_at: Option<Stamp>,
    pub remote_updated_at: Option<Stamp>,
    /// A JSON list of names.
    #[sea_orm(column_type = "Text")]
    pub fields: String,
    /// A JSON list of columns with their values.
    #[sea_orm(column_type = "Text")]
    pub changes: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub reason: Option<String>,
    pub backfill: bool,
    pub found_at: Option<Stamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl TryFrom<Model> for Found {
    type Error = UnknownValue;

    fn try_from(row: Model) -> Result<Self, UnknownValue> {
        let discrepancy = Discrepancy {
            resource: row.resource.parse::<Resource>()?,
            salla_id: row.salla_id,
            kind: row.kind.parse()?,
            local_updated_at: row.local_updated_at.map(|Stamp(at)| at),
            remote_updated_at: row.remote_updated_at.map(|Stamp(at)| at),
            fields: serde_json::from_str(&row.fields).map_err(|_| UnknownValue::new("list of fields", &row.fields))?,
            changes: serde_json::from_str(&row.changes).map_err(|_| UnknownValue::new("list of changes", ""))?,
            reason: row.reason,
            backfill: row.backfill,
        };
        Ok(Self::new(discrepancy, or_epoch(row.found_at)))
    }
}
