//! The kinds of record that are reconciled: the one list of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Setting, UnknownValue, words::words};

words! {
    /// A kind of record. Its name labels metrics and discrepancies. A run reconciles the kinds in this order. Each kind
    /// has its own files in `domain`, `salla`, `store` and the migrations.
    Resource ("resource") {
        /// A merchant's orders.
        Orders = "orders",
        /// A merchant's products.
        Products = "products",
        /// A merchant's customers.
        Customers = "customers",
        /// The statuses that a merchant gives its orders.
        OrderStatuses = "order_statuses",
    }
}

impl Resource {
    /// The word for one of them.
    #[must_use]
    pub fn one(self) -> &'static str {
        match self {
            Self::Orders => "order",
            Self::Products => "product",
            Self::Customers => "customer",
            Self::OrderStatuses => "order status",
        }
    }

    /// The events of such a record for which Salla sends webhooks.
    #[must_use]
    pub fn webhook_events(self) -> &'static [&'static str] {
        match self {
            Self::Orders | Self::Products => &["created", "updated", "deleted"],
            Self::Customers => &["created", "updated"],
            Self::OrderStatuses => &[],
        }
    }
}

/// Some kinds of record, in the order of the list. None of them: those that are configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Resources(u32);

impl Resources {
    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// This set, or `others` if it is empty.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        if self.is_empty() { others } else { self }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Resource> {
        Resource::ALL.iter().copied().filter(move |resource| self.0 & bit(*resource) != 0)
    }
}

fn bit(resource: Resource) -> u32 {
    1 << resource as u32
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        Self(resources.into_iter().fold(0, |bits, resource| bits | bit(resource)))
    }
}

impl Setting for Resources {
    fn takes() -> String {
        let words = Resource::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>();
        format!("some of {}, separated by commas", words.join(", "))
    }
}

impl FromStr for Resources {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Resource::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let words = Vec::<Resource>::deserialize(input).map_err(D::Error::custom)?;
        Ok(words.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_written_in_the_order_of_the_list() {
        let backwards: Vec<&str> = Resource::ALL.iter().rev().map(|resource| resource.as_str()).collect();
        let all: Resources = backwards.join(" , ").parse().unwrap();
        assert!(all.iter().eq(Resource::ALL.iter().copied()));
        assert_eq!(all.to_string().parse(), Ok(all));
        let none: Resources = "".parse().unwrap();
        assert!(none.is_empty());
        assert_eq!(none.or(all), all);
        assert!("orders,ordres".parse::<Resources>().is_err());
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Resources>(&json).unwrap(), all);
    }
}
