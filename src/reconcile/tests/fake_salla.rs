//! A Salla in memory: one merchant's records, and the errors that a test plants.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    domain::{
        ContentHash, Customer, Listing, MerchantId, Order, OrderColumns, OrderStatus, Product, Record, Resource,
        RotationWindow, Scope, Summary, Unreadable, Wait,
    },
    reconcile::ports::{
        ItemsRead, Listed, MerchantContext, Page, PageRequest, RateLimitState, RequestCount, Row, RowKey, Source,
        SourceError,
    },
};

/// How an order is shown in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Whole,
    Summary,
    /// At its own address only.
    Nowhere,
}

type ErrorAt = Box<dyn Fn() -> SourceError + Send + Sync>;

/// What a test sets.
#[derive(Default)]
pub struct State {
    pub orders: Vec<(Order, Shown)>,
    /// Errors of the next answers to lists of a kind, the next one first; `None`: a right answer.
    list_errors: HashMap<Resource, VecDeque<Option<ErrorAt>>>,
    /// Errors at the addresses of single orders.
    pub order_errors: HashMap<i64, ErrorAt>,
    /// After so many answers about single orders, each further one that has no error gets this.
    later_error: Option<(usize, ErrorAt)>,
    /// A panic on each answer to a list.
    pub panics: bool,
    /// How long each answer takes.
    pub latency: Duration,
    /// Called whenever an order is read by id.
    pub on_asked: Option<Box<dyn Fn(i64) + Send + Sync>>,
    /// Ids that were read at their own addresses.
    pub asked: Vec<i64>,
    pub rows_per_page: usize,
}

/// Clones share the state.
#[derive(Clone, Default)]
pub struct FakeSalla(pub Arc<Mutex<State>>);

impl FakeSalla {
    /// Lists these orders, ten on a page, oldest change first.
    pub fn with(orders: impl IntoIterator<Item = Order>) -> Self {
        let salla = Self::default();
        {
            let mut state = salla.0.lock();
            state.orders = orders.into_iter().map(|order| (order, Shown::Whole)).collect();
            state.rows_per_page = 10;
        }
        salla
    }

    /// Fails a list of a kind after so many right answers.
    pub fn fail_list(&self, resource: Resource, after: usize, error: impl Fn() -> SourceError + Send + Sync + 'static) {
        let mut state = self.0.lock();
        let answers = state.list_errors.entry(resource).or_default();
        answers.extend((0..after).map(|_| None));
        answers.push_back(Some(Box::new(error)));
    }

    pub fn fail_order(&self, id: i64, error: impl Fn() -> SourceError + Send + Sync + 'static) {
        self.0.lock().order_errors.insert(id, Box::new(error));
    }

    pub fn after_orders_asked(&self, answers: usize, error: impl Fn() -> SourceError + Send + Sync + 'static) {
        self.0.lock().later_error = Some((answers, Box::new(error)));
    }

    pub fn show_all(&self, shown: Shown) {
        self.0.lock().orders.iter_mut().for_each(|(_, one)| *one = shown);
    }
}

