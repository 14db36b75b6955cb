//! The promise, tried on stores that never hold still: orders come, change and go between any two answers, nights
//! crash, webhooks are lost. A seed decides it all; a model knows what must hold after each night.
//!
//! `SEEDS=10000 tests/run --test it -- model::sqlite` tries ten thousand; `SEED=4711` reproduces the one that failed.

mod history;
mod wrong_walkers;

use futures::{StreamExt, stream};
pub use history::happen;
use history::{Life, Outcome, Reconciler, Stores};

use salla_reconciler::simulator::{Customer, Order, Product};

use crate::support::{Engine, kind::Kind};

/// So many lives go on at a time.
const AT_ONCE: usize = 4;

on_every_database!(
    no_untouched_order_is_lost,
    no_untouched_product_is_lost,
    no_untouched_customer_is_lost,
    no_untouched_order_of_a_sorted_list_is_lost,
    a_row_that_moves_during_a_reading_is_found
);

/// How many seeds are tried by default.
fn usual(engine: Engine) -> u64 {
    match engine {
        Engine::Sqlite => 160,
        Engine::Postgres15 | Engine::Postgres16 => 16,
    }
}

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number =
        |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}")));
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(usual),
    }
}

/// Lives through each seed, and returns what came of it, by seed.
async fn live_all<K: Kind>(
    engine: Engine,
    seeds: std::ops::Range<u64>,
    stores: Stores,
    reconciler: Reconciler,
) -> Vec<(u64, Outcome)> {
    let lives =
        seeds.map(|seed| async move { (seed, Life::<K>::new(seed, engine, stores).await.live(reconciler).await) });
    stream::iter(lives).buffer_unordered(AT_ONCE).collect().await
}

/// Listings, "Lists that change while they are read", is the test of that name below; this one moves everything.
async fn no_untouched_order_is_lost(engine: Engine) {
    nothing_untouched_is_lost::<Order>(engine, Stores::Any, usual(engine)).await;
}

async fn no_untouched_product_is_lost(engine: Engine) {
    nothing_untouched_is_lost::<Product>(engine, Stores::Any, usual(engine) / 3).await;
}

async fn no_untouched_customer_is_lost(engine: Engine) {
    nothing_untouched_is_lost::<Customer>(engine, Stores::Any, usual(engine) / 3).await;
}

/// These stores are large. `reconcile::sorted::tests` tries the same walk on more of them, in memory.
async fn no_untouched_order_of_a_sorted_list_is_lost(engine: Engine) {
    let usual = usual(engine).min(64) / 6;
    let sorted = nothing_untouched_is_lost::<Order>(engine, Stores::Sorted, usual).await;
    assert!(sorted > 0 || engine != Engine::Sqlite || std::env::var("SEED").is_ok(), "no sorted list was believed");
}

/// Returns how many nights a sorted list was believed.
async fn nothing_untouched_is_lost<K: Kind>(engine: Engine, stores: Stores, usual: u64) -> u32 {
    let seeds = seeds(usual);
    let outcomes = live_all::<K>(engine, seeds.clone(), stores, Reconciler::Ours).await;
    let broken: Vec<_> = outcomes.iter().filter(|(_, outcome)| !outcome.broken.is_empty()).collect();
    for (seed, outcome) in &broken {
        println!("SEED={seed}: {}\n  {}", outcome.plan, outcome.broken.join("\n  "));
    }
    assert!(broken.is_empty(), "{} of {} seeds broke the promise; SEED=… reproduces one", broken.len(), outcomes.len());
    // A reconciler must not keep the promise by giving up.
    let (nights, ended) =
        outcomes.iter().fold((0, 0), |(nights, ended), (_, one)| (nights + one.nights, ended + one.ended));
    let sorted: u32 = outcomes.iter().map(|(_, one)| one.sorted).sum();
    println!("{ended} of {nights} nights came to their end, {sorted} of them by a sorted list");
    assert!(ended * 2 > nights || seeds.end - seeds.start == 1, "only {ended} of {nights} nights came to their end");
    sorted
}

/// The test of the test: each of these is wrong in a way that is known, and must be caught.
#[tokio::test(flavor = "multi_thread")]
async fn known_wrong_walkers_are_caught() {
    for reconciler in [
        Reconciler::ForwardOverAscending,
        Reconciler::StopsOnAShortPage,
        Reconciler::WatermarkFromTheNewestRow,
        Reconciler::CountsRepeatsAsRecords,
    ] {
        let outcomes = live_all::<Order>(Engine::Sqlite, 0..40, Stores::Any, reconciler).await;
        let caught = outcomes.iter().filter(|(_, outcome)| !outcome.broken.is_empty()).count();
        println!("{reconciler:?}: caught by {caught} of {} seeds", outcomes.len());
        assert!(caught > 0, "{reconciler:?} was not caught");
    }
}

/// Listings: three pages. Between the first answer and the last, the oldest order changes. In a
/// list from old to new, it moves from page 1 to the end. Every other order then moves one place
/// towards page 1.
async fn a_row_that_moves_during_a_reading_is_found(engine: Engine) {
    use crate::support::{Site, site::shop};
    use salla_reconciler::simulator::ListOrder;

    for order in [ListOrder::UpdatedAscending, ListOrder::UpdatedDescending, ListOrder::Scattered] {
        let mut site = Site::new(engine, [shop(1001, 0, 70)]).await;
        site.set("RECONCILE__PAGE_SIZE", "25");
        let moved = {
            let mut world = site.salla.world();
            world.list_order = order;
            // Some changed after they were placed, so that the list shows by what it is sorted.
            for number in [3, 11, 30, 50] {
                let at = chrono::Utc::now() - chrono::TimeDelta::seconds(50 - number);
                let id = world.shop(1001).orders[usize::try_from(number).unwrap()].id;
                world.shop(1001).touch(id, at);
            }
            let moved = world.shop(1001).orders[69].id;
            let mut answers = 0;
            world.between_answers(move |shops, _| {
                answers += 1;
                if answers == 1 {
                    shops.get_mut(&1001).unwrap().touch(moved, chrono::Utc::now());
                }
            });
            moved
        };
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["status"], "succeeded", "{order:?}: {run}");
        assert_eq!(run["totals"]["fetched"], 70, "{order:?}: order {moved} moved: {run}");
        site.assert_equal(1001).await;
    }
}
