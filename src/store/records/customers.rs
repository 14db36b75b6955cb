//! The table of customers.

use sea_orm::{QueryResult, sea_query::Expr};

use super::stored::Stored;
use crate::{
    domain::{Customer, CustomerColumns},
    store::{
        connection::{
            dialect::Dialect,
            stamp::{instant, lenient},
        },
        entity::customer::{Column, Entity},
    },
};

impl Stored for Customer {
    type Entity = Entity;

    const ID: Column = Column::SallaCustomerId;

    const CREATED_AT: Option<Column> = Some(Column::SallaCreatedAt);

    const COLUMNS: &'static [Column] = &[
        Column::FirstName,
        Column::LastName,
        Column::Email,
        Column::Mobile,
        Column::MobileCode,
        Column::Gender,
        Column::Birthday,
        Column::City,
        Column::Country,
        Column::CountryCode,
        Column::Currency,
        Column::Language,
        Column::SallaCreatedAt,
    ];

    const PERSONAL: &'static [Column] = &[
        Column::FirstName,
        Column::LastName,
        Column::Email,
        Column::Mobile,
        Column::MobileCode,
        Column::Gender,
        Column::Birthday,
        Column::City,
        Column::Country,
        Column::CountryCode,
        Column::Currency,
        Column::Language,
    ];

    fn values(&self, _: Dialect) -> Vec<Expr> {
        let columns = self.columns.clone();
        vec![
            Expr::val(columns.first_name),
            Expr::val(columns.last_name),
            Expr::val(columns.email),
            Expr::val(columns.mobile),
            Expr::val(columns.mobile_code),
            Expr::val(columns.gender),
            Expr::val(columns.birthday),
            Expr::val(columns.city),
            Expr::val(columns.country),
            Expr::val(columns.country_code),
            Expr::val(columns.currency),
            Expr::val(columns.language),
            Expr::val(columns.salla_created_at),
        ]
    }

    fn selected(dialect: Dialect) -> Vec<(Expr, &'static str)> {
        vec![
            (Expr::col(Column::FirstName), "first_name"),
            (Expr::col(Column::LastName), "last_name"),
            (Expr::col(Column::Email), "email"),
            (Expr::col(Column::Mobile), "mobile"),
            (Expr::col(Column::MobileCode), "mobile_code"),
            (Expr::col(Column::Gender), "gender"),
            (Expr::col(Column::Birthday), "birthday"),
            (Expr::col(Column::City), "city"),
            (Expr::col(Column::Country), "country"),
            (Expr::col(Column::CountryCode), "country_code"),
            (Expr::col(Column::Currency), "currency"),
            (Expr::col(Column::Language), "language"),
            (Expr::cust(dialect.finite("salla_created_at")), "salla_created_at"),
        ]
    }

    fn columns_of(row: &QueryResult) -> CustomerColumns {
        CustomerColumns {
            first_name: lenient(row, "first_name"),
            last_name: lenient(row, "last_name"),
            email: lenient(row, "email"),
            mobile: lenient(row, "mobile"),
            mobile_code: lenient(row, "mobile_code"),
            gender: lenient(row, "gender"),
            birthday: lenient(row, "birthday"),
            city: lenient(row, "city"),
            country: lenient(row, "country"),
            country_code: lenient(row, "country_code"),
            currency: lenient(row, "currency"),
            language: lenient(row, "language"),
            salla_created_at: instant(row, "salla_created_at"),
        }
    }
}
