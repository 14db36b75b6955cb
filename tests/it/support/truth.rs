//! What must hold after any crash, whatever was under way.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Site;

impl Site {
    /// At any moment: each watermark has everything behind it that changed before it, in the version of then.
    pub async fn assert_no_watermark_ahead(&self) {
        // What changes from here on has a later stamp.
        let watermarks = self.database.rows("SELECT merchant_id, watermark FROM watermarks").await;
        let watermarks: BTreeMap<i64, DateTime<Utc>> = watermarks
            .iter()
            .map(|row| (row.try_get("", "merchant_id").unwrap(), row.try_get("", "watermark").unwrap()))
            .collect();
        let rows = self
            .database
            .rows("SELECT merchant_id, salla_order_id, salla_updated_at, status FROM orders WHERE deleted_at IS NULL")
            .await;
        let held: BTreeMap<(i64, i64), (DateTime<Utc>, String)> = rows
            .iter()
            .map(|row| {
                let key = (row.try_get("", "merchant_id").unwrap(), row.try_get("", "salla_order_id").unwrap());
                (key, (row.try_get("", "salla_updated_at").unwrap(), row.try_get("", "status").unwrap()))
            })
            .collect();
        let world = self.salla.world();
        for (merchant, watermark) in watermarks {
            for order in &world.shops[&merchant].orders {
                if order.updated_at < watermark {
                    assert_eq!(
                        held.get(&(merchant, order.id)),
                        Some(&(order.updated_at, order.slug().to_owned())),
                        "the watermark {watermark} of {merchant} is ahead: order {} is not held as it was then",
                        order.id
                    );
                }
            }
        }
    }

    /// Waits until no run waits or goes on, which a daemon must see to.
    pub async fn await_settled(&self) {
        let open = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')";
        for _ in 0..1200 {
            if self.database.number(open).await == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let runs = "SELECT COALESCE(max(status || ' epoch ' || epoch || ' setbacks ' || setbacks), '') FROM runs \
                    WHERE status IN ('queued', 'running')";
        panic!("runs are left after 60 s, such as: {}", self.database.text(runs).await);
    }

    /// Once nothing goes on: a last run a store (`run` with these arguments) finds what there is, and afterwards nothing is amiss.
    pub async fn assert_recovered(&self, more: &[&str]) {
        let merchants: Vec<i64> = self.salla.world().shops.keys().copied().collect();
        let output = self.run(&[&["run", "--json"], more].concat()).await.exits(0);
        assert!(output.objects().iter().all(|run| run["status"] == "succeeded"), "{output:?}");
        self.assert_no_watermark_ahead().await;
        for merchant in merchants {
            self.assert_equal(merchant).await;
        }
        for (what, sql) in [
            (
                "firings made two runs of a merchant",
                "SELECT count(*) FROM (SELECT 1 FROM runs WHERE firing IS NOT NULL GROUP BY merchant_id, firing HAVING count(*) > 1) t",
            ),
            (
                "orders were written twice by a run",
                "SELECT count(*) FROM (SELECT 1 FROM discrepancies GROUP BY run_id, salla_id, kind, remote_updated_at HAVING count(*) > 1) t",
            ),
            ("runs are open", "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"),
            ("runs kept what they had seen", "SELECT count(*) FROM run_pages"),
            (
                "runs counted what is not on record",
                "SELECT count(*) FROM runs r WHERE r.created + r.updated > \
                 (SELECT count(*) FROM discrepancies d WHERE d.run_id = r.id AND d.kind IN ('missing', 'stale'))",
            ),
        ] {
            assert_eq!(self.database.number(sql).await, 0, "{what}");
        }
        assert_eq!(self.salla.world().violations, Vec::<String>::new());
    }
}
