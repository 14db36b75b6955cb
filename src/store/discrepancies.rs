//! From what became of a record to the row that tells of it.

use sea_orm::ActiveValue::{NotSet, Set};

use super::entity::discrepancy;
use crate::{
    domain::{Discrepancy, DiscrepancyKind, Order, Outcome, Record, Unreadable, Verdict},
    reconcile::ports::{Assessed, Lease},
};

pub fn kind(outcome: Outcome) -> Option<DiscrepancyKind> {
    match outcome {
        Outcome::Created => Some(DiscrepancyKind::Missing),
        Outcome::Updated => Some(DiscrepancyKind::Stale),
        Outcome::Failed => Some(DiscrepancyKind::Failed),
        Outcome::Skipped => Some(DiscrepancyKind::Skipped),
        Outcome::Unchanged => None,
    }
}

pub fn of_record(
    lease: &Lease,
    record: &Assessed<Order>,
    kind: DiscrepancyKind,
    reason: Option<String>,
) -> discrepancy::ActiveModel {
    let fields = match &record.verdict {
        Verdict::Update { fields } => fields.iter().map(ToString::to_string).collect(),
        Verdict::Create | Verdict::Unchanged => Vec::new(),
    };
    row(
        lease,
        Discrepancy {
            resource: Order::RESOURCE,
            salla_id: Some(record.record.id()),
            kind,
            local_updated_at: record.held_updated_at,
            remote_updated_at: Some(record.record.updated_at),
            fields,
            reason,
        },
    )
}

pub fn of_unreadable(lease: &Lease, bad: &Unreadable) -> discrepancy::ActiveModel {
    row(
        lease,
        Discrepancy {
            resource: Order::RESOURCE,
            salla_id: bad.id,
            kind: DiscrepancyKind::Skipped,
            local_updated_at: None,
            remote_updated_at: None,
            fields: Some(bad.path.clone()).filter(|path| !path.is_empty()).into_iter().collect(),
            reason: Some(bad.to_string()),
        },
    )
}

fn row(lease: &Lease, found: Discrepancy) -> discrepancy::ActiveModel {
    discrepancy::ActiveModel {
        id: NotSet,
        run_id: Set(lease.run_id),
        merchant_id: Set(lease.merchant.0),
        resource: Set(found.resource.as_str().to_owned()),
        salla_id: Set(found.salla_id),
        kind: Set(found.kind.as_str().to_owned()),
        local_updated_at: Set(found.local_updated_at),
        remote_updated_at: Set(found.remote_updated_at),
        fields: Set(serde_json::json!(found.fields).to_string()),
        reason: Set(found.reason),
    }
}
