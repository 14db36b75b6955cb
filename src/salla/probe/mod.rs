//! A read-only probe of one live store: it answers what Salla's documentation leaves open, and which listing fits.

mod findings;
mod questions;
mod recording;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;

pub use self::{findings::Finding, recording::Recording};
use super::{
    http::{client::SallaClient, request::Get},
    resources::api_resource::ApiResource,
    wire::{date, envelope::Pagination},
};
use crate::{
    domain::{Customer, DetailCheckNights, Listing, MerchantId, Order, OrderStatus, Product, Resource, Resources},
    reconcile::ports::{CredentialStore, RequestCount, SourceError},
};

/// A probe sends no more requests than this.
const MAX_REQUESTS: u64 = 25;

/// What a probe found.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// The merchant.
    pub merchant_id: MerchantId,
    /// One finding per question.
    pub findings: Vec<Finding>,
    /// The listing that `salla.listing = "auto"` will probably use, after a first run that scans.
    pub listing: Listing,
    /// Why.
    pub reason: String,
    /// Orders of the list; `None`: the server does not say.
    pub orders: Option<u64>,
    /// Requests of this probe.
    pub requests: u64,
    /// Expected requests of a night without changes; `None`: the number of orders is not known. Each change adds one or two.
    pub requests_per_night: Option<u64>,
    /// Minutes that these requests take at the limit of the store.
    pub minutes_per_night: Option<f64>,
}

/// An answer to a question of the probe.
struct Seen {
    status: u16,
    headers: HeaderMap,
    served_at: Option<DateTime<Utc>>,
    pagination: Pagination,
    /// The rows of a list.
    rows: Vec<ProbedRow>,
    /// The whole body.
    body: Value,
    is_no_such_record: bool,
}

/// A row of a list, or an order.
struct ProbedRow {
    id: i64,
    created_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
    json: Value,
}

impl ProbedRow {
    fn of(text: &str) -> Option<Self> {
        let (id, created_at) = Order::place(text)?;
        let json: Value = serde_json::from_str(text).ok()?;
        let stamp = serde_json::value::to_raw_value(json.get("updated_at")?).ok();
        let updated_at = stamp.and_then(|stamp| date::parse(&stamp));
        Some(Self { id, created_at, updated_at, json })
    }

    /// The same of a row that may lack `updated_at`.
    fn of_list(text: &str) -> Option<Self> {
        Self::of(text).or_else(|| {
            let (id, created_at) = Order::place(text)?;
            Some(Self { id, created_at, updated_at: None, json: serde_json::from_str(text).ok()? })
        })
    }
}

/// The settings that a probe depends on.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSettings {
    /// The kinds of record whose scopes are needed.
    pub resources: Resources,
    /// Requests per minute where the server announces no limit.
    pub requests_per_minute: u32,
    /// Within how many nights all details are read.
    pub detail_checks: DetailCheckNights,
}

/// A probe that is under way.
struct Probe<'a, C> {
    client: &'a SallaClient<C>,
    merchant: MerchantId,
    requests: RequestCount,
    recording: Option<&'a mut Recording>,
    findings: Vec<Finding>,
}

type Query<'a> = &'a [(&'static str, String)];

impl<C: CredentialStore> SallaClient<C> {
    /// Probes the store of a merchant with at most 25 requests.
    ///
    /// # Errors
    /// When Salla refuses the token, or does not answer.
    pub async fn probe(
        &self,
        merchant: MerchantId,
        settings: ProbeSettings,
        recording: Option<&mut Recording>,
    ) -> Result<ProbeReport, SourceError> {
        let requests = RequestCount::default();
        let mut probe = Probe { client: self, merchant, requests, recording, findings: Vec::new() };
        probe.ask_owner().await?;
        let plain = probe.ask_list().await?;
        let filters = probe.ask_filter(&plain).await?;
        let sorts = probe.ask_order(&plain).await?;
        probe.ask_days(&plain).await?;
        probe.ask_window(&plain).await?;
        probe.ask_error().await?;
        probe.ask_scopes(settings.resources).await?;
        Ok(probe.conclude(&plain, filters, sorts, settings))
    }
}

impl<C: CredentialStore> Probe<'_, C> {
    /// Sends a request for orders; `None`: the probe has no request left.
    async fn ask(&mut self, path: &str, query: Query<'_>) -> Result<Option<Seen>, SourceError> {
        self.ask_as::<Order>(path, query).await
    }

    async fn ask_as<R: ApiResource>(&mut self, path: &str, query: Query<'_>) -> Result<Option<Seen>, SourceError> {
        // A request may be sent again, and must not be one too many.
        if self.requests.get() + u64::from(self.client.max_attempts) > MAX_REQUESTS {
            return Ok(None);
        }
        let get = Get { single: true, ..Get::new::<R>(self.merchant, path, query, &self.requests) };
        let (status, headers, envelope) = self.client.get_unjudged(&get).await?;
        let rows = envelope.as_ref().and_then(|envelope| envelope.rows().ok());
        let rows = rows.iter().flat_map(|rows| rows.iter()).filter_map(|row| ProbedRow::of_list(&row.text)).collect();
        let seen = Seen {
            status,
            served_at: date::of_answer(&headers),
            pagination: envelope.as_ref().map(super::wire::envelope::Envelope::pagination).unwrap_or_default(),
            rows,
            is_no_such_record: envelope.as_ref().is_some_and(|envelope| envelope.is_no_such_record(status)),
            body: envelope.map(|envelope| envelope.to_value()).unwrap_or_default(),
            headers,
        };
        if let Some(recording) = &mut self.recording {
            recording.add(path, query, &seen);
        }
        Ok(Some(seen))
    }

    /// Whether the app has the scope of a kind of record.
    async fn has_scope(&mut self, resource: Resource) -> Result<Option<bool>, SourceError> {
        let one = [("page", "1".to_owned()), ("per_page", "1".to_owned())];
        let answer = match resource {
            Resource::Orders => return Ok(Some(true)),
            Resource::Products => self.ask_as::<Product>(Product::PATH, &one).await,
            Resource::Customers => self.ask_as::<Customer>(Customer::PATH, &one).await,
            Resource::OrderStatuses => self.ask_as::<OrderStatus>(OrderStatus::PATH, &one).await,
        };
        match answer {
            Ok(seen) => Ok(seen.map(|seen| seen.status == 200)),
            Err(SourceError::MissingScope { .. }) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }
}
