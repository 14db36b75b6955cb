//! The stores of the demo, and the copies of their orders that a consumer of webhooks left.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, TransactionTrait};
use serde_json::{Value, json};

use crate::{
    domain::Listing,
    reconcile::ports::Tokens,
    simulator::{Order, Shop},
};

/// What a store shows of the program, beside lost webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// Nothing else.
    LostWebhooks,
    /// An order was deleted.
    Deletion,
    /// Salla has no filter by time of change for the store.
    NoFilter,
    /// Salla answers 429 to the first request.
    RateLimited,
    /// The access token has expired.
    TokenExpired,
    /// Salla lists an order that cannot be read.
    UnreadableOrder,
    /// Salla refuses both tokens.
    Unauthorized,
}

impl Situation {
    /// The situation of a store by its number, from 0.
    pub fn of(number: usize) -> Self {
        match number {
            0 => Self::Deletion,
            1 => Self::NoFilter,
            2 => Self::RateLimited,
            3 => Self::TokenExpired,
            4 => Self::UnreadableOrder,
            5 => Self::Unauthorized,
            _ => Self::LostWebhooks,
        }
    }

    /// The text in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::LostWebhooks => "lost webhooks",
            Self::Deletion => "a deleted order",
            Self::NoFilter => "no filter by change",
            Self::RateLimited => "answers 429",
            Self::TokenExpired => "token expired",
            Self::UnreadableOrder => "a broken order",
            Self::Unauthorized => "refuses the tokens",
        }
    }
}

/// What the copy of a store lacks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lost {
    pub creations: u64,
    pub updates: u64,
    /// Orders that Salla shows, and that cannot be read.
    pub unreadable: u64,
}

/// A store of the demo.
pub struct DemoStore {
    pub merchant_id: i64,
    /// Its orders in Salla before the sweep.
    pub orders: Vec<Order>,
    pub situation: Situation,
    pub lost: Lost,
    /// How its changed orders can be found.
    pub listing: Listing,
}

impl DemoStore {
    /// Creates a store, and a stale local copy: one in four webhooks since an instant was lost.
    pub async fn drifted(
        local: &DatabaseConnection,
        mut shop: Shop,
        situation: Situation,
        listing: Listing,
        since: DateTime<Utc>,
        seed: u64,
    ) -> anyhow::Result<(Self, Shop)> {
        let now = Utc::now();
        let mut rng = StdRng::seed_from_u64(seed);
        shop.documented = listing != Listing::Filter;
        let (mut copy, mut lost) = (shop.orders.clone(), Lost::default());
        let orders = shop.orders.len();
        let (changes, first) = (orders / 10 + 1, rng.random_range(0..orders.max(1)));
        // The last two minutes get no changes. A change of these minutes might still be on its way.
        let span = now - TimeDelta::minutes(2) - since;
        for number in 0..changes {
            let at = now - TimeDelta::minutes(2) - span * i32::try_from(number)? / i32::try_from(changes)?;
            let is_new = number % 3 == 0;
            let id = if is_new { shop.place(at) } else { shop.orders[(first + number) % orders].id };
            if !is_new {
                shop.touch(id, at);
            }
            match (is_new, number == 0 || rng.random_ratio(1, 4)) {
                (true, true) => lost.creations += 1,
                (false, true) => lost.updates += 1,
                (_, false) => {
                    copy.retain(|order| order.id != id);
                    copy.extend(shop.orders.iter().find(|order| order.id == id).cloned());
                }
            }
        }
        if situation == Situation::Deletion {
            let id = shop.place(now - TimeDelta::minutes(30));
            copy.extend(shop.orders.iter().find(|order| order.id == id).cloned());
            shop.delete(id);
        }
        if situation == Situation::UnreadableOrder {
            shop.raw_rows.push(unreadable(now).to_string());
            lost.unreadable = 1;
        }
        let txn = local.begin().await?;
        for order in &copy {
            consume(&txn, shop.merchant_id, order, payload(order, listing)).await?;
        }
        txn.commit().await?;
        let store = Self { merchant_id: shop.merchant_id, orders: shop.orders.clone(), situation, lost, listing };
        Ok((store, shop))
    }

    /// The tokens that the store gave when it installed the app.
    pub fn tokens(&self, shop: &mut Shop) -> anyhow::Result<Tokens> {
        let (access, refresh) = shop.tokens();
        let ends = match self.situation {
            Situation::TokenExpired => Utc::now() - TimeDelta::minutes(1),
            _ => Utc::now() + TimeDelta::days(14),
        };
        let tokens = Tokens::new(access.into(), Some(refresh.into()), Some(ends))?;
        if self.situation == Situation::Unauthorized {
            let id = self.merchant_id;
            shop.set_tokens(&format!("ory_at_{id}_other"), &format!("ory_rt_{id}_0"));
        }
        Ok(tokens)
    }
}

/// The complete payload of an order: the row of the list with the listing `filter`, otherwise the details.
pub fn payload(order: &Order, listing: Listing) -> Value {
    if listing == Listing::Filter { order.json() } else { order.detail(Utc::now()) }
}

/// A row of an order whose date is not a date.
fn unreadable(now: DateTime<Utc>) -> Value {
    let changed =
        json!({"date": now.format("%Y-%m-%d %H:%M:%S.000000").to_string(), "timezone_type": 3, "timezone": "UTC"});
    json!({"id": 1_999_999_999, "status": {"slug": "completed"}, "date": "yesterday", "updated_at": changed})
}

/// Writes an order as a webhook consumer does: only the columns of the contract.
async fn consume(db: &impl ConnectionTrait, merchant_id: i64, order: &Order, payload: Value) -> anyhow::Result<()> {
    let sql = "INSERT INTO orders (merchant_id, salla_order_id, reference_id, status, currency, total_amount, \
               salla_created_at, salla_updated_at, payload) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values: [sea_orm::Value; 9] = [
        merchant_id.into(),
        order.id.into(),
        order.reference_id.into(),
        order.slug().into(),
        order.currency.into(),
        total(order).into(),
        order.created_at.into(),
        order.updated_at.into(),
        payload.to_string().into(),
    ];
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// The total of an order, as SQLite stores it.
pub fn total(order: &Order) -> String {
    format!("{}.{:02}", order.total / 100, order.total % 100)
}
