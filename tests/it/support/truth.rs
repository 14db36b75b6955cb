//! What must hold after any crash, whatever was under way.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use salla_reconciler::simulator::{Customer, Order, OrderStatus, Product};

use super::{Site, kind::Kind};

impl Site {
    /// At any moment: each watermark has everything behind it that changed before it, in the version of then.
    pub async fn assert_no_watermark_ahead(&self) {
        self.assert_no_watermark_ahead_of::<Order>().await;
        self.assert_no_watermark_ahead_of::<Product>().await;
        self.assert_no_watermark_ahead_of::<Customer>().await;
        // Of order statuses nobody tells when they changed.
    }

    async fn assert_no_watermark_ahead_of<K: Kind>(&self) {
        // What changes from here on has a later stamp.
        let watermarks = format!("SELECT merchant_id, watermark FROM watermarks WHERE resource = '{}'", K::RESOURCE);
        let watermarks = self.database.rows(&watermarks).await;
        let watermarks: BTreeMap<i64, DateTime<Utc>> = watermarks
            .iter()
            .map(|row| (row.try_get("", "merchant_id").unwrap(), row.try_get("", "watermark").unwrap()))
            .collect();
        let (id, word, table) = (K::ID, K::WORD, K::TABLE);
        let rows = format!("SELECT merchant_id, {id}, salla_updated_at, {word} FROM {table} WHERE deleted_at IS NULL");
        let rows = self.database.rows(&rows).await;
        let held: BTreeMap<(i64, i64), (DateTime<Utc>, String)> = rows
            .iter()
            .map(|row| {
                let key = (row.try_get("", "merchant_id").unwrap(), row.try_get("", id).unwrap());
                (key, (row.try_get("", "salla_updated_at").unwrap(), row.try_get("", word).unwrap()))
            })
            .collect();
        let world = self.salla.world();
        for (merchant, watermark) in watermarks {
            for item in K::all(&world.shops[&merchant]) {
                if item.updated_at() < watermark {
                    assert_eq!(
                        held.get(&(merchant, item.id())),
                        Some(&(item.updated_at(), item.word())),
                        "the watermark {watermark} of {merchant} is ahead: {} {} is not held as it was then",
                        K::RESOURCE.one(),
                        item.id()
                    );
                }
            }
        }
    }

    /// Every kind of record of a store is held as Salla has it.
    pub async fn assert_all_equal(&self, merchant: i64) {
        self.assert_equal_of::<Order>(merchant).await;
        self.assert_equal_of::<Product>(merchant).await;
        self.assert_equal_of::<Customer>(merchant).await;
        self.assert_equal_of::<OrderStatus>(merchant).await;
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
            self.assert_all_equal(merchant).await;
        }
        for (what, sql) in [
            (
                "firings made two runs of a merchant",
                "SELECT count(*) FROM (SELECT 1 FROM runs WHERE firing IS NOT NULL GROUP BY merchant_id, firing HAVING count(*) > 1) t",
            ),
            (
                "records were written twice by a run",
                "SELECT count(*) FROM (SELECT 1 FROM discrepancies GROUP BY run_id, resource, salla_id, kind, remote_updated_at HAVING count(*) > 1) t",
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
