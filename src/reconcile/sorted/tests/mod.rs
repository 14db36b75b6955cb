//! The walk against servers in memory that change between any two answers. A seed decides everything.
//!
//! `SEEDS=10000 cargo test --release --lib sorted::` tries ten thousand stores; `SEED=4711` reproduces one.

#![expect(clippy::print_stdout, reason = "a failed test names its seed")]

mod life;
mod server;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta};
use rand::{SeedableRng, rngs::StdRng};

use self::{
    life::{Fault, Life, live, live_as, night_of},
    server::{Nulls, Plan, Sort},
};
use super::{Bounds, Conclusion, Rules, SortedPage, SortedRow, SortedWalk, Step};
use crate::domain::SortedListResult;

fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(usual),
    }
}

fn lives(usual: u64, is_meant: impl Fn(&Plan) -> bool) -> Vec<(u64, Plan, Life)> {
    let life = |seed| live(seed, Rules::SOUND, Fault::None, &is_meant).map(|(plan, life)| (seed, plan, life));
    seeds(usual).filter_map(life).collect()
}

/// Prints the stores that lost something, and how the nights ended. Returns how many stores lost something.
fn print_lost(lives: &[(u64, Plan, Life)]) -> usize {
    let broken: Vec<_> = lives.iter().filter(|(_, _, life)| !life.lost.is_empty()).collect();
    for (seed, plan, life) in broken.iter().take(5) {
        println!("SEED={seed}: {plan:?}\n  {}", life.lost.join("\n  "));
    }
    let sum = |count: fn(&Life) -> u32| lives.iter().map(|(_, _, life)| count(life)).sum::<u32>();
    let mut reasons: HashMap<SortedListResult, u32> = HashMap::new();
    for (reason, nights) in lives.iter().flat_map(|(_, _, life)| &life.inconclusive) {
        *reasons.entry(*reason).or_default() += nights;
    }
    println!(
        "{} nights of {} stores were sorted lists, {} scans; {} times not sorted, {} times a missed change; {reasons:?}",
        sum(|life| life.complete),
        lives.len(),
        sum(|life| life.scans),
        sum(|life| life.not_sorted),
        sum(|life| life.missed),
    );
    broken.len()
}

/// Nothing that a sound server does is a reason for an alarm, unless the store itself is disturbed.
fn is_undisturbed(plan: &Plan) -> bool {
    plan.hidden == 0 && !plan.is_restored && plan.wrong_copies <= 0.0
}

#[test]
fn no_change_is_lost_on_a_server_that_sorts() {
    let lives = lives(300, |plan| plan.sort.is_sorted());
    let broken = print_lost(&lives);
    let undisturbed = || lives.iter().filter(|(_, plan, _)| is_undisturbed(plan));
    let nights: u32 = undisturbed().map(|(_, plan, _)| plan.nights).sum();
    let alarms: u32 = undisturbed().map(|(_, _, life)| life.not_sorted + life.missed).sum();
    let usual = || undisturbed().filter(|(_, plan, _)| plan.orders > 120 && !plan.scans);
    let (sorted, all) =
        usual().fold((0, 0), |(sorted, all), (_, plan, life)| (sorted + life.complete, all + plan.nights));
    println!(
        "{alarms} false alarms in {nights} nights of undisturbed stores; {sorted} of {all} usual nights were sorted lists"
    );
    assert_eq!(broken, 0, "stores lost changes");
    assert!(alarms * 1_000 <= nights, "{alarms} false alarms");
    assert!(lives.len() < 2 || sorted * 2 > all, "the walk gives up too often");
}

#[test]
fn no_change_is_lost_on_a_server_that_does_not_sort() {
    let lives = lives(300, |plan| Sort::NOT_BY_CHANGE.contains(&plan.sort));
    assert_eq!(print_lost(&lives), 0, "stores lost changes");
}

/// Some changes do not move their row, and no reading of the list can show that. The samples and the slices do.
#[test]
fn a_server_that_only_looks_sorted_is_found_out() {
    let lives = lives(600, |plan| plan.sort.looks_sorted());
    assert_eq!(print_lost(&lives), 0, "a change was not found within its nights");
    let has_misses = |plan: &Plan| plan.nights == 20 && plan.orders > 120 && plan.changes > 20 && plan.webhooks < 0.8;
    let believed: Vec<_> = lives.iter().filter(|(_, plan, life)| has_misses(plan) && life.complete > 10).collect();
    for (seed, plan, life) in &believed {
        println!("SEED={seed}: {} of {} nights were believed", life.complete, plan.nights);
    }
    assert!(believed.is_empty());
}

