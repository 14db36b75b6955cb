//! Order statuses: from Salla's row to ours. They come in one piece, without dates. A single status has no address.

use bytestring::ByteString;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api_resource::{ApiResource, Capabilities},
    transform::{ApiRow, FieldError, text, transform, whole_number},
};
use crate::{
    domain::{OrderStatus, OrderStatusColumns, Unreadable},
    json_object::object,
    salla::wire::values::{integer, present, stated},
};

/// The fields that we look at.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    slug: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    status_type: Option<&'a RawValue>,
    #[serde(borrow)]
    parent: Option<&'a RawValue>,
    #[serde(borrow)]
    original: Option<&'a RawValue>,
}

impl<'a> ApiRow<'a> for Row<'a> {
    type Columns = OrderStatusColumns;

    const DATED: bool = false;

    fn id(&self) -> Option<&'a RawValue> {
        self.id
    }

    fn columns(&self) -> Result<OrderStatusColumns, FieldError> {
        Ok(OrderStatusColumns {
            name: text(self.name, "name")?,
            slug: text(self.slug, "slug")?,
            status_type: text(self.status_type, "type")?,
            parent_id: reference(self.parent, "parent", "parent.id")?,
            original_id: reference(self.original, "original", "original.id")?,
        })
    }
}

/// The id of another status.
fn reference(raw: Option<&RawValue>, path: &'static str, id_path: &'static str) -> Result<Option<i64>, FieldError> {
    #[derive(Deserialize)]
    struct Reference<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let Some(raw) = stated(raw) else {
        return Ok(None);
    };
    let reference: Reference<'_> = object(raw.get()).map_err(|_| (path, "is not a status"))?;
    whole_number(reference.id, id_path)
}

impl ApiResource for OrderStatus {
    const SCOPE: &'static str = "orders.read";

    const PATH: &'static str = "v2/orders/statuses";

    const LIST: Capabilities = Capabilities {
        changed_since: None,
        created_days: None,
        oldest_first: None,
        by_id: None,
        last_change_first: None,
        paged: false,
        summaries: false,
    };

    const SINGLE: Option<&'static [(&'static str, &'static str)]> = None;

    fn transform(row: &ByteString) -> Result<Self, Unreadable> {
        transform::<Row<'_>>(row)
    }

    fn place(row: &str) -> Option<(i64, Option<DateTime<Utc>>)> {
        let wire: Row<'_> = object(row).ok()?;
        Some((present(wire.id).and_then(integer)?, None))
    }

    fn created_at(&self) -> Option<DateTime<Utc>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"id":1422535667,"name":"في الطريق إليك","type":"custom","slug":"delivering",
        "parent":{"id":1638621685,"name":"تم التنفيذ"},"original":{"id":"349994915","name":"جاري التوصيل"}}"#;

    fn of(json: &str) -> Result<OrderStatus, Unreadable> {
        OrderStatus::transform(&json.into())
    }

    #[test]
    fn a_row_of_the_list() {
        let status = of(ROW).unwrap();
        assert_eq!((status.id, status.updated_at), (1_422_535_667, None));
        let columns = status.columns;
        assert_eq!((columns.slug.as_deref(), columns.status_type.as_deref()), (Some("delivering"), Some("custom")));
        assert_eq!((columns.parent_id, columns.original_id), (Some(1_638_621_685), Some(349_994_915)));
        assert_eq!(
            of(&ROW.replace(r#"{"id":1638621685,"name":"تم التنفيذ"}"#, "null")).unwrap().columns.parent_id,
            None
        );
    }

    #[test]
    fn errors_name_the_path() {
        for (from, to, path) in [
            ("1422535667", "\"x\"", "id"),
            ("\"delivering\"", "{\"a\":1}", "slug"),
            ("1638621685", "\"many\"", "parent.id"),
            (r#"{"id":"349994915","name":"جاري التوصيل"}"#, "7", "original"),
        ] {
            assert_eq!(of(&ROW.replacen(from, to, 1)).unwrap_err().path, path, "{to}");
        }
    }
}
