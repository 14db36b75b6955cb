//! Reconcilers that are wrong as many are, to show that the model catches them.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone, Utc};
use serde_json::Value;

use super::history::{Copy, Life, MERCHANT, Reconciler};
use crate::support::kind::Kind;

/// One of them, with what it holds.
pub struct Wrong {
    kind: Reconciler,
    held: BTreeMap<i64, Copy>,
    watermark: Option<DateTime<Utc>>,
    client: reqwest::Client,
}

/// A page of the list.
struct Page {
    rows: Vec<(i64, Copy)>,
    total_pages: u64,
    total: u64,
    served_at: DateTime<Utc>,
}

impl Wrong {
    pub fn new(kind: Reconciler) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { kind, held: BTreeMap::new(), watermark: None, client }
    }

    /// The records that it holds; nothing if our reconciler is at work.
    pub fn held(&self) -> Option<BTreeMap<i64, Copy>> {
        (self.kind != Reconciler::Ours).then(|| self.held.clone())
    }

    /// One night; whether it believes that it came to its end.
    pub async fn night<K: Kind>(&mut self, life: &Life<K>, full: bool) -> bool {
        let since = self.watermark.filter(|_| !full).unwrap_or(DateTime::UNIX_EPOCH);
        let mut pages = Vec::new();
        let first = self.page(life, since, 1).await;
        let (began, mut last) = (first.served_at, first.total_pages);
        match self.kind {
            Reconciler::ForwardOverAscending => {
                pages.push(first);
                let mut number = 2;
                while number <= last {
                    let page = self.page(life, since, number).await;
                    last = page.total_pages;
                    pages.push(page);
                    number += 1;
                }
            }
            Reconciler::StopsOnAShortPage => {
                let asked = life.page_size();
                let (mut page, mut number) = (first, 1);
                while page.rows.len() >= asked {
                    pages.push(page);
                    number += 1;
                    page = self.page(life, since, number).await;
                }
                pages.push(page);
            }
            _ => {
                for number in (1..=last).rev() {
                    pages.push(self.page(life, since, number).await);
                }
                pages.push(self.page(life, since, last).await);
            }
        }
        let total = pages.last().map_or(0, |page| page.total);
        let newest = pages.iter().flat_map(|page| &page.rows).map(|(_, copy)| copy.updated_at).max();
        self.watermark = match self.kind {
            Reconciler::WatermarkFromTheNewestRow => newest.or(self.watermark),
            _ => Some(began),
        };
        let rows = pages.iter().map(|page| page.rows.len() as u64).sum::<u64>();
        for (id, copy) in pages.into_iter().flat_map(|page| page.rows) {
            let newer = self.held.get(&id).is_none_or(|held| held.updated_at <= copy.updated_at);
            if newer {
                self.held.insert(id, copy);
            }
        }
        self.kind != Reconciler::CountsRepeatsAsRecords || rows >= total
    }

    async fn page<K: Kind>(&self, life: &Life<K>, since: DateTime<Utc>, number: u64) -> Page {
        let url = format!("{}/v2/orders", life.simulator.api_url());
        let token = life.simulator.world().shop(MERCHANT).tokens().0.to_owned();
        let query = [
            ("updated_at_min", since.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
            ("page", number.to_string()),
            ("per_page", life.page_size().to_string()),
        ];
        let response = self.client.get(url).query(&query).bearer_auth(token).send().await.unwrap();
        let served_at = httpdate::parse_http_date(response.headers()["date"].to_str().unwrap()).unwrap().into();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let rows = body["data"].as_array().unwrap().iter().map(read).collect();
        let number = |name: &str| body["pagination"][name].as_u64().unwrap();
        Page { rows, total_pages: number("totalPages"), total: number("total"), served_at }
    }
}

fn read(row: &Value) -> (i64, Copy) {
    let id = row["id"].as_i64().or_else(|| row["id"].as_str()?.parse().ok()).unwrap();
    let text = row["updated_at"]["date"].as_str().unwrap();
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap();
    let updated_at = FixedOffset::east_opt(3 * 3600).unwrap().from_local_datetime(&naive).unwrap().to_utc();
    let word = row["status"]["slug"].as_str().unwrap().to_owned();
    (id, Copy { updated_at, word, note: row["receiver"]["note"].as_i64().unwrap(), deleted: false })
}