/// `docs/explanation/listings.md` has the bound. The slice and the samples are not part of the walk.
#[test]
fn a_night_costs_hardly_more_requests_than_there_are_changes() {
    for (orders, changes) in [(1_000, 10), (10_000, 100), (100_000, 500)] {
        let (conclusion, requests, changed) = night_of(Plan::quiet(orders, changes), Rules::SOUND);
        assert_eq!(conclusion, Conclusion::Complete);
        let bound = changed + changed / 20 + 30 - 10;
        println!("{orders} orders, {changed} changes: {requests} requests of at most {bound}");
        assert!(requests <= bound, "{requests} requests, {bound} are allowed");
    }
}

/// PostgreSQL, for example, lists them first in a descending order.
#[test]
fn orders_without_a_time_of_change_at_the_head_do_not_prevent_the_proof() {
    let plan = Plan { nights: 10, page_size: 15, without_stamp: 0.05, nulls: Nulls::First, ..Plan::quiet(300, 20) };
    let life = live_as(plan, &mut StdRng::seed_from_u64(1), Rules::SOUND, Fault::None);
    assert_eq!((life.complete, life.lost), (10, Vec::new()));
}

/// Runs try such an order again by its id, so the proof need not wait for it.
#[test]
fn orders_that_cannot_be_read_do_not_prevent_the_proof() {
    for seed in 0..20 {
        let plan = Plan { nights: 5, page_size: 15, has_unreadable: true, ..Plan::quiet(300, 40) };
        let life = live_as(plan, &mut StdRng::seed_from_u64(seed), Rules::SOUND, Fault::None);
        assert_eq!((life.complete, life.lost), (5, Vec::new()), "seed {seed}: {:?}", life.inconclusive);
    }
}

/// Without `totalPages`, only an empty page ends the list, and this server never shows one.
#[test]
fn a_server_that_repeats_a_page_in_a_further_reading_ends_the_walk() {
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    // The list is sorted by time of change only: neither by id nor by time of creation.
    let (id_at, place_of) = (|place: i64| place * 37 % 101, |id: i64| id * 71 % 101);
    let stamp = |id: i64| match place_of(id) {
        place @ ..=12 => now - TimeDelta::hours(1) - TimeDelta::minutes(2 * place),
        place => now - TimeDelta::days(place),
    };
    let bounds = Bounds { threshold: now - TimeDelta::hours(2), recent_since: now, stored: 100 };
    let mut walk = SortedWalk::new(bounds, Rules::SOUND);
    for requests in 0.. {
        assert!(requests < 100, "the walk does not end");
        match walk.next() {
            Step::Page { number, .. } => {
                let page = if walk.is_in_first_reading() { i64::from(number) } else { 1 };
                let row = |id| SortedRow {
                    id,
                    created_at: Some(now - TimeDelta::days(400) + TimeDelta::days(id * 53 % 101)),
                    stored: Some(stamp(id).min(now - TimeDelta::hours(3))),
                    read_earlier: None,
                    is_due: false,
                };
                let rows: Vec<SortedRow> = (page * 10 - 9..=page * 10).map(|place| row(id_at(place))).collect();
                walk.admit_page(SortedPage { rows: &rows, total_pages: None, served_at: Some(now) });
            }
            Step::Details(ids) => {
                walk.admit_details(&ids.into_iter().map(|id| (id, Some(stamp(id)))).collect());
            }
            Step::Done(conclusion) => {
                assert_eq!(conclusion, Conclusion::Inconclusive(SortedListResult::Unstable));
                break;
            }
        }
    }
}

/// One night in 45, the list is not sorted.
#[test]
fn a_store_returns_to_the_sorted_list_after_a_false_alarm() {
    for seed in 0..5 {
        let plan = Plan { nights: 45, changes: 20, page_size: 15, wrong_night: Some(20), ..Plan::quiet(300, 20) };
        let life = live_as(plan, &mut StdRng::seed_from_u64(seed), Rules::SOUND, Fault::None);
        assert_eq!(life.lost, Vec::<String>::new());
        assert_eq!((life.not_sorted, life.missed), (1, 0), "seed {seed}");
        assert!(life.complete >= 42, "seed {seed}: {life:?}");
    }
}

