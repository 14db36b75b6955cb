//! The ports of all kinds of record together.

use super::{Source, Target};
use crate::domain::{Customer, Order, OrderStatus, Product};

/// Salla's side of every kind of record.
pub trait Sources: Source<Order> + Source<Product> + Source<Customer> + Source<OrderStatus> {}

impl<S: Source<Order> + Source<Product> + Source<Customer> + Source<OrderStatus>> Sources for S {}

/// The platform's side of every kind of record.
pub trait Targets: Target<Order> + Target<Product> + Target<Customer> + Target<OrderStatus> {}

impl<T: Target<Order> + Target<Product> + Target<Customer> + Target<OrderStatus>> Targets for T {}