/// An order of this id that was changed so many seconds after 2026-11-01.
pub fn order(id: i64, changed: i64) -> Order {
    let columns = OrderColumns {
        reference_id: Some(id),
        status: Some("completed".to_owned()),
        currency: Some("SAR".to_owned()),
        total_amount: None,
        salla_created_at: None,
    };
    Order::new(id, Some(instant(changed)), false, columns, format!(r#"{{"id":{id},"at":{changed}}}"#))
}

/// So many seconds after 2026-11-01.
pub fn instant(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_793_491_200 + seconds, 0).unwrap()
}

pub fn unavailable() -> SourceError {
    SourceError::Unavailable { reason: "500".to_owned(), per_row: false }
}

/// The records of a kind: only orders are kept.
pub trait Records<R> {
    fn records(&self) -> Vec<(R, Shown)>;
}

impl Records<Order> for State {
    fn records(&self) -> Vec<(Order, Shown)> {
        self.orders.clone()
    }
}

macro_rules! none_of {
    ($($record:ty),+) => {
        $(impl Records<$record> for State {
            fn records(&self) -> Vec<($record, Shown)> {
                Vec::new()
            }
        })+
    };
}
none_of!(Product, Customer, OrderStatus);

impl<R: Record> Source<R> for FakeSalla
where
    State: Records<R>,
{
    fn supports_rotation(&self) -> bool {
        false
    }

    fn shows_summaries(&self) -> bool {
        true
    }

    fn supports_sort(&self) -> bool {
        false
    }

    fn slice_scope(&self, _: RotationWindow) -> Scope {
        Scope::EVERYTHING
    }

    async fn is_listed(&self, _: MerchantContext<'_>, _: &R, _: &RequestCount) -> Result<bool, SourceError> {
        Ok(true)
    }

    fn begin(&self, since: DateTime<Utc>, _: Option<RotationWindow>) -> (Vec<Scope>, Listing) {
        if self.0.lock().orders.iter().any(|(_, shown)| *shown == Shown::Summary) {
            return (vec![Scope::EVERYTHING], Listing::Scan);
        }
        (vec![Scope::Changed { since }], Listing::Filter)
    }

    async fn page(&self, request: PageRequest<'_>, requests: &RequestCount) -> Result<Page<R>, SourceError> {
        requests.add_one();
        let latency = self.0.lock().latency;
        sleep(latency).await;
        let mut state = self.0.lock();
        assert!(!state.panics, "the answer brings out a defect");
        if let Some(error) = state.list_errors.get_mut(&R::RESOURCE).and_then(VecDeque::pop_front).flatten() {
            return Err(error());
        }
        let mut all: Vec<(R, Shown)> = state.records();
        all.retain(|(record, shown)| {
            *shown != Shown::Nowhere
                && match request.scope {
                    Scope::Changed { since } => record.updated_at() >= Some(since),
                    Scope::Created { .. } | Scope::SortedByChange => true,
                }
        });
        let size = state.rows_per_page.max(1);
        let (total, pages) = (all.len(), all.len().div_ceil(size));
        let rows = all.into_iter().skip((request.number as usize - 1) * size).take(size);
        let rows = rows.map(|(record, shown)| {
            let updated_at = record.updated_at().filter(|_| shown == Shown::Whole);
            let key = RowKey { id: record.id(), updated_at, created_at: None };
            let content_hash = ContentHash::of_text(record.payload());
            let row = match shown {
                Shown::Summary => Row::Summary(Summary { id: record.id(), content_hash }),
                _ => Row::Whole(record),
            };
            Listed { key, row }
        });
        Ok(Page {
            rows: rows.collect(),
            total_pages: Some(u32::try_from(pages).unwrap()),
            total: Some(total as u64),
            served_at: Some(instant(1_000_000)),
            is_broken: false,
            out_of_scope: None,
            too_long: None,
        })
    }

    async fn record(
        &self,
        _: MerchantContext<'_>,
        id: i64,
        _: bool,
        requests: &RequestCount,
    ) -> Result<Option<Result<R, Unreadable>>, SourceError> {
        requests.add_one();
        let latency = self.0.lock().latency;
        sleep(latency).await;
        let mut state = self.0.lock();
        state.asked.push(id);
        if let Some(on_asked) = &state.on_asked {
            on_asked(id);
        }
        if let Some(error) = state.order_errors.get(&id) {
            return Err(error());
        }
        if let Some((answers, error)) = &state.later_error
            && state.asked.len() > *answers
        {
            return Err(error());
        }
        Ok(state.records().into_iter().map(|(record, _)| record).find(|record: &R| record.id() == id).map(Ok))
    }

    fn has_items(&self) -> bool {
        false
    }

    async fn lines(&self, _: MerchantContext<'_>, _: i64, _: bool, _: &RequestCount) -> Result<ItemsRead, SourceError> {
        Ok(Some(Ok(Vec::new())))
    }
}

impl RateLimitState for FakeSalla {
    fn recent_requests(&self, _: MerchantId) -> u32 {
        0
    }

    fn add_recent_requests(&self, _: MerchantId, _: Option<u32>) {}

    fn waiting(&self, _: MerchantId) -> Option<(Wait, Duration)> {
        None
    }
}
