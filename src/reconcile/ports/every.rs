//! The ports of all kinds of record together.

use super::{RecordStore, Source};
use crate::domain::{Customer, Order, OrderStatus, Product};

/// Salla's side of every kind of record.
pub trait Sources: Source<Order> + Source<Product> + Source<Customer> + Source<OrderStatus> {}

impl<S: Source<Order> + Source<Product> + Source<Customer> + Source<OrderStatus>> Sources for S {}

/// The platform's side of every kind of record.
pub trait RecordStores:
    RecordStore<Order> + RecordStore<Product> + RecordStore<Customer> + RecordStore<OrderStatus>
{
}

impl<T: RecordStore<Order> + RecordStore<Product> + RecordStore<Customer> + RecordStore<OrderStatus>> RecordStores
    for T
{
}
