//! The conditions that must hold after any crash, in any situation.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use salla_reconciler::simulator::{Customer, Order, OrderStatus, Product};
use serde_json::Value;

use super::{Site, kind::Kind};

impl Site {
    /// At any moment: each watermark has everything behind it that changed before it, in the version of then.
    pub async fn assert_no_watermark_ahead(&self) {
        self.assert_no_watermark_ahead_of::<Order>().await;
        self.assert_no_watermark_ahead_of::<Product>().await;
        self.assert_no_watermark_ahead_of::<Customer>().await;
        // Salla does not say when order statuses changed.
    }

    async fn assert_no_watermark_ahead_of<K: Kind>(&self) {
        // A change from here on has a later stamp.
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

    /// Every order that is held, and not marked as gone, has the lines that Salla has, in their order.
    pub async fn assert_lines(&self, merchant: i64) {
        let mut theirs = BTreeMap::new();
        for order in self.salla.world().shop(merchant).orders.iter().filter(|order| !order.draft) {
            for (position, line) in order.lines().into_iter().enumerate() {
                let amount = |name: &str| number(&line["amounts"][name]["amount"]);
                let texts =
                    [&line["sku"], &line["name"], &line["currency"]].map(|text| text.as_str().unwrap().to_owned());
                let numbers = [amount("price_without_tax"), amount("total"), number(&line["quantity"])];
                let ids = (line["id"].as_i64().unwrap(), line["product"]["id"].as_i64());
                theirs.insert((order.id, i64::try_from(position).unwrap()), (ids, texts, numbers));
            }
        }
        let sql = format!(
            "SELECT salla_order_id, position, salla_item_id, product_id, sku, name, currency, \
               CAST(price_amount AS text) AS price, CAST(total_amount AS text) AS total, CAST(quantity AS text) AS quantity \
               FROM order_items WHERE merchant_id = {merchant} AND salla_order_id IN \
             (SELECT salla_order_id FROM orders WHERE merchant_id = {merchant} AND deleted_at IS NULL)"
        );
        let mut ours = BTreeMap::new();
        for row in self.database.rows(&sql).await {
            let amount = |name: &str| {
                row.try_get::<Option<String>>("", name).unwrap().map(|text| text.parse::<Decimal>().unwrap())
            };
            let texts = ["sku", "name", "currency"].map(|name| row.try_get::<String>("", name).unwrap());
            let ids = (row.try_get("", "salla_item_id").unwrap(), row.try_get("", "product_id").unwrap());
            let key: (i64, i64) = (row.try_get("", "salla_order_id").unwrap(), row.try_get("", "position").unwrap());
            ours.insert(key, (ids, texts, [amount("price"), amount("total"), amount("quantity")]));
        }
        assert_eq!(ours, theirs);
    }

    /// Waits until all runs have ended. A daemon must execute them, however slow the machine is.
    /// The wait fails if none of them ends within 60 seconds.
    pub async fn await_settled(&self) {
        let open = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')";
        let mut left = i64::MAX;
        let mut looks_in_vain = 0;
        while looks_in_vain < 1200 {
            let now = self.database.number(open).await;
            if now == 0 {
                return;
            }
            looks_in_vain = if now < left { 0 } else { looks_in_vain + 1 };
            left = left.min(now);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let runs = "SELECT COALESCE(max(status || ' epoch ' || epoch || ' failed_attempts ' || failed_attempts), '') FROM runs \
                    WHERE status IN ('queued', 'running')";
        panic!("none of the runs that are left has ended for 60 s, such as: {}", self.database.text(runs).await);
    }

    /// Once nothing goes on: a last run a store (`run` with these arguments) finds what there is, and afterwards nothing is amiss.
    pub async fn assert_recovered(&self, more: &[&str]) {
        let merchants: Vec<i64> = self.salla.world().shops.keys().copied().collect();
        let output = self.run(&[&["run", "--json"], more].concat()).await.exits(0);
        assert!(output.objects().iter().all(|run| run["status"] == "succeeded"), "{output:?}");
        self.assert_no_watermark_ahead().await;
        for merchant in merchants {
            self.assert_all_equal(merchant).await;
            if self.database.number("SELECT count(*) FROM order_items").await > 0 {
                self.assert_lines(merchant).await;
            }
        }
        for (what, sql) in [
            (
                "a sweep has two runs of a merchant",
                "SELECT count(*) FROM (SELECT 1 FROM runs WHERE sweep_scheduled_for IS NOT NULL GROUP BY merchant_id, sweep_scheduled_for HAVING count(*) > 1) t",
            ),
            (
                "records were written twice by a run",
                "SELECT count(*) FROM (SELECT 1 FROM discrepancies GROUP BY run_id, resource, salla_id, kind, remote_updated_at HAVING count(*) > 1) t",
            ),
            ("runs are open", "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"),
            (
                // The next cleaning up removes the ids that an abandoned run had seen.
                "runs kept what they had seen",
                "SELECT count(*) FROM run_seen_ids p JOIN runs r ON r.id = p.run_id WHERE COALESCE(r.error_kind, '') NOT IN ('abandoned', 'worker_crash_loop')",
            ),
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

fn number(value: &Value) -> Option<Decimal> {
    value.as_str().map_or_else(|| value.to_string().parse().ok(), |text| text.parse().ok())
}
