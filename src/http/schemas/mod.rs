//! The schemas of the application's terms in the document of the API. The domain knows nothing of OpenAPI.

/// Uses the schema of the description in this module.
macro_rules! described {
    ($($name:ident as $description:ident,)+) => {
        $(impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $description::schema()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $description::schemas(schemas);
            }
        })+
    };
}

mod merchants;
mod runs;

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};

use crate::domain::{
    DiscrepancyKind, FailureKind, Listing, ListingViolation, MerchantId, MerchantState, Resource, RunStatus, Trigger,
    WaitReason,
};

/// An enum of words: its values are the words.
macro_rules! words {
    ($($name:ident: $description:literal,)+) => {
        $(impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = Self::ALL.iter().map(|word| word.as_str());
                let words = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
                words.description(Some($description)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        })+
    };
}

impl PartialSchema for MerchantId {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        let number = number.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        number.description(Some("Merchant id.")).into()
    }
}

impl ToSchema for MerchantId {
    fn name() -> Cow<'static, str> {
        "MerchantId".into()
    }
}

words! {
    MerchantState: "State of a merchant. Sweeps cover active merchants.",
    RunStatus: "Status of a run.",
    Trigger: "Trigger of a run.",
    Listing: "Way in which changed records were found.",
    ListingViolation: "Fault of a sorted list: rows do not stand in the order of their changes, or a change was missed.",
    FailureKind: "Failure kind. Each kind has one action.",
    WaitReason: "Reason for waiting.",
    DiscrepancyKind: "Kind of the discrepancy.",
    Resource: "Kind of record.",
}
