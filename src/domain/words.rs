//! Enums whose variants are words of the database, the API and the metrics.

/// A word from outside that names nothing we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what}: {word:?}{known}")]
pub struct UnknownValue {
    what: &'static str,
    word: String,
    known: String,
}

impl UnknownValue {
    /// `word` was read where a `what` belongs.
    #[must_use]
    pub fn new(what: &'static str, word: &str) -> Self {
        Self { what, word: word.to_owned(), known: String::new() }
    }

    /// Where one of these does.
    #[must_use]
    pub fn among(self, known: &[&str]) -> Self {
        Self { known: format!("; allowed: {}", known.join(", ")), ..self }
    }
}

/// A type that a setting is read to, told without the setting's value: that may be a secret under a wrong name.
pub trait Setting: std::str::FromStr {
    /// What it takes, after `must be`.
    fn takes() -> String;
}

/// An enum that is spelt in `snake_case` in the settings, the database, the API and the metrics.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownValue;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::domain::UnknownValue::new($what, text).among(&[$($word),+])),
                }
            }
        }

        impl $crate::domain::Setting for $name {
            fn takes() -> String {
                format!("one of {}", [$($word),+].join(", "))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;
