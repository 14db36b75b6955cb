//! The few words in which PostgreSQL and SQLite differ.

use std::time::Duration;

use rust_decimal::Decimal;
use sea_orm::{DbBackend, Value};

/// Which words to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    pub fn of(backend: DbBackend) -> Self {
        match backend {
            DbBackend::Sqlite => Self::Sqlite,
            _ => Self::Postgres,
        }
    }

    /// Which database it is, by the name of OpenTelemetry's conventions.
    pub fn system_name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The database's clock; PostgreSQL's stands still within a transaction.
    pub fn now(self) -> &'static str {
        match self {
            Self::Postgres => "now()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
        }
    }

    /// The database's clock at this very moment, also within a transaction that has waited for another.
    pub fn clock(self) -> &'static str {
        match self {
            Self::Postgres => "clock_timestamp()",
            Self::Sqlite => self.now(),
        }
    }

    /// The same, moved.
    pub fn clock_plus(self, span: Duration) -> String {
        match self {
            Self::Postgres => format!("(clock_timestamp() + interval '{:.3} seconds')", span.as_secs_f64()),
            Self::Sqlite => self.now_plus(span),
        }
    }

    /// The database's clock, moved.
    pub fn now_plus(self, span: Duration) -> String {
        self.shifted("+", span)
    }

    /// The clock of the database, moved back by a parameter. So the text of the statement stays the
    /// same, and is prepared once. Returns the expression with the placeholder of the dialect, and
    /// the parameter.
    pub fn now_minus_parameter(self, span: Duration) -> (&'static str, Value) {
        let seconds = span.as_secs_f64();
        match self {
            Self::Postgres => ("(now() - $1 * interval '1 second')", seconds.into()),
            Self::Sqlite => {
                ("strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '-' || ? || ' seconds')", format!("{seconds:.3}").into())
            }
        }
    }

    /// The database's clock, moved back.
    pub fn now_minus(self, span: Duration) -> String {
        self.shifted("-", span)
    }

    fn shifted(self, sign: &str, span: Duration) -> String {
        let seconds = span.as_secs_f64();
        match self {
            Self::Postgres => format!("(now() {sign} interval '{seconds:.3} seconds')"),
            Self::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '{sign}{seconds:.3} seconds')"),
        }
    }

    /// Seconds from one instant to another; NULL if one of them cannot be read.
    pub fn seconds_between(self, from: &str, to: &str) -> String {
        match self {
            Self::Postgres => format!(
                "CAST(EXTRACT(EPOCH FROM ({}) - ({})) AS DOUBLE PRECISION)",
                self.comparable(to),
                self.comparable(from)
            ),
            Self::Sqlite => format!("((julianday({to}) - julianday({from})) * 86400.0)"),
        }
    }

    /// Whole seconds from one instant to another. SQLite's days are floats, good to a millisecond.
    pub fn whole_seconds_between(self, from: &str, to: &str) -> String {
        match self {
            Self::Postgres => format!("CAST(trunc({}) AS BIGINT)", self.seconds_between(from, to)),
            Self::Sqlite => format!("CAST(round({}, 3) AS INTEGER)", self.seconds_between(from, to)),
        }
    }

    /// Returns an expression by which any two instants of a column compare by time. It is NULL for
    /// instants outside the years 1 to 9999. Another program may have written another spelling of
    /// the text in SQLite, or `infinity` in PostgreSQL.
    pub fn comparable(self, column: &str) -> String {
        match self {
            Self::Postgres => format!(
                "CASE WHEN {column} >= '0001-01-01 00:00:00+00' AND {column} < '10000-01-01 00:00:00+00' THEN {column} END"
            ),
            // A number alone would be a Julian day.
            Self::Sqlite => format!("CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-*' THEN julianday({column}) END"),
        }
    }

    /// An instant, in a form that an index has and that compares by time.
    pub fn age(self, instant: &str) -> String {
        match self {
            Self::Postgres => instant.to_owned(),
            Self::Sqlite => format!("julianday({instant})"),
        }
    }

    /// A query for the names of the tables of the schema that is worked in.
    pub fn table_names(self) -> &'static str {
        match self {
            Self::Postgres => {
                "SELECT CAST(tablename AS text) AS name FROM pg_tables WHERE schemaname = current_schema()"
            }
            Self::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table'",
        }
    }

    /// Locks the rows that are read, and passes over those that another transaction has locked. SQLite
    /// has one writer, who holds the lock already.
    pub fn for_update_skip_locked(self) -> &'static str {
        match self {
            Self::Postgres => "FOR UPDATE OF r SKIP LOCKED",
            Self::Sqlite => "",
        }
    }

    /// Locks the rows that are read, and waits for other locks.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::Postgres => "FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// The same for rows that others refer to: adding such a row need not wait.
    pub fn for_no_key_update(self) -> &'static str {
        match self {
            Self::Postgres => "FOR NO KEY UPDATE",
            Self::Sqlite => "",
        }
    }

    /// The database's clock in milliseconds since 1970.
    pub fn clock_millis(self) -> &'static str {
        match self {
            Self::Postgres => "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)",
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }

    /// The larger of two numbers.
    pub fn greatest(self, one: &str, other: &str) -> String {
        match self {
            Self::Postgres => format!("GREATEST({one}, {other})"),
            Self::Sqlite => format!("max({one}, {other})"),
        }
    }

    /// A column of instants as it is read: only what is one.
    pub fn finite(self, column: &str) -> String {
        match self {
            Self::Postgres => self.comparable(column),
            Self::Sqlite => column.to_owned(),
        }
    }

    /// An instant `seconds` (an integer expression) after the parameter `$1`.
    pub fn first_parameter_plus(self, seconds: &str) -> String {
        match self {
            Self::Postgres => format!("$1 + ({seconds}) * interval '1 second'"),
            Self::Sqlite => {
                format!("strftime('%Y-%m-%dT%H:%M:%f+00:00', $1, '+' || ({seconds}) || ' seconds')")
            }
        }
    }

    /// A new UUID version 7 a row: 48 bits of Unix milliseconds, the version, and random bits.
    pub fn uuid_v7(self) -> &'static str {
        match self {
            Self::Postgres => {
                "CAST(lpad(to_hex(CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)), 12, '0') \
                 || '7' || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 14, 19) AS uuid)"
            }
            Self::Sqlite => {
                "unhex(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)) || '7' || substr(hex(randomblob(2)), 2) \
                 || substr('89AB', 1 + abs(random() % 4), 1) || substr(hex(randomblob(8)), 2))"
            }
        }
    }

    /// JSON text on its way into a document column.
    pub fn json(self, text: String) -> sea_orm::sea_query::Expr {
        use sea_orm::sea_query::{Expr, ExprTrait};
        match self {
            Self::Postgres => Expr::val(text).cast_as("jsonb"),
            Self::Sqlite => Expr::val(text),
        }
    }

    /// The text at a path in a JSON column, or the number as text; NULL if it is absent.
    pub fn text_at(self, column: &str, path: &str) -> String {
        match self {
            Self::Postgres => format!("({column} #>> '{{{}}}')", path.replace('.', ",")),
            Self::Sqlite => {
                format!("CASE WHEN json_valid({column}) THEN CAST(json_extract({column}, '$.{path}') AS text) END")
            }
        }
    }

    /// An exact decimal; SQLite keeps it as text.
    pub fn exact(self, decimal: Option<Decimal>) -> Value {
        match self {
            Self::Postgres => Value::Decimal(decimal),
            Self::Sqlite => Value::String(decimal.map(|decimal| decimal.to_string())),
        }
    }
}
