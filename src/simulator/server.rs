//! The server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use chrono::Utc;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tower_http::compression::CompressionLayer;

use super::{
    answers,
    customers::Customer,
    item::Item,
    order_items,
    order_statuses::OrderStatus,
    products::Product,
    shop::{Order, Shop},
    tokens,
    world::World,
};

/// A running simulated Salla; it ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Serves `world` on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(world: World) -> std::io::Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), world).await
    }

    /// Serves `world` at an address.
    ///
    /// # Errors
    /// When the address is taken, or belongs to another machine.
    pub async fn start_at(address: SocketAddr, world: World) -> std::io::Result<Self> {
        let world = Arc::new(Mutex::new(world));
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .merge(records::<Order>())
            .merge(records::<Product>())
            .merge(records::<Customer>())
            .merge(records::<OrderStatus>())
            .route(&format!("/admin/v2/{}", order_items::LIST), get(answers::lines))
            .route("/oauth2/token", post(tokens::refresh))
            .route("/oauth2/user/info", get(answers::user_info))
            .route("/merchants.jsonl", get(registrations))
            .layer(CompressionLayer::new())
            .with_state(Arc::clone(&world));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the simulated Salla ended: {error}");
            }
        });
        Ok(Self { world, address, tasks: vec![server] })
    }

    /// What belongs into `salla.api_url`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/admin", self.address)
    }

    /// What belongs into `salla.token_url`.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("http://{}/oauth2/token", self.address)
    }

    /// The stores, to look at and to change. Held, it stops the server.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// The address of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A line of `merchants import` for a store, with its present tokens.
    #[must_use]
    pub fn registration(&self, merchant_id: i64) -> Option<String> {
        self.world.lock().shops.get(&merchant_id).map(registration)
    }

    /// From now on the shops go on selling, and no webhook is sent: an order a store is placed or changed
    /// every `pause`.
    pub fn drift(&mut self, pause: Duration) {
        let world = Arc::clone(&self.world);
        self.tasks.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                world.lock().trade(Utc::now());
            }
        }));
    }
}

/// A line of `merchants import`.
fn registration(shop: &Shop) -> String {
    json!({
        "merchant_id": shop.merchant_id, "name": shop.name, "access_token": shop.access_token,
        "refresh_token": shop.refresh_token, "expires_at": Utc::now() + chrono::TimeDelta::days(14),
    })
    .to_string()
}

/// The lines of `merchants import` for all stores.
async fn registrations(State(world): State<Arc<Mutex<World>>>) -> String {
    world.lock().shops.values().flat_map(|shop| [registration(shop), "\n".to_owned()]).collect()
}

/// The list of a kind of record, and each one's own address.
fn records<I: Item>() -> Router<Arc<Mutex<World>>> {
    let list = format!("/admin/v2/{}", I::LIST);
    let router = Router::new().route(&list, get(answers::list::<I>));
    if I::HAS_ADDRESS { router.route(&format!("{list}/{{id}}"), get(answers::one::<I>)) } else { router }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
