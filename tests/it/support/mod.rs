//! What the suites stand on.

#[cfg(feature = "aws")]
pub mod aws;
pub mod browser;
pub mod canary;
pub mod child_process;
pub mod cluster;
pub mod collector;
pub mod daemon;
pub mod database;
pub mod final_state;
pub mod kind;
pub mod log;
pub mod pooler;
pub mod proxy;
pub mod receiver;
pub mod server;
pub mod site;

use std::time::Duration;

pub use database::{Engine, SCHEMA};
pub use site::Site;

/// Makes each test of a suite once for every database; `@ postgres:` before them, for those of several replicas only.
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        on_every_database!(@ sqlite, Sqlite, $($test),+);
        on_every_database!(@ postgres_15, Postgres15, $($test),+);
        on_every_database!(@ postgres_16, Postgres16, $($test),+);
    };
    (@ postgres: $($test:ident),+ $(,)?) => {
        on_every_database!(@ postgres_15, Postgres15, $($test),+);
        on_every_database!(@ postgres_16, Postgres16, $($test),+);
    };
    (@ $module:ident, $engine:ident, $($test:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test($crate::support::Engine::$engine).await;
                }
            )+
        }
    };
}

/// Calls a function that is written for any kind of record once for each kind, all at the same time.
macro_rules! of_every_kind {
    ($name:ident($($argument:expr),*)) => {{
        use salla_reconciler::simulator::{Customer, Order, OrderStatus, Product};
        tokio::join!(
            $name::<Order>($($argument),*),
            $name::<Product>($($argument),*),
            $name::<Customer>($($argument),*),
            $name::<OrderStatus>($($argument),*),
        )
    }};
}

/// Makes each test of a suite once for every PostgreSQL, for what only a server has.
macro_rules! on_every_postgres {
    ($($test:ident),+ $(,)?) => {
        on_every_database!(@ postgres_15, Postgres15, $($test),+);
        on_every_database!(@ postgres_16, Postgres16, $($test),+);
    };
}

/// Waits for a state.
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(30), what, holds).await;
}

/// Waits for a state that other work of the machine may keep waiting.
pub async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(25);
    for _ in 0..limit.as_millis() / LOOK_EVERY.as_millis() {
        if holds().await {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("not within {limit:?}: {what}");
}
