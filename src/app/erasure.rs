//! Removes one customer, or the personal data of all, from every kind of stored record.

use crate::{
    domain::{self, MerchantId, Resource, with_resources},
    reconcile::ports::{Actor, TargetError},
    salla::{ApiResource, Privacy},
    store::{Store, Stored, Which},
};

/// How many records of each kind were rewritten.
pub type Rewritten = Vec<(Resource, u64)>;

macro_rules! of_every_kind {
    ($($(#[$doc:meta])* $kind:ident($record:ident) = $word:literal, one $one:literal, told $told:expr;)+) => {
        /// Takes a customer out of all that is held of a store, and keeps it from coming back.
        ///
        /// # Errors
        /// When the database is away, or refuses. What was done stays done, and can be asked for again.
        pub async fn erase(
            (store, privacy): (&Store, &Privacy),
            (merchant, customer): (MerchantId, i64),
            by: &Actor,
        ) -> Result<Rewritten, TargetError> {
            store.forbid(merchant, customer, by).await?;
            let mut rewritten = Rewritten::new();
            $(rewritten.extend(erase_from::<domain::$record>((store, privacy), merchant, customer).await?);)+
            Ok(rewritten)
        }

        /// Applies what is configured to all that is held.
        ///
        /// # Errors
        /// When the database is away, or refuses. What was done stays done, and can be asked for again.
        pub async fn redact(store: &Store, privacy: &Privacy) -> Result<Rewritten, TargetError> {
            let mut rewritten = Rewritten::new();
            $(rewritten.extend(redact_all::<domain::$record>(store, privacy).await?);)+
            Ok(rewritten)
        }
    };
}
with_resources!(of_every_kind);

type Count = Option<(Resource, u64)>;

async fn erase_from<R: ApiResource + Stored>(
    (store, privacy): (&Store, &Privacy),
    merchant: MerchantId,
    customer: i64,
) -> Result<Count, TargetError> {
    let Some(personal) = R::PERSONAL_FIELDS else {
        return Ok(None);
    };
    let which =
        if personal.customer == "id" { Which::Record(customer) } else { Which::Naming(personal.customer, customer) };
    let less = |payload: &str| privacy.record::<R>(merchant, payload, &[customer]);
    Ok(Some((R::RESOURCE, store.rewrite::<R>(merchant, which, &less).await?)))
}

async fn redact_all<R: ApiResource + Stored>(store: &Store, privacy: &Privacy) -> Result<Count, TargetError> {
    if R::PERSONAL_FIELDS.is_none() {
        return Ok(None);
    }
    let mut rewritten = 0;
    for merchant in store.holders::<R>().await? {
        let erased = store.erased_customers(merchant).await?;
        if privacy.keeps_all() {
            // What cannot be read is not to be lost.
            for customer in erased {
                rewritten += erase_from::<R>((store, privacy), merchant, customer).await?.map_or(0, |(_, count)| count);
            }
            continue;
        }
        let less = |payload: &str| privacy.record::<R>(merchant, payload, &erased);
        rewritten += store.rewrite::<R>(merchant, Which::All, &less).await?;
    }
    Ok(Some((R::RESOURCE, rewritten)))
}
