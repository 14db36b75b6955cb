//! The checks of the section `target`.

use secrecy::ExposeSecret;

use super::Config;
use crate::{
    domain::{CustomerFields, Resource},
    store::{ObjectName, PlatformNames, TargetConfig, TargetObjects},
};

/// The key, what is wrong with it, and the fix.
type Problem = (&'static str, String, &'static str);

/// The keys of the objects of a kind: the view and the function.
const KEYS: [(Resource, &str, &str); 3] = [
    (Resource::Orders, "target.orders.view", "target.orders.function"),
    (Resource::Products, "target.products.view", "target.products.function"),
    (Resource::Customers, "target.customers.view", "target.customers.function"),
];

/// The tables of the platform that are reconciled instead of our own tables.
pub fn names(target: &TargetConfig, database: &str, customer_fields: CustomerFields) -> Result<PlatformNames, Problem> {
    let mut names = Vec::new();
    for ((resource, view_key, function_key), objects) in
        KEYS.into_iter().zip([&target.orders, &target.products, &target.customers])
    {
        let TargetObjects { view, function } = objects;
        match (view.is_empty(), function.is_empty()) {
            (true, true) => continue,
            (true, false) => {
                return Err((view_key, format!("is not set, and {function_key} is"), "set both, or neither"));
            }
            (false, true) => {
                return Err((function_key, format!("is not set, and {view_key} is"), "set both, or neither"));
            }
            (false, false) => {}
        }
        if database.starts_with("sqlite:") {
            let problem = "needs PostgreSQL, and database.url names an SQLite file".to_owned();
            return Err((view_key, problem, "set database.url to the PostgreSQL database of the platform"));
        }
        if resource == Resource::Customers && customer_fields != CustomerFields::Full {
            let problem = format!("would empty columns of the platform: privacy.customer_fields is {customer_fields}");
            return Err((view_key, problem, "set privacy.customer_fields to full, or remove target.customers"));
        }
        names.push((resource, name(view_key, view)?, name(function_key, function)?));
    }
    Ok(names)
}

fn name(key: &'static str, text: &str) -> Result<ObjectName, Problem> {
    ObjectName::parse(text).ok_or_else(|| {
        let fix = "write name or schema.name, without quotes, such as salla.platform_orders";
        (key, "is not the name of an object".to_owned(), fix)
    })
}

impl Config {
    /// The tables of the platform that are reconciled instead of our own tables.
    #[must_use]
    pub fn platform_names(&self) -> PlatformNames {
        // `load` has checked them.
        names(&self.target, self.database.url.expose_secret(), self.privacy.customer_fields).unwrap_or_default()
    }
}
