//! Time stamps that Salla's clock did not make: ahead of it, of another calendar, or written by another program in the
//! wrong zone. They must not win over what Salla says now.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::{
    Engine, Site,
    kind::Kind,
    site::{everything, shop, totals},
};

on_every_database!(
    a_stored_stamp_ahead_of_the_clock_does_not_win,
    a_row_of_salla_with_a_stamp_ahead_is_set_aside,
    a_newer_row_with_other_content_is_counted_apart,
    a_newer_row_is_counted_apart_each_night,
    a_future_deleted_at_is_cleared,
);

async fn a_stored_stamp_ahead_of_the_clock_does_not_win(engine: Engine) {
    of_every_kind!(stored_stamp_ahead(engine));
}

async fn stored_stamp_ahead<K: Kind>(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 6, 6)]).await;
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000");
    site.reconcile(1001, &["--full"]).await;
    let rows = u64::try_from(site.database.number(&format!("SELECT count(*) FROM {}", K::TABLE)).await).unwrap();
    for ahead in [TimeDelta::hours(3), TimeDelta::days(26_000)] {
        for other in ["", ", {word} = 'x', payload = '{\"id\":1}'"] {
            let sql = format!("UPDATE {} SET salla_updated_at = $1{}", K::TABLE, other.replace("{word}", K::WORD));
            site.database.execute(&sql, [(Utc::now() + ahead).into()]).await;
            let run = site.reconcile(1001, &["--full"]).await;
            // Of a kind without stamps, the content alone decides.
            if K::DATED || !other.is_empty() {
                assert_eq!(totals(&run), [rows, 0, rows, 0, 0, 0], "{} {ahead} {other}: {run}", K::TABLE);
                site.assert_equal_of::<K>(1001).await;
            }
        }
    }
}

async fn a_row_of_salla_with_a_stamp_ahead_is_set_aside(engine: Engine) {
    for ahead in [TimeDelta::hours(3), TimeDelta::days(26_000)] {
        let site = Site::new(engine, [shop(1001, 0, 5)]).await;
        let (id, right) = {
            let mut world = site.salla.world();
            let order = &mut world.shop(1001).orders[2];
            let right = order.updated_at;
            order.updated_at = DateTime::from_timestamp((Utc::now() + ahead).timestamp(), 0).unwrap();
            (order.id, right)
        };
        let run = site.reconcile(1001, &[]).await;
        assert_eq!((&run["status"], totals(&run)), (&json!("partial"), [5, 4, 0, 0, 1, 0]), "{ahead}: {run}");
        let named = "SELECT reason FROM discrepancies WHERE kind = 'skipped'";
        let reason = site.database.text(named).await;
        assert!(reason.contains("updated_at: is "), "{ahead}: {reason}");
        site.salla.world().shop(1001).orders.iter_mut().find(|order| order.id == id).unwrap().updated_at = right;
        assert_eq!(site.reconcile(1001, &["--full"]).await["status"], "succeeded");
        site.assert_equal(1001).await;
    }
}

async fn a_newer_row_with_other_content_is_counted_apart(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    site.reconcile(1001, &[]).await;
    let newer = {
        let mut world = site.salla.world();
        let mut order = world.shop(1001).orders[1].clone();
        order.updated_at += TimeDelta::seconds(30);
        order.status = (order.status + 1) % 8;
        order
    };
    site.consume(1001, &newer).await;
    let output = site.run(&["run", "--json", "--full"]).await.exits(0);
    let run: Value = output.object();
    assert_eq!((totals(&run), &run["totals"]["newer_locally"]), ([5, 0, 0, 5, 0, 0], &json!(1)), "{run}");
    assert!(output.stderr.contains("newer than in Salla"), "{}", output.stderr);
    let table = site.run(&["run", "--full"]).await.stdout;
    assert!(table.contains("newer here"), "{table}");
}

/// A list of summaries does not show the difference. The night after the details were read must still count it.
async fn a_newer_row_is_counted_apart_each_night(engine: Engine) {
    let site = Site::new(engine, [shop(1001, 0, 5)]).await;
    let newer = {
        let mut world = site.salla.world();
        world.documented = true;
        let mut order = world.shop(1001).orders[1].clone();
        order.updated_at += TimeDelta::seconds(30);
        order.status = (order.status + 1) % 8;
        order
    };
    site.reconcile(1001, &[]).await;
    site.consume(1001, &newer).await;
    for night in 0..3 {
        let run = site.reconcile(1001, &[]).await;
        assert_eq!(run["totals"]["newer_locally"], 1, "{night}: {run}");
    }
    // Now Salla shows the same.
    {
        let mut world = site.salla.world();
        let order = world.shop(1001).orders.iter_mut().find(|order| order.id == newer.id).unwrap();
        (order.updated_at, order.status) = (newer.updated_at, newer.status);
    }
    let run = site.reconcile(1001, &[]).await;
    assert_eq!(run["totals"]["newer_locally"], 0, "{run}");
}

async fn a_future_deleted_at_is_cleared(engine: Engine) {
    of_every_kind!(future_mark(engine));
}

async fn future_mark<K: Kind>(engine: Engine) {
    let mut site = Site::new(engine, [everything(1001, 4, 4)]).await;
    site.set("RECONCILE__RESOURCES", K::RESOURCE.as_str());
    site.set("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "1000000");
    site.reconcile(1001, &["--full"]).await;
    let all = u64::try_from(site.database.number(&format!("SELECT count(*) FROM {}", K::TABLE)).await).unwrap();
    for ahead in [TimeDelta::hours(3), TimeDelta::days(26_000)] {
        for more in [String::new(), format!(", {} = 'x'", K::WORD)] {
            let sql = format!("UPDATE {} SET deleted_at = $1{more}", K::TABLE);
            site.database.execute(&sql, [(Utc::now() + ahead).into()]).await;
            let run = site.reconcile(1001, &["--full"]).await;
            assert_eq!(totals(&run), [all, 0, all, 0, 0, 0], "{} {ahead} {more}: {run}", K::TABLE);
            site.assert_equal_of::<K>(1001).await;
        }
    }
}
