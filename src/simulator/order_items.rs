//! The lines of orders, which have an address of their own.

use serde_json::{Value, json};

use super::{fault::Fault, shapes::amount, shop::Order, world::World};

/// Where they are, behind `/admin/v2/`.
pub const LIST: &str = "orders/items";

const GOODS: [&str; 5] = ["قميص قطني أبيض", "عطر العود الملكي", "سماعات لاسلكية", "تمر سكري فاخر", "Leather wallet"];

impl Order {
    /// The items of the order, one to four. Their number depends on the id, and on whether the total is even.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let kind = usize::try_from(self.id).unwrap_or(0);
        let count = 1 + kind % 3 + usize::try_from(self.total).unwrap_or(0) % 2;
        (0..count).map(|line| self.line(line, kind + line)).collect()
    }

    fn line(&self, line: usize, kind: usize) -> Value {
        let number = i64::try_from(line).unwrap_or(0);
        let money = |hundredths| json!({"amount": amount(hundredths, self.id), "currency": self.currency});
        let quantity = 1 + kind % 4;
        let price = self.total / (number + 3);
        json!({
            "id": self.id * 10 + number, "name": GOODS[kind % GOODS.len()], "sku": format!("SKU-{}", kind % 10_000),
            "quantity": if kind.is_multiple_of(2) { json!(quantity) } else { json!(quantity.to_string()) },
            "currency": self.currency, "weight": 0.51, "weight_label": "٥١٠ جم", "notes": "هدية لنورة",
            "product": if kind.is_multiple_of(5) { Value::Null } else { json!({"id": 1_500_000_000 + kind}) },
            "amounts": {
                "price_without_tax": money(price), "total_discount": money(0),
                "tax": {"percent": "15.00", "amount": money(price * 15 / 100)}, "total": money(price * 115 / 100),
            },
            "options": [], "images": [], "codes": [],
        })
    }
}

/// What that address shows of an order.
pub fn of_order(world: &World, merchant_id: i64, id: i64) -> Result<String, Fault> {
    let orders = world.shops.get(&merchant_id).map_or(&[][..], |shop| &shop.orders);
    let order = orders.iter().find(|order| order.id == id).ok_or_else(Fault::no_such_record)?;
    let lines: Vec<String> = order.lines().iter().map(Value::to_string).collect();
    Ok(format!(r#"{{"status":200,"success":true,"data":[{}]}}"#, lines.join(",")))
}
