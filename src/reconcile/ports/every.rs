//! The ports of every kind of record together.

use super::{Source, Target};
use crate::domain::{self, with_resources};

macro_rules! every {
    ($($(#[$doc:meta])* $kind:ident($record:ident) = $word:literal, one $one:literal, told $told:expr;)+) => {
        /// Salla's side, whatever the kind of record.
        pub trait Sources: $(Source<domain::$record> +)+ Sized {}

        impl<S: $(Source<domain::$record> +)+ Sized> Sources for S {}

        /// The platform's side, whatever the kind of record.
        pub trait Targets: $(Target<domain::$record> +)+ Sized {}

        impl<T: $(Target<domain::$record> +)+ Sized> Targets for T {}
    };
}
with_resources!(every);
