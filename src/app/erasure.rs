//! Removes one customer, or the personal data of all, from every kind of stored record.

use crate::{
    domain::{Customer, MerchantId, Order, OrderStatus, Product, Resource},
    reconcile::ports::{Actor, DatabaseError},
    salla::{ApiResource, Privacy},
    store::{Store, Stored, Which},
};

/// How many records of each kind were rewritten.
pub type Rewritten = Vec<(Resource, u64)>;

/// Removes a customer from all stored records of a merchant, and keeps it from coming back.
///
/// # Errors
/// When the database is away, or refuses. Finished work stays done. The call can be repeated.
pub async fn erase(
    store: &Store,
    privacy: &Privacy,
    merchant: MerchantId,
    customer: i64,
    by: &Actor,
) -> Result<Rewritten, DatabaseError> {
    store.forbid(merchant, customer, by).await?;
    let mut rewritten = Rewritten::new();
    for resource in Resource::ALL {
        rewritten.extend(match resource {
            Resource::Orders => erase_from::<Order>(store, privacy, merchant, customer).await?,
            Resource::Products => erase_from::<Product>(store, privacy, merchant, customer).await?,
            Resource::Customers => erase_from::<Customer>(store, privacy, merchant, customer).await?,
            Resource::OrderStatuses => erase_from::<OrderStatus>(store, privacy, merchant, customer).await?,
        });
    }
    Ok(rewritten)
}

/// Applies the configured privacy to all stored records.
///
/// # Errors
/// When the database is away, or refuses. Finished work stays done. The call can be repeated.
pub async fn redact(store: &Store, privacy: &Privacy) -> Result<Rewritten, DatabaseError> {
    let mut rewritten = Rewritten::new();
    for resource in Resource::ALL {
        rewritten.extend(match resource {
            Resource::Orders => redact_all::<Order>(store, privacy).await?,
            Resource::Products => redact_all::<Product>(store, privacy).await?,
            Resource::Customers => redact_all::<Customer>(store, privacy).await?,
            Resource::OrderStatuses => redact_all::<OrderStatus>(store, privacy).await?,
        });
    }
    Ok(rewritten)
}

type Count = Option<(Resource, u64)>;

async fn erase_from<R: ApiResource + Stored>(
    store: &Store,
    privacy: &Privacy,
    merchant: MerchantId,
    customer: i64,
) -> Result<Count, DatabaseError> {
    let Some(personal) = R::PERSONAL_FIELDS else {
        return Ok(None);
    };
    let which =
        if personal.customer == "id" { Which::Record(customer) } else { Which::Naming(personal.customer, customer) };
    let less = |payload: &str| privacy.record::<R>(merchant, payload, &[customer]);
    Ok(Some((R::RESOURCE, store.rewrite::<R>(merchant, which, &less).await?)))
}

async fn redact_all<R: ApiResource + Stored>(store: &Store, privacy: &Privacy) -> Result<Count, DatabaseError> {
    if R::PERSONAL_FIELDS.is_none() {
        return Ok(None);
    }
    let mut rewritten = 0;
    for merchant in store.holders::<R>().await? {
        let erased = store.erased_customers(merchant).await?;
        if privacy.keeps_all() {
            // An unreadable payload must not be lost.
            for customer in erased {
                rewritten += erase_from::<R>(store, privacy, merchant, customer).await?.map_or(0, |(_, count)| count);
            }
            continue;
        }
        let less = |payload: &str| privacy.record::<R>(merchant, payload, &erased);
        rewritten += store.rewrite::<R>(merchant, Which::All, &less).await?;
    }
    Ok(Some((R::RESOURCE, rewritten)))
}
