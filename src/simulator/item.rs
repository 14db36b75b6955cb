//! The kinds of record that stores have, each with a list and with answers for single ones.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{shop::Shop, world::World};

/// A query, by name.
pub type Params = HashMap<String, String>;

/// A kind of record, and what can happen to one.
pub trait Item: Send + Sync + Sized + 'static {
    /// Its list, behind `/admin/v2/`.
    const LIST: &'static str;

    /// Without which a token may not ask for it.
    const SCOPE: &'static str;

    /// Whether its list comes in pages; otherwise nothing is said about any.
    const PAGED: bool = true;

    /// Whether a single record has an address.
    const HAS_ADDRESS: bool = true;

    /// A store's.
    fn all(shop: &Shop) -> &[Self];

    /// The same, to be changed.
    fn all_mut(shop: &mut Shop) -> &mut Vec<Self>;

    /// Rows that are listed as they stand here, behind the others.
    fn raw(shop: &Shop) -> &[String];

    /// Unique within the store.
    fn id(&self) -> i64;

    /// When it came to be.
    fn created_at(&self) -> DateTime<Utc>;

    /// When it was last changed; whole seconds.
    fn updated_at(&self) -> DateTime<Utc>;

    /// Whether the list that is asked for shows it.
    fn is_listed(&self, world: &World, shop: &Shop, query: &Params) -> bool;

    /// Its row in a list.
    fn row(&self, world: &World, shop: &Shop) -> String;

    /// Its own answer.
    fn single(&self, world: &World, shop: &Shop) -> String;

    /// Makes one at `at`, and returns its id.
    fn add(shop: &mut Shop, at: DateTime<Utc>) -> i64;

    /// Changes one at `at`.
    fn change(shop: &mut Shop, id: i64, at: DateTime<Utc>);

    /// Deletes one.
    fn remove(shop: &mut Shop, id: i64) {
        Self::all_mut(shop).retain(|item| item.id() != id);
    }
}