/// Each of these rules is needed: without it, a store loses a change or raises a false alarm. The seeds are the first ones that show
/// it; `SEEDS=20000` looks for others.
#[test]
fn a_walk_without_one_of_its_rules_is_caught() {
    let sound = Rules::SOUND;
    let broken = [
        ("no second reading", Rules { reads_again: false, ..sound }, 6),
        ("no count", Rules { counts: false, ..sound }, 48),
        ("unchanged orders count", Rules { counts_changed_only: false, ..sound }, 268),
        ("pairs within a page are evidence", Rules { pairs_across_pages: false, ..sound }, 2859),
        ("an order by id is not excluded", Rules { needs_id_pairs: false, ..sound }, 1284),
        ("contradictions are not read again", Rules { rechecks: false, ..sound }, 32),
        ("recent changes are evidence", Rules { ignores_recent: false, ..sound }, 5),
        ("an empty page is the end", Rules { distrusts_empty_pages: false, ..sound }, 79),
        ("the boundary is not read again", Rules { confirms_boundary: false, ..sound }, 2483),
    ];
    for (name, rules, seed) in broken {
        // Without the second look at contradictions nothing is lost, but sound servers are suspected.
        let raises_alarms = !rules.rechecks || !rules.ignores_recent;
        let is_meant = |plan: &Plan| {
            let is_sound = plan.sort.is_sorted() && is_undisturbed(plan);
            !plan.sort.looks_sorted() && plan.webhooks <= 0.0 && (is_sound || !raises_alarms)
        };
        assert_caught(name, seed, |seed| {
            let life = live(seed, rules, Fault::None, is_meant);
            life.is_some_and(|(_, life)| if raises_alarms { life.not_sorted > 0 } else { !life.lost.is_empty() })
        });
    }
}

/// The details of one row may be stale. Further readings find out, so the test leaves them out.
#[test]
fn a_first_reading_that_ends_at_one_old_row_is_caught() {
    let is_meant = |plan: &Plan| plan.sort.is_sorted() && is_undisturbed(plan) && plan.webhooks <= 0.0;
    let loses = |seed, old_rows| {
        let rules = Rules { reads_again: false, old_rows, ..Rules::SOUND };
        live(seed, rules, Fault::None, is_meant).is_some_and(|(_, life)| !life.lost.is_empty())
    };
    assert_caught("one old row ends the first reading", 92, |seed| {
        loses(seed, 1) && !loses(seed, Rules::SOUND.old_rows)
    });
}

/// The same for the nights around the walk. A missed change that the samples find is a loss that came to light.
#[test]
fn a_night_with_a_fault_is_caught() {
    let faults = [
        ("the watermark moves on scans", Fault::WatermarkMovesOnScans, 155),
        ("the watermark moves to the end of the night", Fault::WatermarkFromTheEnd, 4915),
        ("the first night is a sorted list", Fault::SortsAtOnce, 104),
        ("slices are computed from the number of orders", Fault::RecomputesSlices, 1375),
        ("the walk steps back by the total", Fault::StepsBackByTotal, 1),
    ];
    for (name, fault, seed) in faults {
        assert_caught(name, seed, |seed| {
            let life = live(seed, Rules::SOUND, fault, |plan| !plan.sort.looks_sorted() && plan.webhooks <= 0.0);
            life.is_some_and(|(plan, life)| !life.lost.is_empty() || is_undisturbed(&plan) && life.missed > 0)
        });
    }
}

/// The audit must see old changes too: the next threshold lies behind a change that a night missed.
#[test]
fn an_audit_of_recent_changes_only_is_caught() {
    let is_meant = |plan: &Plan| plan.sort.looks_sorted();
    let missed = |seed, fault| live(seed, Rules::SOUND, fault, is_meant).map_or(0, |(_, life)| life.missed);
    assert_caught("the audit sees recent changes only", 3, |seed| {
        missed(seed, Fault::None) > 0 && missed(seed, Fault::AuditsRecentOnly) == 0
    });
}

/// `seed`: the first one that catches the fault.
fn assert_caught(name: &str, seed: u64, is_caught: impl Fn(u64) -> bool) {
    let searches = std::env::var("SEEDS").is_ok();
    let found =
        if searches { seeds(0).find(|seed| is_caught(*seed)) } else { Some(seed).filter(|seed| is_caught(*seed)) };
    println!("{name}: caught by {found:?}");
    assert!(found.is_some(), "not caught: {name}");
}
