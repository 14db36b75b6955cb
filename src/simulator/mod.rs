//! A simulated Salla: a real HTTP server on a loopback socket, for `demo` and for the tests.
//!
//! It shares no type with the rest of the program. If both ends used the same parts, they would
//! agree on the same mistakes. By default it answers as Salla does. On request, it fails in the
//! ways in which servers fail. It also judges its client, and keeps forbidden events in
//! [`World::violations`].

mod answers;
mod customers;
mod fault;
mod item;
mod limit;
mod order_items;
mod order_statuses;
mod pages;
mod products;
mod replay;
mod server;
mod shapes;
mod shop;
mod tokens;
mod webhooks;
mod world;

pub use customers::Customer;
pub use fault::{Breakage, Fault, Gate};
pub use item::{Item, Params};
pub use limit::{Announces, Limit, LimitKind};
pub use order_statuses::OrderStatus;
pub use products::Product;
pub use replay::Replay;
pub use server::Simulator;
pub use shop::{Order, Shop};
pub use webhooks::{Delivery, Webhook, WebhookSender};
pub use world::{Between, DayBounds, ListOrder, Seen, Ties, World};
